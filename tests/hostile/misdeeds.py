"""What a hostile broker may say, and what is to be said of it."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple

import gevent
from pamqp import commands

from tests.amqp.drawing import sized
from tests.amqp.scripted import BODY, HEARTBEAT, METHOD, HungUp, Peer, content_header, method, raw_frame

#: of the hostile broker
FRAME_MAX = 4096


def nested(depth: int) -> bytes:
    """The payload of a table that holds a table that holds a table ..."""
    payload = b''
    for _ in range(depth):
        payload = b'\x01aF' + sized(payload)
    return payload


def _start(server_properties: bytes) -> bytes:
    return raw_frame(METHOD, 0, b'\x00\x0a\x00\x0a\x00\x09' + server_properties + sized(b'PLAIN') + sized(b'en_US'))


class Misdeed(NamedTuple):
    """Something that a broker must not say.

    :ivar says: what the error says of it, a regular expression.
    :ivar data: the bytes.
    """

    says: str
    data: bytes


#: instead of connection.start
AT_THE_START = {
    'a frame of 4 GiB before tune': Misdeed(
        '4294967303 bytes; at most 4096 are accepted', struct.pack('>BHI', METHOD, 0, 0xFFFFFFFF)
    ),
    'a table longer than its frame': Misdeed('5000 bytes is longer than its frame', _start(struct.pack('>I', 5000))),
    'deeply nested tables': Misdeed('nested more than 100 deep', _start(sized(nested(570)))),
}

#: instead of connection.tune
SMALL_FRAMES = 'a tune with frame_max 1'
INSTEAD_OF_TUNE = {
    SMALL_FRAMES: Misdeed(
        'wants frames of at most 1 bytes; AMQP demands 4096', method(0, commands.Connection.Tune(2047, 1, 0))
    ),
}


def on_channel(number: int) -> dict[str, Misdeed]:
    """On a connection of which this channel is open, and neither channel 5 nor channel 77."""

    def message(size: int, body: bytes = b'') -> bytes:
        announced = method(number, commands.Basic.Deliver('nobody', 1, False, '', '')) + content_header(number, size)
        return announced + (raw_frame(BODY, number, body) if body else b'')

    def with_table(table: bytes) -> bytes:
        # queue.declare holds one, and is as well formed as it is out of place.
        return raw_frame(METHOD, number, b'\x00\x32\x00\x0a\x00\x00\x01q\x00' + table)

    return {
        'a frame of 4 GiB': Misdeed(
            '4294967303 bytes; at most [0-9]+ are accepted', struct.pack('>BHI', METHOD, number, 0xFFFFFFFF)
        ),
        'a body frame above frame_max': Misdeed(
            'a frame of 131081 bytes; at most [0-9]+ are accepted', message(200_000, bytes(131_073))
        ),
        'an unknown frame type': Misdeed('type 9 on channel', raw_frame(9, number, b'')),
        'an unknown channel': Misdeed('channel 77, which is not open', method(77, commands.Queue.BindOk())),
        'a body of 2^63 bytes': Misdeed(
            f'a body of {2**63} bytes was announced; at most [0-9]+ are accepted', message(2**63)
        ),
        'a body longer than declared': Misdeed('1 bytes longer than its header announced', message(3, b'four')),
        'a header without its method': Misdeed('a content header where a method frame', content_header(number, 1)),
        'a wrong end octet': Misdeed(
            'ends with octet 0xcd, not with 0xce', raw_frame(METHOD, number, bytes(4), end=b'\xcd')
        ),
        'a heartbeat on channel 5': Misdeed('channel 5, which is not open', raw_frame(HEARTBEAT, 5, b'')),
        'a table longer than its frame': Misdeed(
            '5000 bytes is longer than its frame', with_table(struct.pack('>I', 5000))
        ),
        'deeply nested tables': Misdeed('nested more than 100 deep', with_table(sized(nested(500)))),
    }


def dribble(peer: Peer, data: bytes, pause: float) -> None:
    """Say it a byte at a time, until the other side has had enough."""
    try:
        for at in range(len(data)):
            peer.send(data[at : at + 1])
            gevent.sleep(pause)
    except OSError:
        return


ONE_BYTE_A_SECOND = 'one byte a second'


def scripts() -> dict[str, tuple[str, Callable[[Peer], object]]]:
    """Each misdeed: what the error says of it, and what a `ScriptedBroker` plays."""
    made: dict[str, tuple[str, Callable[[Peer], object]]] = {}

    def at_the_start(peer: Peer, data: bytes) -> None:
        peer.read_exactly(8)
        peer.send(data)

    def instead_of_tune(peer: Peer, data: bytes) -> None:
        peer.greet()
        peer.send(data)

    def on_a_channel(peer: Peer, data: bytes) -> None:
        peer.accept(frame_max=FRAME_MAX)
        peer.accept_channel()
        peer.read()
        peer.send(data)

    for misdeeds, play, when in (
        (AT_THE_START, at_the_start, ''),
        (INSTEAD_OF_TUNE, instead_of_tune, ''),
        (on_channel(1), on_a_channel, ' on an open channel'),
    ):
        for name, misdeed in misdeeds.items():

            def script(peer: Peer, play: Callable[[Peer, bytes], None] = play, data: bytes = misdeed.data) -> list:
                try:
                    play(peer, data)
                except (HungUp, OSError):  # it may well hang up before it has heard the end
                    return []
                return peer.last_words()

            made[name + when] = (misdeed.says, script)

    def one_byte_a_second(peer: Peer) -> list:
        peer.read_exactly(8)
        dribble(peer, _start(sized(b'')), 1)
        return []

    made[ONE_BYTE_A_SECOND] = ('no AMQP connection to .* within 1.5 s', one_byte_a_second)
    return made
