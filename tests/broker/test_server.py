"""The embedded broker as a thing in the process: its life, its limits, its levers."""

import random
import time

import gevent
import pytest
from gevent import socket
from pamqp import commands

from amphora.amqp import Connection, ConnectionFailed, LoginRefused, Message, NotAllowed, frames
from amphora.amqp.errors import ConnectionForced, PreconditionFailed
from amphora.broker import Broker, Limits
from amphora.broker.login import log_in
from tests.stopwatch import Stopwatch
from tests.waiting import eventually


@pytest.fixture
def connect():
    connections = []

    def open_one(broker, **options):
        connections.append(Connection.from_url(broker.url, **options))
        return connections[-1]

    yield open_one
    for connection in connections:
        connection.close()


def test_it_says_where_it_is(broker):
    assert broker.host == '127.0.0.1'
    assert broker.url == 'amqp://guest:guest@127.0.0.1:%d/' % broker.port


def test_users_and_virtual_hosts_are_those_it_was_given():
    with Broker(users={'ann': 'p@ss/word'}, vhosts=('a/b', 'other')) as broker:
        with Connection.from_url(broker.url) as connection:
            assert (connection.user, connection.vhost) == ('ann', 'a/b')
            connection.channel().queue.declare('q')
        assert list(broker.queues('a/b')) == ['q']
        assert broker.queues('other') == {}
        with pytest.raises(LoginRefused):
            Connection(port=broker.port)
        with pytest.raises(NotAllowed):
            Connection(port=broker.port, user='ann', password='p@ss/word', vhost='/')


@pytest.mark.parametrize(
    ('users', 'text'),
    [
        ('ann', 'users must map names to passwords, and not be a str'),
        ({'ann': 3}, "the password of user 'ann' must be a str, not of type int"),
        ({3: 'word'}, 'the name of a user must be a str, not 3'),
    ],
)
def test_users_that_are_none_are_refused_at_once(users, text):
    with pytest.raises(TypeError, match=text):
        Broker(users=users)


def test_the_guest_may_come_from_this_machine_only(broker):
    assert log_in('PLAIN', b'\0guest\0guest', broker.users, '::1') == 'guest'
    assert log_in('PLAIN', b'\0guest\0guest', broker.users, '::ffff:127.0.0.1') == 'guest'
    with pytest.raises(LoginRefused):
        log_in('PLAIN', b'\0guest\0guest', broker.users, '192.0.2.1')


def test_what_is_queued_outlives_connections_and_a_stop(broker, connect):
    connection = connect(broker)
    channel = connection.channel()
    channel.queue.declare('kept', durable=True)
    channel.queue.declare('mine', exclusive=True)
    channel.confirm.select()
    channel.basic.publish(Message('x'), routing_key='kept', wait=True)
    port = broker.port

    broker.stop()
    assert isinstance(connection.error, ConnectionForced)
    assert connection.error.text == "CONNECTION_FORCED - broker forced connection closure with reason 'shutdown'"
    with pytest.raises(ConnectionFailed):
        connect(broker)
    broker.start()

    assert broker.port == port
    assert broker.queues() == {'kept': (1, 0, 0)}


def test_deadlines_hold_across_a_stop(broker, connect):
    channel = connect(broker).channel()
    channel.queue.declare('q', arguments={'x-expires': 50})
    broker.stop()
    assert 'q' in broker.queues()

    broker.start()

    eventually(lambda: 'q' not in broker.queues())


def test_queues_tells_messages_unacked_and_consumers(broker, connect):
    channel = connect(broker).channel()
    channel.queue.declare('q')
    channel.basic.qos(prefetch_count=1)
    channel.basic.consume('q', lambda message: None)
    for _ in range(3):
        channel.basic.publish(Message('x'), routing_key='q')

    eventually(lambda: broker.queues() == {'q': (3, 1, 1)})


def test_dropped_connections_give_back_what_they_had(broker, connect):
    connection = connect(broker)
    channel = connection.channel()
    channel.queue.declare('q')
    channel.queue.declare('mine', exclusive=True)
    channel.basic.consume('q', lambda message: None)
    channel.basic.publish(Message('x'), routing_key='q')
    eventually(lambda: broker.queues()['q'] == (1, 1, 1))

    broker.drop_connections()

    assert broker.queues() == {'q': (1, 0, 0)}
    eventually(lambda: connection.closed)


def test_refused_and_accepted_again(broker, connect):
    there = connect(broker)
    broker.refuse()
    with pytest.raises(ConnectionFailed):
        connect(broker)
    there.channel()
    broker.accept()

    connect(broker).channel()


def test_delay_holds_back_what_clients_say(broker, connect):
    channel = connect(broker).channel()
    broker.delay(0.2)
    began = time.monotonic()
    channel.queue.declare('q')
    assert time.monotonic() - began >= 0.2

    channel.queue.declare('first', nowait=True)
    broker.delay(0)
    channel.queue.declare('second')
    assert list(broker.queues()) == ['q', 'first', 'second']


def test_delete_queue_tells_its_consumers(broker, connect):
    channel = connect(broker).channel()
    channel.queue.declare('q', exclusive=True)
    cancelled = []
    channel.basic.consume('q', print, on_cancel=cancelled.append)

    broker.delete_queue('q')

    eventually(lambda: cancelled)
    assert broker.queues() == {}


def test_the_block_says_why(broker, connect):
    connection = connect(broker)
    broker.block('because')
    connection.channel().basic.publish(Message('x'))
    eventually(lambda: connection.blocked == 'because')

    broker.unblock()

    eventually(lambda: connection.blocked is None)


def test_over_the_memory_limit_publishers_wait_until_consumers_have_made_room(connect):
    with Broker(limits=Limits(memory=100_000)) as broker:
        publisher, consumer = connect(broker), connect(broker)
        channel = publisher.channel()
        channel.queue.declare('q')
        sending = gevent.spawn(
            lambda: [channel.basic.publish(Message(bytes(1000)), routing_key='q') for _ in range(1000)]
        )
        eventually(lambda: publisher.blocked)
        # What was on its way already is still taken, no more.
        assert broker.meter.used < 100_000 + 2 * 131072
        got = []
        consumer.channel().basic.consume('q', got.append, direct=True, no_ack=True)

        eventually(lambda: len(got) == 1000, 20)
        sending.get()
        assert broker.meter.used == 0


def test_a_consumer_that_does_not_read_costs_no_more_than_the_high_water_mark(broker, connect):
    publishing = connect(broker).channel()
    publishing.queue.declare('q')
    slow = connect(broker, heartbeat=0)
    slow.channel().basic.consume('q', lambda message: None, no_ack=True)
    slow._transport.pause()
    publishing.confirm.select()
    for _ in range(400):
        publishing.basic.publish(Message(bytes(100_000)), routing_key='q', wait=True)

    assert broker.queues()['q'][0] > 200
    assert max(connection.transport.unsent for connection in broker._connections) < 2_000_000
    slow._transport.resume()
    eventually(lambda: broker.queues()['q'][0] == 0, 20)


def test_replies_and_answers_that_nobody_reads_do_not_pile_up(broker, connect):
    deaf = connect(broker, heartbeat=0)
    channel = deaf.channel()
    channel.queue.declare('q')
    channel.basic.consume('amq.rabbitmq.reply-to', lambda message: None, no_ack=True)
    channel.basic.publish(Message(bytes(100_000), reply_to='amq.rabbitmq.reply-to'), routing_key='q')
    publishing = connect(broker).channel()
    publishing.confirm.select()
    address = eventually(lambda: publishing.basic.get('q')).properties['reply_to']
    deaf._transport.pause()
    for _ in range(400):
        publishing.basic.publish(Message(bytes(100_000)), routing_key=address, wait=True)

    assert max(connection.transport.unsent for connection in broker._connections) < 20_000_000
    deaf._transport.resume()
    # It is heard again, too.
    channel.queue.declare('q')


def test_a_message_above_the_limit_is_refused(connect):
    with Broker(limits=Limits(max_message_size=1000)) as broker:
        connection = connect(broker)
        channel = connection.channel()
        channel.basic.publish(Message(bytes(1000)))
        channel.basic.publish(Message(bytes(1001)))
        with pytest.raises(PreconditionFailed) as caught:
            channel.queue.declare('q')

        assert caught.value.text == ('PRECONDITION_FAILED - message size 1001 is larger than configured max size 1000')
        connection.channel().queue.declare('q')


def test_more_connections_than_the_limit_are_refused(connect):
    with Broker(limits=Limits(connections=2)) as broker:
        first = connect(broker)
        connect(broker)
        with pytest.raises(NotAllowed, match=r'connection limit \(2\) is reached'):
            connect(broker)
        first.close()
        connect(broker)


def test_more_channels_than_agreed_on_are_refused(connect):
    with Broker(limits=Limits(channel_max=2)) as broker:
        connection = connect(broker)
        assert connection.channel_max == 2
        connection.channel()
        connection.channel()
        connection.write(frames.encode_method(3, commands.Channel.Open))
        eventually(lambda: connection.closed)

        assert 'number of channels opened (2) has reached the negotiated channel_max (2)' in str(connection.error)


def test_a_client_that_is_silent_is_given_up(broker):
    with socket.create_connection((broker.host, broker.port)) as sock:
        sock.sendall(
            frames.PROTOCOL_HEADER
            + frames.encode_method(
                0, commands.Connection.StartOk, mechanism='PLAIN', response=b'\0guest\0guest', locale='en_US'
            )
            + frames.encode_method(0, commands.Connection.TuneOk, channel_max=1, frame_max=4096, heartbeat=1)
            + frames.encode_method(0, commands.Connection.Open, virtual_host='/')
        )
        eventually(lambda: broker.running_connections == 1)
        watch = Stopwatch()
        eventually(lambda: broker.running_connections == 0)

        assert watch.seconds > 1.5
        assert watch.awake < 5


def test_a_client_that_does_not_finish_its_handshake_is_given_up():
    with (
        Broker(limits=Limits(handshake_timeout=0.1)) as broker,
        socket.create_connection((broker.host, broker.port)) as sock,
    ):
        sock.sendall(frames.PROTOCOL_HEADER)
        while sock.recv(4096):
            pass


@pytest.mark.parametrize(
    ('tune', 'text'),
    [
        ({'channel_max': 0, 'frame_max': 4096}, 'negotiated channel_max = 0 (no limit) is higher than the maximum'),
        ({'channel_max': 1, 'frame_max': 131073}, 'negotiated frame_max = 131073 is higher than the maximum'),
        ({'channel_max': 1, 'frame_max': 100}, 'negotiated frame_max = 100 is lower than the minimum'),
    ],
)
def test_a_client_that_wants_other_limits_is_refused(broker, tune, text):
    with socket.create_connection((broker.host, broker.port)) as sock:
        sock.sendall(
            frames.PROTOCOL_HEADER
            + frames.encode_method(
                0, commands.Connection.StartOk, mechanism='PLAIN', response=b'\0guest\0guest', locale='en_US'
            )
            + frames.encode_method(0, commands.Connection.TuneOk, heartbeat=0, **tune)
        )
        answer = b''
        while text.encode() not in answer:
            piece = sock.recv(4096)
            assert piece, answer
            answer += piece


def test_nothing_is_left_of_a_connection(broker, connect):
    for _ in range(20):
        with Connection.from_url(broker.url) as connection:
            channel = connection.channel()
            queue = channel.queue.declare(exclusive=True).queue
            channel.queue.bind(queue, 'amq.fanout')
            channel.basic.consume(queue, lambda message: None)
            channel.basic.consume('amq.rabbitmq.reply-to', print, no_ack=True)
            channel.basic.publish(Message('x'), 'amq.fanout')

    vhost = broker.vhosts['/']
    eventually(lambda: not broker._connections)
    assert (vhost.queues, vhost.reply_consumers, broker.meter.used) == ({}, {}, 0)
    assert not vhost.exchanges['amq.fanout'].in_use


def test_garbage_costs_the_broker_nothing_but_that_connection(broker, connect):
    chance = random.Random(1)
    there = connect(broker)
    for _ in range(50):
        with socket.create_connection((broker.host, broker.port)) as sock:
            sock.sendall(frames.PROTOCOL_HEADER if chance.random() < 0.9 else b'')
            try:
                sock.sendall(chance.randbytes(chance.randrange(1, 300)))
            except OSError:
                pass

    there.channel().queue.declare('q')
