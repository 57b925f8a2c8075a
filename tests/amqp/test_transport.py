"""The transport: what leaves in how many sends, in which order, and what happens when the peer does not read."""

from __future__ import annotations

import _thread
import hashlib
import os
import random
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import gevent
import pytest
from gevent import socket
from gevent.event import Event
from gevent.queue import SimpleQueue
from pamqp import commands

from amphora.amqp import Connection, Message
from amphora.amqp.gathered import Gathered
from amphora.amqp.transport import Transport
from tests.amqp.scripted import Peer, ScriptedBroker
from tests.waiting import eventually

HIGH_WATER = 1_000_000


class Wired:
    """A transport, and the other end of its socket."""

    def __init__(self, kind: int) -> None:
        ours, self.peer = socket.socketpair(socket.AF_UNIX, kind)
        self.data: SimpleQueue[bytes] = SimpleQueue()
        self.lost: SimpleQueue[Exception] = SimpleQueue()
        self.drained: list[int] = []
        self.transport = Transport(ours, self.data.put, self.lost.put, self._drain, HIGH_WATER)
        self.transport.start()

    def _drain(self) -> None:
        self.drained.append(self.transport.unsent)

    def sends(self, until: bytes) -> list[bytes]:
        """The pieces in which bytes left, up to the one that ends with `until`; for SEQPACKET, which keeps them."""
        pieces = [self.peer.recv(1_000_000)]
        while not pieces[-1].endswith(until):
            pieces.append(self.peer.recv(1_000_000))
        return pieces

    def read(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            piece = self.peer.recv(size - len(data))
            assert piece, 'the transport closed the socket'
            data += piece
        return bytes(data)


@pytest.fixture
def wire() -> Iterator[Callable[[int], Wired]]:
    made: list[Wired] = []

    def wire(kind: int) -> Wired:
        made.append(Wired(kind))
        return made[-1]

    yield wire
    for each in made:
        each.transport.close()
        each.peer.close()


@pytest.fixture
def packets(wire: Callable[[int], Wired]) -> Wired:
    """A socket that keeps the borders of each send."""
    return wire(socket.SOCK_SEQPACKET)


@pytest.fixture
def stream(wire: Callable[[int], Wired]) -> Wired:
    return wire(socket.SOCK_STREAM)


def test_the_first_write_of_an_iteration_leaves_at_once(packets: Wired) -> None:
    packets.transport.write(b'first')

    # No greenlet and no loop has run since.
    packets.peer.setblocking(False)
    assert packets.peer.recv(100) == b'first'
    assert packets.transport.unsent == 0


def test_all_other_writes_of_an_iteration_leave_as_one(packets: Wired) -> None:
    for number in range(1000):
        packets.transport.write(b'%d,' % number)
    assert packets.sends(b'999,') == [b'0,', b''.join(b'%d,' % number for number in range(1, 1000))]


def test_what_is_large_leaves_alone_and_the_rest_joined_in_order(packets: Wired) -> None:
    packets.transport.write(b'first')
    large = [bytes([letter]) * 150_000 for letter in b'AB']
    gathered = Gathered([b'e', memoryview(b'f' * 140_000), b'g'])
    for data in (b'1,', b'2,', large[0], b'3,', large[1], gathered, b'c' * 100_000, b'd' * 31_072, b'4,', b'end'):
        packets.transport.write(data)
    assert packets.sends(b'end') == [
        b'first',
        b'1,2,',
        large[0],
        b'3,',
        large[1],
        bytes(gathered),
        b'c' * 100_000 + b'd' * 31_072,
        b'4,end',
    ]


def test_the_writes_of_many_greenlets_in_one_iteration_leave_as_two(packets: Wired) -> None:
    writers = [gevent.spawn(packets.transport.write, b'%d,' % number) for number in range(100)]
    gevent.joinall(writers)
    pieces = packets.sends(b'99,')
    assert pieces[0] == b'0,'
    assert len(pieces) == 2


def test_the_next_iteration_begins_with_a_write_at_once_again(packets: Wired) -> None:
    for word in (b'one', b'two', b'three'):
        packets.transport.write(word)
        packets.peer.setblocking(False)
        assert packets.peer.recv(100) == word
        gevent.sleep(0.001)


class Entered(Transport):
    """One that is written to while it writes, as by a finalizer that the garbage collector runs just then."""

    def _push(self, data: bytes = b'') -> bool:
        if data == b'first':
            self.write(b'meanwhile')
        return super()._push(data)


def test_what_is_written_while_something_is_written_leaves_at_the_end_of_the_iteration() -> None:
    ours, peer = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    transport = Entered(ours, print, print, print, HIGH_WATER)
    transport.write(b'first')
    peer.settimeout(5)
    assert [peer.recv(100), peer.recv(100)] == [b'first', b'meanwhile']
    assert transport.unsent == 0
    transport.close()
    peer.close()


WRITING = """
import socket
import gevent
from amphora.amqp.transport import Transport

ours, peer = gevent.socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
transport = Transport(ours, print, print, print, 1000)
peer.setblocking(False)
for word in (b'one', b'two', b'three'):
    transport.write(word)
    print(peer.recv(100))
    gevent.sleep(0.001)
transport.write(b'four')
transport.write(b'five')
print(peer.recv(100))
gevent.sleep(0.001)
print(peer.recv(100))
"""


@pytest.mark.parametrize('loop', ['libev-cext', 'libuv'])
def test_the_first_write_of_an_iteration_leaves_at_once_whether_or_not_the_loop_counts_them(loop: str) -> None:
    environment = {**os.environ, 'GEVENT_LOOP': loop}
    output = subprocess.run([sys.executable, '-c', WRITING], env=environment, capture_output=True, check=True).stdout
    assert output.split() == [b"b'one'", b"b'two'", b"b'three'", b"b'four'", b"b'five'"]


def test_while_iterations_write_more_than_once_the_first_write_waits_for_the_others(packets: Wired) -> None:
    for number in range(2):
        packets.transport.write(b'%d,' % number)
    packets.sends(b'1,')
    for number in range(100):
        packets.transport.write(b'%d,' % number)
    assert packets.sends(b'99,') == [b''.join(b'%d,' % number for number in range(100))]

    # This one writes once, so the next does not wait.
    packets.transport.write(b'late')
    assert packets.sends(b'late') == [b'late']
    packets.transport.write(b'at once')
    packets.peer.setblocking(False)
    assert packets.peer.recv(100) == b'at once'


def test_flush_sends_what_is_queued_now(packets: Wired) -> None:
    packets.transport.write(b'first')
    packets.transport.write(b'second')
    packets.transport.flush()
    packets.peer.setblocking(False)
    assert [packets.peer.recv(100), packets.peer.recv(100)] == [b'first', b'second']


def test_bytes_keep_their_order_whatever_the_socket_takes(stream: Wired) -> None:
    chance = random.Random(2)
    pieces: list[bytes | Gathered] = [
        chance.randbytes(chance.choice([1, 100, 10_000, 500_000, 2_000_000])) for _ in range(40)
    ]
    for number in range(0, 40, 3):
        # More pieces than a system takes at once.
        parts = [chance.randbytes(chance.choice([1, 8, 500, 4096])) for _ in range(3000)]
        pieces[number] = Gathered([memoryview(part) if len(part) > 8 else part for part in parts])
    expected = b''.join(map(bytes, pieces))

    def write() -> None:
        for number, piece in enumerate(pieces):
            stream.transport.write(piece)
            if number % 7 == 0:
                gevent.sleep(0)

    writer = gevent.spawn(write)
    got = stream.read(len(expected))

    writer.get(timeout=5)
    assert hashlib.sha256(got).digest() == hashlib.sha256(expected).digest()
    assert eventually(lambda: stream.transport.unsent == 0)


def test_ctrl_c_while_something_is_written_loses_nothing_else(stream: Wired) -> None:
    body = b'x' * 200_000
    stream.transport.write(b'first')
    stream.transport.write(b'second')
    write = partial(stream.transport.write, Gathered([body]))
    with pytest.raises(KeyboardInterrupt):
        # Python hears of it at the first of its lines, which is in the writing when that runs any.
        deque(map(partial.__call__, [partial(_thread.interrupt_main), write]), maxlen=0)
    stream.transport.write(b'last')
    came = b''
    while not came.endswith(b'last'):
        came += stream.peer.recv(65536)
    assert came in (b'firstsecond' + body + b'last', b'firstsecondlast')
    assert stream.lost.empty()


def test_a_peer_that_does_not_read_makes_it_congested_and_reading_makes_it_drain_once(stream: Wired) -> None:
    transport = stream.transport
    written = 0
    while not transport.is_congested():
        transport.write(b'x' * 50_000)
        written += 50_000
        assert written < 10 * HIGH_WATER
    assert HIGH_WATER < transport.unsent <= HIGH_WATER + 50_000
    gevent.sleep(0)
    assert stream.drained == []

    stream.read(written)

    eventually(lambda: transport.unsent == 0)
    assert not transport.is_congested()
    assert len(stream.drained) == 1
    assert stream.drained[0] <= HIGH_WATER // 2


def test_a_write_that_takes_along_what_was_left_says_that_it_has_drained(stream: Wired) -> None:
    transport = stream.transport
    transport.high_water = 0

    def fill() -> int:
        """Write until the socket is full; how many it has taken."""
        for count in range(100_000):
            transport.write(bytes(1024))
            gevent.sleep(0.0001)
            if transport.unsent:
                return count
        raise AssertionError('a socket without an end')

    count = fill()
    stream.read((count + 1) * 1024)
    eventually(lambda: transport.unsent == 0)
    for _ in range(count - 1):
        transport.write(bytes(1024))
        gevent.sleep(0.0001)
    # As the native thread does; it tells the loop nothing.
    beats = 0
    while not transport.unsent:
        transport.keep_alive(b'beat')
        beats += 1
    assert transport.is_congested()

    stream.read((count - 1) * 1024 + (beats - 1) * 4)
    transport.write(b'more')
    eventually(lambda: stream.drained == [0])
    assert stream.read(8) == b'beatmore'


def test_it_does_not_say_that_it_has_drained_when_nobody_found_it_congested(stream: Wired) -> None:
    stream.transport.write(b'x' * (HIGH_WATER // 2))
    stream.read(HIGH_WATER // 2)
    eventually(lambda: stream.transport.unsent == 0)
    assert stream.drained == []


def test_received_bytes_are_handed_up(stream: Wired) -> None:
    stream.peer.sendall(b'hello')
    assert stream.data.get(timeout=5) == b'hello'


@pytest.mark.parametrize('size', [1, 16_383, 16_384, 16_385, 131_072, 1_000_000])
def test_all_that_comes_is_received_however_much_comes_at_once(stream: Wired, size: int) -> None:
    sent = random.Random(size).randbytes(size)
    for _ in range(3):
        gevent.spawn(stream.peer.sendall, sent)
        received = b''
        while len(received) < size:
            received += stream.data.get(timeout=5)
        assert received == sent


def test_poll_reads_without_the_loop(stream: Wired) -> None:
    stream.peer.send(b'hello')
    assert stream.data.empty()
    stream.transport.poll()
    assert stream.data.get_nowait() == b'hello'


def test_a_peer_that_hangs_up_is_told_once(stream: Wired) -> None:
    stream.peer.close()
    assert 'closed the socket' in str(stream.lost.get(timeout=5))
    for _ in range(3):
        stream.transport.write(b'x')
        gevent.sleep(0)
    assert stream.lost.empty()
    assert stream.transport.closed


def test_a_write_that_fails_is_told_from_the_loop_and_not_to_the_writer(stream: Wired) -> None:
    stream.peer.close()
    stream.transport.write(b'x')
    assert stream.lost.empty()
    assert isinstance(stream.lost.get(timeout=5), OSError)


def test_nobody_is_told_of_the_end_by_close(stream: Wired) -> None:
    stream.transport.write(b'last')
    stream.transport.close()
    stream.transport.close()
    stream.transport.write(b'too late')
    stream.transport.flush()
    stream.transport.keep_alive(b'beat')
    stream.transport.poll()
    assert stream.peer.recv(100) == b'last'
    assert stream.peer.recv(100) == b''
    assert stream.lost.empty()
    assert stream.transport.unsent == 0


def test_a_heartbeat_from_another_thread_never_lands_inside_a_frame(stream: Wired) -> None:
    # given a thread that sends heartbeats of one 0xff all the time
    transport = stream.transport
    beating = [True]

    def beat() -> None:
        while beating:
            transport.keep_alive(b'\xff')
            time.sleep(0)

    beats = gevent.get_hub().threadpool.spawn(beat)

    # when frames of 150,000 equal octets are written meanwhile, every other in pieces, until a heartbeat has come, too
    def write() -> None:
        for number in range(200):
            while transport.is_congested():
                gevent.sleep(0)
            octet = bytes((number,))
            transport.write(Gathered([octet * 60_000, octet * 90_000]) if number % 2 else octet * 150_000)

    writer = gevent.spawn(write)
    got = bytearray()
    try:
        while len(got) <= 200 * 150_000:
            got += stream.peer.recv(1_000_000)
    finally:
        beating.clear()
    writer.get(timeout=5)
    beats.get(timeout=5)

    # then each frame is in one piece
    at = number = 0
    while at < len(got):
        if got[at] == 0xFF:
            at += 1
            continue
        assert got[at : at + 150_000] == bytes((number,)) * 150_000
        at, number = at + 150_000, number + 1
    assert number == 200


# -- as a connection uses it -------------------------------------------------------------------------------------------


def slow_reader(go_on: Event, last: bytes) -> Callable[[Peer], list[bytes]]:
    """A broker that reads nothing after the channel is open until it may, and then everything up to a body."""

    def script(peer: Peer) -> list[bytes]:
        peer.accept()
        peer.accept_channel()
        go_on.wait()
        bodies = []
        while not bodies or bodies[-1] != last:
            bodies.append(peer.expect_publish())
        return bodies

    return script


def publish_all(channel: Any, bodies: list[bytes]) -> None:
    for body in bodies:
        channel.basic.publish(Message(body), routing_key='somewhere')


def publishers_wait(connection: Connection) -> bool:
    # It need not be congested any more: they wait until half of that is gone, and the system may have taken some of it.
    return not connection._writable.is_set()


def test_publishers_wait_while_the_peer_does_not_read_and_go_on_when_it_does() -> None:
    go_on = Event()
    bodies = [b'%d' % number * 10_000 for number in range(2000)]
    with ScriptedBroker(slow_reader(go_on, bodies[-1])) as broker, broker.connect(high_water=HIGH_WATER) as connection:
        publisher = gevent.spawn(publish_all, connection.channel(), bodies)
        eventually(lambda: publishers_wait(connection))
        publisher.join(0.1)
        assert not publisher.ready()
        assert connection.unsent <= HIGH_WATER + 50_000
        drained = Event()
        connection.drain_listeners.append(drained.set)

        go_on.set()

        assert broker.result() == bodies
        assert drained.is_set()
        publisher.get(timeout=5)


def test_what_is_unsent_stays_bounded_however_many_publish() -> None:
    go_on = Event()
    body = b'x' * 20_000
    most = 0
    with ScriptedBroker(slow_reader(go_on, b'last')) as broker, broker.connect(high_water=HIGH_WATER) as connection:
        channel = connection.channel()

        def publish() -> None:
            nonlocal most
            for _ in range(5):
                channel.basic.publish(Message(body), routing_key='somewhere')
                most = max(most, connection.unsent)

        publishers = [gevent.spawn(publish) for _ in range(200)]
        eventually(lambda: publishers_wait(connection))
        go_on.set()
        gevent.joinall(publishers, timeout=15, raise_error=True)
        assert all(publisher.ready() for publisher in publishers)
        assert most <= HIGH_WATER + 25_000

        channel.basic.publish(Message(b'last'), routing_key='somewhere')
        assert len(broker.result()) == 1001


def test_a_publisher_that_waits_for_a_peer_to_read_hears_of_its_channels_end() -> None:
    closing = Event()

    def script(peer: Peer) -> None:
        peer.accept()
        peer.accept_channel()
        closing.wait()
        peer.say(commands.Channel.Close(404, 'NOT_FOUND', 60, 40), 1)
        Event().wait()

    with ScriptedBroker(script) as broker:
        connection = broker.connect(high_water=100_000)
        publisher = gevent.spawn(publish_all, connection.channel(), [b'x' * 50_000] * 1000)
        eventually(lambda: publishers_wait(connection))
        closing.set()

        publisher.join(3)

        assert publisher.ready()
        assert '404' in str(publisher.exception)
        connection.close()


def test_a_publisher_that_waits_for_a_peer_to_read_hears_of_the_connections_end() -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        peer.accept_channel()
        Event().wait()

    with ScriptedBroker(script) as broker:
        connection = broker.connect(high_water=100_000)
        publisher = gevent.spawn(publish_all, connection.channel(), [b'x' * 50_000] * 1000)
        eventually(lambda: publishers_wait(connection))

        connection.close()

        publisher.join(3)
        assert 'closed by this side' in str(publisher.exception)
