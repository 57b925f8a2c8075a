"""Clients that break every rule, to the embedded broker: their connection ends, at no great cost, and others go on."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gevent
import pytest
from gevent import socket
from pamqp import base, commands

from amphora.amqp import Connection, Message, PreconditionFailed, frames
from amphora.broker import Broker, Limits
from tests.amqp.drawing import sized
from tests.amqp.scripted import BODY, HEARTBEAT, METHOD, HungUp, Peer, content_header, method, raw_frame
from tests.hostile.fuzzing import Mishaps
from tests.hostile.misdeeds import dribble, nested
from tests.rabbitmq import HOST
from tests.waiting import eventually

pytestmark = pytest.mark.row('hostile broker')

MIB = 1024 * 1024


@pytest.fixture(autouse=True)
def mishaps() -> Iterator[None]:
    """Nothing goes wrong inside the broker, whatever it is told."""
    mishaps = Mishaps()
    with mishaps.watching():
        yield
    mishaps.check()


@pytest.fixture
def limits() -> Limits:
    return Limits()


@pytest.fixture
def broker(limits: Limits) -> Iterator[Broker]:
    with Broker(limits=limits) as made:
        yield made


@pytest.fixture
def neighbour(broker: Broker) -> Iterator[Connection]:
    """A client that does nothing wrong. It is there from before, and is served to the end."""
    with Connection.from_url(broker.url) as connection:
        yield connection
        assert works(connection)


def works(connection: Connection) -> bool:
    with connection.channel() as channel:
        queue = channel.queue.declare(exclusive=True).queue
        channel.basic.publish(Message('still here'), routing_key=queue)
        got = channel.basic.get(queue, no_ack=True)
        channel.queue.delete(queue)
        return got is not None and got.body == b'still here'


@contextmanager
def greeted(broker: Broker) -> Iterator[Peer]:
    """A client that has said who it is going to speak AMQP."""
    with socket.create_connection((HOST, broker.port)) as sock:
        peer = Peer(sock)
        peer.send(frames.PROTOCOL_HEADER)
        peer.expect(commands.Connection.Start)
        yield peer


def log_in(peer: Peer, channels: int = 1, **tune: int) -> None:
    """The rest of the handshake, and channels from 1 on."""
    peer.say(commands.Connection.StartOk({}, 'PLAIN', '\0guest\0guest', 'en_US'))
    peer.expect(commands.Connection.Tune)
    peer.say(commands.Connection.TuneOk(**{'channel_max': 2047, 'frame_max': 131_072, 'heartbeat': 0, **tune}))
    peer.say(commands.Connection.Open())
    peer.expect(commands.Connection.OpenOk)
    for number in range(1, channels + 1):
        peer.say(commands.Channel.Open(), number)
        peer.expect(commands.Channel.OpenOk)


@contextmanager
def logged_in(broker: Broker, channels: int = 1, **tune: int) -> Iterator[Peer]:
    with greeted(broker) as peer:
        log_in(peer, channels, **tune)
        yield peer


def start_ok(client_properties: bytes) -> bytes:
    response = sized(b'\0guest\0guest')
    return raw_frame(METHOD, 0, b'\x00\x0a\x00\x0b' + client_properties + b'\x05PLAIN' + response + b'\x05en_US')


def declare(arguments: bytes) -> bytes:
    return raw_frame(METHOD, 1, b'\x00\x32\x00\x0a\x00\x00\x01q\x00' + arguments)


PUBLISH = method(1, commands.Basic.Publish(0, '', 'queue'))


def message(size: int, properties: bytes = b'\x00\x00', body: bytes = b'', key: str = 'queue') -> bytes:
    return (
        method(1, commands.Basic.Publish(0, '', key))
        + content_header(1, size, properties)
        + (raw_frame(BODY, 1, body) if body else b'')
    )


# -- what must not be said ---------------------------------------------------------------------------------------------


@pytest.fixture
def frugal(neighbour: Connection) -> Iterator[None]:
    """The test never holds more than 4 MiB."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * MIB


def last_words(peer: Peer) -> Any:
    """Why the connection or the channel is closed."""
    got = peer.read()
    while not isinstance(got, (commands.Connection.Close, commands.Channel.Close)):
        got = peer.read()
    return got


@pytest.mark.usefixtures('frugal')
@pytest.mark.parametrize(
    ('data', 'code', 'says'),
    [
        (struct.pack('>BHI', METHOD, 0, 0xFFFFFFFF), 501, 'a frame of 4294967303 bytes; at most 4096'),
        (start_ok(struct.pack('>I', 5000)), 501, '5000 bytes is longer than its frame'),
        (start_ok(sized(nested(500))), 501, 'nested more than 100 deep'),
        (raw_frame(METHOD, 0, bytes(4), end=b'\xcd'), 501, 'octet 0xcd, not with 0xce'),
        (raw_frame(BODY, 1, b'x'), 503, 'a frame for channel 1; expected the end of the handshake'),
        (method(0, commands.Connection.TuneOk(1, 4096, 0)), 503, 'expected Connection.StartOk'),
    ],
    ids=lambda value: value if isinstance(value, str) else '',
)
def test_a_hostile_greeting_ends_that_connection_alone(
    data: bytes, code: int, says: str, broker: Broker, neighbour: Connection
) -> None:
    with greeted(broker) as peer:
        peer.send(data)
        close = last_words(peer)
        assert (close.reply_code, says in close.reply_text) == (code, True)
        assert works(neighbour)
    eventually(lambda: broker.running_connections == 1)


@pytest.mark.usefixtures('frugal')
@pytest.mark.parametrize(
    ('data', 'code', 'says'),
    [
        (struct.pack('>BHI', METHOD, 1, 0xFFFFFFFF), 501, 'a frame of 4294967303 bytes; at most 131072'),
        (message(200_000, body=bytes(131_073)), 501, 'a frame of 131081 bytes; at most 131072'),
        (raw_frame(9, 1, b''), 505, 'a frame of type 9 on channel 1'),
        (raw_frame(9, 0, b''), 505, 'a frame of type 9 on channel 0'),
        (method(77, commands.Basic.Qos()), 504, "expected 'channel.open'"),
        (message(2**63), 406, 'message size 9223372036854775808 is larger than configured max size'),
        (message(3, body=b'four'), 505, 'expected content body'),
        (content_header(1, 1), 505, 'expected method frame'),
        (raw_frame(METHOD, 1, bytes(4), end=b'\xcd'), 501, 'octet 0xcd, not with 0xce'),
        (raw_frame(HEARTBEAT, 5, b''), 505, 'a heartbeat on channel 5'),
        (declare(struct.pack('>I', 5000)), 501, '5000 bytes is longer than its frame'),
        (declare(sized(nested(500))), 501, 'nested more than 100 deep'),
        (raw_frame(METHOD, 1, b'\xde\xad\xbe\xef'), 502, 'an unknown method'),
        (raw_frame(METHOD, 1, PUBLISH[7:-1] + bytes(100_000)), 501, 'a basic.publish of 100014 bytes'),
        (message(0, b'\x80\x00\x09abc'), 501, 'in the middle of its properties'),
        (message(0, b'\x80\x01\x03abc'), 501, 'more than one word of flags'),
        (message(0, b'\x20\x00' + struct.pack('>I', 5000)), 501, '5000 bytes is longer than its frame'),
        (message(0, b'\x20\x00' + sized(b'\x01a\xff')), 501, 'the headers of a message cannot be decoded'),
        (message(0, b'\x20\x00' + sized(nested(500))), 501, 'the headers of a message cannot be decoded'),
    ],
    ids=lambda value: value if isinstance(value, str) else '',
)
def test_hostile_frames_end_that_connection_or_channel_alone(
    data: bytes, code: int, says: str, broker: Broker, neighbour: Connection
) -> None:
    consuming = neighbour.channel()
    consuming.queue.declare('queue')
    got: list[Message] = []
    consuming.basic.consume('queue', got.append, direct=True)
    with logged_in(broker) as peer:
        # Cut in the middle, so that there is something left of it.
        peer.send(data[:9])
        gevent.idle()
        peer.send(data[9:])
        close = last_words(peer)
        assert (close.reply_code, says in close.reply_text) == (code, True)
        assert works(neighbour)
    eventually(lambda: broker.running_connections == 1)
    assert got == []


def test_a_message_whose_frame_is_longer_than_it_never_gets_to_its_queue(broker: Broker, neighbour: Connection) -> None:
    consuming = neighbour.channel()
    consuming.queue.declare('queue')
    got: list[Message] = []
    consuming.basic.consume('queue', got.append, direct=True)
    with logged_in(broker) as peer:
        # The frame is under way still when the message, by its header, has come.
        peer.send(message(20_000) + raw_frame(BODY, 1, bytes(30_000))[: 7 + 20_000])
        close = last_words(peer)
        assert (close.reply_code, 'expected content body' in close.reply_text) == (505, True)
        assert works(neighbour)
    assert got == []


def test_of_a_body_no_more_is_kept_than_is_counted_whatever_comes_between_its_frames(broker: Broker) -> None:
    between = frames.HEARTBEAT_FRAME * 25_000
    with logged_in(broker) as peer:
        tracemalloc.start()
        try:
            peer.send(message(100_000_000))
            for _ in range(100):
                peer.send(raw_frame(BODY, 1, bytes(60_000)) + between)
            peer.say(commands.Channel.Open(), 2)
            peer.expect(commands.Channel.OpenOk)
            kept = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
    assert 100 * 60_000 < kept < 1.5 * 100 * 60_000


@pytest.mark.parametrize('limits', [Limits(handshake_timeout=0.5)])
def test_a_client_that_dribbles_is_given_up_in_time_and_heard_once_it_is_in(
    broker: Broker, neighbour: Connection
) -> None:
    with greeted(broker) as peer:
        gevent.spawn(dribble, peer, start_ok(sized(b'')), 0.1)
        with pytest.raises(HungUp):
            peer.read()
    with logged_in(broker) as peer:
        dribble(peer, method(1, commands.Queue.Declare(queue='a')), 0)
        assert peer.expect(commands.Queue.DeclareOk).queue == 'a'
    assert broker.queues() == {'a': (0, 0, 0)}


# -- memory ------------------------------------------------------------------------------------------------------------


def test_who_asks_and_does_not_listen_is_not_answered_without_end(broker: Broker, neighbour: Connection) -> None:
    size, asked = 1_000_000, 100
    with logged_in(broker) as peer:
        peer.say(commands.Queue.Declare(queue='large'), 1)
        peer.expect(commands.Queue.DeclareOk)
        neighbour.channel().basic.publish(Message(bytes(size)), routing_key='large')
        eventually(lambda: broker.queues()['large'].messages)
        get_and_return = method(1, commands.Basic.Get(queue='large')) + method(1, commands.Basic.Nack(0, True, True))

        # when it asks for a hundred megabytes in a few kilobytes
        tracemalloc.start()
        try:
            peer.send(get_and_return * asked)
            assert works(neighbour)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

        # then it gets them as it reads them
        assert peak < 40 * MIB
        for _ in range(asked):
            peer.expect(commands.Basic.GetOk)
            peer.read()
            while size > 0:
                size -= len(peer.read().value)
            size = 1_000_000
        peer.say(commands.Queue.Delete(queue='large'), 1)
        assert peer.expect(commands.Queue.DeleteOk).message_count == 1


@pytest.mark.parametrize('limits', [Limits(memory=1_000_000)])
@pytest.mark.parametrize('transaction', [False, True])
def test_messages_that_never_get_to_a_queue_have_a_limit_too(
    transaction: bool, broker: Broker, neighbour: Connection
) -> None:
    def publish(channel: int, size: int, pieces: int) -> bytes:
        head = method(channel, commands.Basic.Publish(0, '', 'nowhere')) + content_header(channel, size)
        return head + raw_frame(BODY, channel, bytes(100_000)) * pieces

    with logged_in(broker, channels=20) as peer:
        if transaction:
            for channel in range(1, 21):
                peer.say(commands.Tx.Select(), channel)
                peer.expect(commands.Tx.SelectOk)
        # Each channel has 300 kB, of three complete messages or of the first pieces of one.
        for channel in range(1, 21):
            peer.send(publish(channel, 100_000, 1) * 3 if transaction else publish(channel, 1_000_000, 3))

        closed = [peer.expect(commands.Channel.Close) for _ in range(17)]

        assert {(close.reply_code, 'not complete or not committed' in close.reply_text) for close in closed} == {
            (311, True)
        }
        assert broker.allowance.used <= 1_000_000
        assert works(neighbour)
    eventually(lambda: broker.allowance.used == 0)
    assert broker.meter.used == 0


def test_pieces_of_two_bytes_take_little_more_than_their_bytes(broker: Broker, neighbour: Connection) -> None:
    count = 50_000
    with logged_in(broker) as peer:
        tracemalloc.start()
        try:
            peer.send(PUBLISH + content_header(1, 10_000_000) + raw_frame(BODY, 1, b'ab') * count)
            eventually(lambda: broker.allowance.used == 2 * count)
            kept = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
    # Beside the bytes that were sent, which this test holds.
    assert kept < 10 * count + MIB


def test_the_headers_of_queued_messages_take_little_more_than_their_bytes(
    broker: Broker, neighbour: Connection
) -> None:
    # A table of empty tables: as objects they are fifteen times as large.
    table = b''.join(b'\x04%04xF\x00\x00\x00\x00' % number for number in range(5000))
    data = message(0, b'\x20\x00' + sized(table))
    with logged_in(broker) as peer:
        peer.say(commands.Queue.Declare(queue='queue'), 1)
        peer.expect(commands.Queue.DeclareOk)
        tracemalloc.start()
        try:
            for _ in range(20):
                peer.send(data)
            eventually(lambda: broker.queues()['queue'].messages == 20, 20)
            kept = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
    assert kept < 2 * 20 * len(data) + MIB


# -- what hurts later, and others --------------------------------------------------------------------------------------

HEADERS = b'\x20\x00'
# Headers that RabbitMQ takes, and that cannot be written again.
STRANGE = {
    'a long name': b'\xc8' + b'n' * 200 + b't\x01',
    'a name that is no UTF-8': b'\xc8' + b'\xff' * 200 + b't\x01',
    'a time in the far future': b'\x01aT' + b'\xff' * 8,
    'infinity': b'\x01ad' + struct.pack('>d', float('inf')),
    'text that is no UTF-8': b'\x01aS\x00\x00\x00\x01\xff',
    'a small decimal': b'\x01aD\xff\x7f\xff\xff\xff',
}


@pytest.mark.parametrize('strange', STRANGE)
def test_strange_headers_do_not_keep_a_message_from_its_consumer_or_from_dying(
    strange: str, broker: Broker, neighbour: Connection
) -> None:
    channel = neighbour.channel()
    got: list[Message] = []
    channel.queue.declare('quorum', durable=True, arguments={'x-queue-type': 'quorum'})
    channel.queue.declare('dead')
    letters = {'x-dead-letter-exchange': '', 'x-dead-letter-routing-key': 'dead'}
    channel.queue.declare('full', arguments={'x-max-length': 0, **letters})
    channel.queue.declare('short', arguments={'x-message-ttl': 1, **letters})

    def take_the_second_time(message: Message) -> None:
        # Which the broker has counted, in the headers.
        if message.delivery_info.redelivered:
            got.append(message)
        else:
            channel.basic.reject(message.delivery_info.delivery_tag, requeue=True)

    channel.basic.consume('quorum', take_the_second_time, direct=True)
    channel.basic.consume('dead', got.append, direct=True, no_ack=True)

    with logged_in(broker) as peer:
        for key in ('quorum', 'full', 'short'):
            peer.send(message(1, HEADERS + sized(STRANGE[strange]), b'x', key))
        eventually(lambda: len(got) == 3)

    kept = [each.headers for each in got]
    assert sorted('x-delivery-count' in each for each in kept) == [False, False, True]
    assert sorted('x-death' in each for each in kept) == [False, True, True]


def death(**told: Any) -> dict[str, Any]:
    return {'queue': 'short', 'reason': 'expired', **told}


@pytest.mark.parametrize(
    'deaths',
    [
        pytest.param([death(count='many')], id='a count that is none'),
        pytest.param([death(count=2**63 - 1)], id='a count that can grow no more'),
        pytest.param([death(count=None)], id='no count'),
        pytest.param([death(), 'no death', {}, death(queue=['short'])], id='of all kinds'),
        pytest.param('no deaths', id='no list'),
        pytest.param([death(queue='there', reason='rejected'), death(queue='back', reason='rejected')], id='rejected'),
    ],
)
def test_deaths_that_a_publisher_made_up_do_not_keep_others_from_dying(
    deaths: Any, broker: Broker, neighbour: Connection
) -> None:
    channel = neighbour.channel()
    letters = {'x-dead-letter-exchange': '', 'x-message-ttl': 1}
    channel.queue.declare('dead')
    channel.queue.declare('short', arguments={**letters, 'x-dead-letter-routing-key': 'dead'})
    # Two queues that give each other what dies in them.
    channel.queue.declare('there', arguments={**letters, 'x-max-length': 0, 'x-dead-letter-routing-key': 'back'})
    channel.queue.declare('back', arguments={**letters, 'x-max-length': 0, 'x-dead-letter-routing-key': 'there'})

    for key in ('short', 'there'):
        channel.basic.publish(Message('x', headers={'x-death': deaths}), routing_key=key)
        channel.basic.publish(Message('x'), routing_key=key)

    eventually(lambda: broker.queues()['dead'].messages == 2)
    assert works(neighbour)


def test_a_made_up_death_that_cannot_be_written_again_does_not_make_a_letter_go_round_for_ever(
    broker: Broker, neighbour: Connection
) -> None:
    channel = neighbour.channel()
    letters = {'x-dead-letter-exchange': '', 'x-max-length': 0}
    channel.queue.declare('there', arguments={**letters, 'x-dead-letter-routing-key': 'back'})
    channel.queue.declare('back', arguments={**letters, 'x-dead-letter-routing-key': 'there'})
    made_up = b'\x07x-deathA' + sized(b'F' + sized(b'\xc8' + b'n' * 200 + b't\x01'))

    with logged_in(broker) as peer:
        peer.send(message(1, HEADERS + sized(made_up), b'x', 'there'))
        peer.say(commands.Queue.Declare(queue='there', passive=True), 1)
        assert peer.expect(commands.Queue.DeclareOk).message_count == 0


def test_what_is_no_text_is_refused_in_words_that_are(broker: Broker, neighbour: Connection) -> None:
    with Connection.from_url(broker.url) as connection, connection.channel() as channel:
        channel.basic.publish(Message(b'x', expiration='1\udc80'), routing_key='anywhere')

        with pytest.raises(PreconditionFailed, match=r"invalid expiration '1\\udc80'"):
            channel.queue.declare()

        assert not connection.closed


def test_a_dead_letters_routing_key_that_is_too_long_is_refused_where_it_is_declared(neighbour: Connection) -> None:
    with pytest.raises(PreconditionFailed, match=r"'x-dead-letter-routing-key' .* longer than 255 bytes"):
        neighbour.channel().queue.declare(
            'a', arguments={'x-dead-letter-exchange': '', 'x-dead-letter-routing-key': 'k' * 256}
        )


def test_a_long_chain_of_exchanges_goes_with_its_last_queue(broker: Broker, neighbour: Connection) -> None:
    count = 1000
    with logged_in(broker) as peer:
        for number in range(count):
            say(peer, commands.Exchange.Declare(exchange=f'e{number}', auto_delete=True, nowait=True))
        for number in range(1, count):
            say(peer, commands.Exchange.Bind(destination=f'e{number}', source=f'e{number - 1}', nowait=True))
        say(peer, commands.Queue.Declare(queue='last', exclusive=True, nowait=True))
        say(peer, commands.Queue.Bind(queue='last', exchange=f'e{count - 1}'))
        peer.expect(commands.Queue.BindOk)
    eventually(lambda: broker.running_connections == 1)

    channel = neighbour.channel()
    for name in ('e0', f'e{count - 1}'):
        channel.exchange.declare(name, 'topic')  # of another type: it is not there any more


def say(peer: Peer, what: base.Frame) -> None:
    peer.say(what, 1)
