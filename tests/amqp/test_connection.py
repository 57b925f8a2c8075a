"""A connection: how it is made, refused, blocked, misused and lost, and what a hostile broker cannot do to it."""

from __future__ import annotations

import logging
import struct
import sys
import traceback
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any
from urllib.parse import quote

import gevent
import pytest
from gevent import socket, subprocess
from gevent.event import AsyncResult, Event
from pamqp import commands

from amphora.amqp import (
    AmqpUrl,
    Closed,
    Connection,
    ConnectionClosed,
    ConnectionFailed,
    LoginRefused,
    Message,
    NotAllowed,
)
from amphora.amqp.channel import CLOSE_TIMEOUT
from amphora.amqp.errors import (
    ChannelNumberError,
    ConnectionForced,
    FrameError,
    InternalError,
    SyntaxError_,
    UnexpectedFrame,
)
from amphora.errors import WrongThread
from tests.amqp.conftest import Connect
from tests.amqp.drawing import sized
from tests.amqp.scripted import (
    BODY,
    HEADER,
    HEARTBEAT,
    METHOD,
    Peer,
    ScriptedBroker,
    content_header,
    method,
    raw_frame,
)
from tests.rabbitmq import HOST, RabbitNode, free_ports
from tests.stopwatch import Stopwatch
from tests.waiting import eventually

CANARY = 'C4nary-p4ssword'


def ended(connection: Connection) -> AsyncResult[Exception]:
    reason: AsyncResult[Exception] = AsyncResult()
    connection.close_listeners.append(reason.set)
    return reason


# -- opening and closing -----------------------------------------------------------------------------------------------


def test_a_connection_is_open_once_it_is_made_and_closed_once_it_is_closed(rabbit: RabbitNode) -> None:
    connection = Connection(rabbit.host, rabbit.port, 'guest', 'guest', '/')
    channel = connection.channel()
    reason = ended(connection)
    assert not connection.closed
    assert connection.error is None
    assert connection.server_properties['product'] == 'RabbitMQ'

    connection.close()
    connection.close()

    assert connection.closed
    assert channel.closed
    assert 'closed by this side' in str(reason.get(timeout=1))
    for use in (connection.channel, lambda: channel.queue.declare('a')):
        with pytest.raises(ConnectionClosed, match='closed by this side'):
            use()


def test_a_with_block_closes_the_connection(rabbit: RabbitNode) -> None:
    with pytest.raises(ZeroDivisionError), Connection(port=rabbit.port) as connection:
        _ = 1 / 0
    assert connection.closed


def test_a_url_connects_as_it_says(rabbit: RabbitNode, vhost: str) -> None:
    url = f'{rabbit.url_of(vhost)}?heartbeat=7&channel_max=5&frame_max=8192&name=from%20url&connection_timeout=9000'
    for each in (url, AmqpUrl.parse(url)):
        with Connection.from_url(each) as connection:
            assert (connection.vhost, connection.heartbeat, connection.channel_max) == (vhost, 7, 5)
            assert (connection.frame_max, connection.name) == (8192, 'from url')
            connection.channel().queue.declare('only.here', auto_delete=True)
    assert rabbit.list_queues(vhost) == {'only.here': (0, 0)}


def test_options_are_a_later_word_than_the_url(rabbit: RabbitNode) -> None:
    with Connection.from_url(rabbit.url + '?heartbeat=7&name=url', heartbeat=3, name='mine') as connection:
        assert (connection.heartbeat, connection.name) == (3, 'mine')


def test_zero_in_a_url_means_none_of_it(rabbit: RabbitNode) -> None:
    with Connection.from_url(rabbit.url + '?heartbeat=0&channel_max=0&frame_max=0') as connection:
        assert connection.heartbeat == 0
        assert connection.channel().queue.declare(exclusive=True) is not None


def test_a_url_that_cannot_be_understood_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(ValueError, match='unknown scheme'):
        Connection.from_url('http://localhost')


def test_the_broker_lists_the_connection_by_its_name_and_what_it_says_of_itself(
    rabbit: RabbitNode, connect: Connect
) -> None:
    connect(name='tests-own', client_properties={'team': 'letters', 'capabilities': {'custom': True}})

    listed = rabbit.ctl('list_connections', 'client_properties')

    [line] = [line for line in listed.splitlines() if 'letters' in line]
    for shown in ('connection_name', 'tests-own', 'amphora', 'publisher_confirms', 'custom', 'consumer_cancel_notify'):
        assert shown in line


@pytest.mark.parametrize('size', [4096, 131072])
def test_frames_are_as_large_as_was_agreed_on_and_bodies_as_large_as_one_likes(
    connect: Connect, service: str, size: int
) -> None:
    channel = connect(frame_max=size).channel()
    channel.queue.declare(service, exclusive=True)
    for length in (size - 9, size - 8, size - 7, 2 * (size - 8), 1_000_000):
        body = bytes(range(256)) * (length // 256 + 1)
        channel.basic.publish(Message(body[:length]), routing_key=service)
        message = channel.basic.get(service)
        assert message is not None
        assert message.body == body[:length]


def test_properties_arrive_although_they_are_larger_than_the_frames_that_were_agreed_on(
    connect: Connect, service: str
) -> None:
    # given a message whose properties fill a frame of its publisher's
    publishing, reading = connect().channel(), connect(frame_max=4096).channel()
    publishing.queue.declare('dead.' + service, auto_delete=True)
    letters = {'x-dead-letter-exchange': '', 'x-dead-letter-routing-key': 'dead.' + service}
    publishing.queue.declare(service, exclusive=True, arguments=letters)
    headers = {'text': 'x' * 131_000}
    publishing.basic.publish(Message('hello', headers=headers), routing_key=service)

    # when the broker adds to them
    message = eventually(lambda: publishing.basic.get(service))
    publishing.basic.reject(message.delivery_info.delivery_tag, requeue=False)

    # then they come, whatever frames are agreed on
    for channel in (reading, publishing):
        letter = eventually(lambda channel=channel: channel.basic.get('dead.' + service))
        assert letter.headers['text'] == headers['text']
        assert 'x-death' in letter.headers
        channel.basic.reject(letter.delivery_info.delivery_tag)


@pytest.mark.parametrize(
    ('option', 'value', 'said'),
    [
        ('frame_max', 4095, 'from 4096 to 4294967295, not 4095'),
        ('frame_max', 2**32, 'from 4096 to 4294967295, not 4294967296'),
        ('frame_max', 131072.0, 'an integer, not 131072.0'),
        ('channel_max', 0, 'from 1 to 65535, not 0'),
        ('channel_max', 2**70, 'from 1 to 65535'),
        ('max_message_size', -1, 'from 0 to'),
        ('max_message_size', 2**64, 'from 0 to'),
        ('max_message_size', float('inf'), 'an integer, not inf'),
        ('high_water', 2**64, 'from 0 to'),
        ('high_water', '1M', "an integer, not '1M'"),
        ('heartbeat', -1, 'from 0 to 65535 seconds, not -1'),
        ('heartbeat', float('inf'), 'from 0 to 65535 seconds, not inf'),
        ('connect_timeout', -1, 'from 0 to'),
        ('connect_timeout', float('nan'), 'from 0 to'),
        ('connect_timeout', None, 'a number of seconds, not None'),
    ],
)
def test_numbers_that_make_no_sense_are_refused_before_anything_is_tried(option: str, value: Any, said: str) -> None:
    with pytest.raises((TypeError, ValueError), match=f'{option} must be {said}'):
        Connection(**{option: value})


def test_more_channels_than_agreed_on_are_refused_here(connect: Connect) -> None:
    connection = connect(channel_max=2)
    first, _ = connection.channel(), connection.channel()
    with pytest.raises(ConnectionFailed, match='all 2 channels'):
        connection.channel()

    first.close()

    assert connection.channel().queue.declare(exclusive=True) is not None


@pytest.mark.parametrize('mechanism', ['PLAIN', 'AMQPLAIN', 'plain'])
def test_each_password_mechanism_logs_in(rabbit: RabbitNode, mechanism: str) -> None:
    rabbit.ctl('add_user', 'ünser', 'pässwörd:/?')
    rabbit.ctl('set_permissions', 'ünser', '.*', '.*', '.*')
    try:
        with Connection(
            port=rabbit.port, user='ünser', password='pässwörd:/?', auth_mechanisms=[mechanism]
        ) as connection:
            assert connection.channel().queue.declare(exclusive=True) is not None
    finally:
        rabbit.ctl('delete_user', 'ünser')


@pytest.mark.parametrize('mechanism', ['PLAIN', 'AMQPLAIN'])
def test_a_wrong_password_is_refused_at_once(rabbit: RabbitNode, mechanism: str) -> None:
    watch = Stopwatch()
    with pytest.raises(LoginRefused, match='ACCESS_REFUSED') as caught:
        Connection(port=rabbit.port, password='wrong', auth_mechanisms=[mechanism])
    assert watch.awake < 1
    assert caught.value.code == 403


def test_mechanisms_as_one_text_are_a_type_error() -> None:
    with pytest.raises(TypeError, match=r"auth_mechanisms must be several names, such as \['PLAIN'\], not one text"):
        Connection(auth_mechanisms='PLAIN')


def test_no_common_mechanism_is_a_refused_login_that_names_them(rabbit: RabbitNode) -> None:
    with pytest.raises(LoginRefused, match=r'offers .*PLAIN.*, this side EXTERNAL'):
        Connection(port=rabbit.port, auth_mechanisms=['EXTERNAL'])


def test_a_broker_that_just_hangs_up_at_login_is_understood_as_a_refused_login() -> None:
    with ScriptedBroker(Peer.greet) as broker, pytest.raises(LoginRefused, match='hung up during login'):
        broker.connect()


def test_a_connection_lost_at_login_is_no_refused_login_when_the_broker_would_have_said_so() -> None:
    def script(peer: Peer) -> None:
        peer.greet(server_properties={'capabilities': {'authentication_failure_close': True}})

    with ScriptedBroker(script) as broker, pytest.raises(ConnectionFailed, match='was lost'):
        broker.connect()


def test_a_broker_that_asks_for_more_than_the_mechanism_has_is_refused() -> None:
    def script(peer: Peer) -> None:
        peer.greet()
        peer.say(commands.Connection.Secure('?'))
        peer.last_words()

    with ScriptedBroker(script) as broker, pytest.raises(LoginRefused, match='another round of PLAIN'):
        broker.connect()


def test_a_virtual_host_that_is_missing_or_forbidden_is_not_allowed(rabbit: RabbitNode, vhost: str) -> None:
    with pytest.raises(NotAllowed, match='vhost no-such-vhost not found'):
        Connection(port=rabbit.port, vhost='no-such-vhost')

    rabbit.ctl('clear_permissions', '-p', vhost, 'guest')

    with pytest.raises(NotAllowed, match='530'):
        Connection(port=rabbit.port, vhost=vhost)


def test_close_does_not_wait_longer_than_a_second(connect: Connect, rabbit: RabbitNode) -> None:
    connection = connect()
    channel = connection.channel()
    rabbit.pause()
    try:
        waiting = gevent.spawn(channel.queue.declare, exclusive=True)
        gevent.sleep(0)
        watch = Stopwatch()
        connection.close()
        watch.check_timeout(CLOSE_TIMEOUT)
    finally:
        rabbit.resume()
    assert connection.closed
    with pytest.raises(ConnectionClosed):
        waiting.get(timeout=1)


def test_close_waits_only_as_long_as_it_is_told(connect: Connect, rabbit: RabbitNode) -> None:
    connection = connect()
    rabbit.pause()
    try:
        watch = Stopwatch()
        connection.close(timeout=0.1)
        assert watch.awake < 0.5
    finally:
        rabbit.resume()
    assert connection.closed


def test_what_was_published_before_close_arrives(connect: Connect, service: str) -> None:
    channel = connect().channel()
    channel.queue.declare(service, auto_delete=True)
    publisher = connect()
    publishing = publisher.channel()
    for number in range(500):
        publishing.basic.publish(Message(b'%d' % number * 1000), routing_key=service)

    publisher.close()

    eventually(lambda: channel.queue.declare(service, passive=True).message_count == 500)


def test_a_connection_that_an_operator_closes_says_so_everywhere(connect: Connect, rabbit: RabbitNode) -> None:
    connection = connect()
    channel = connection.channel()
    reason = ended(connection)

    rabbit.ctl('close_all_connections', 'spring cleaning')

    error = reason.get(timeout=5)
    assert isinstance(error, ConnectionForced)
    assert (error.code, connection.error, channel.error) == (320, error, error)
    assert 'spring cleaning' in error.text
    assert 'closed: 320' in repr(connection)
    with pytest.raises(ConnectionForced, match='spring cleaning'):
        connection.channel()


def test_a_connection_that_breaks_says_so() -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        peer.accept_channel()

    with ScriptedBroker(script) as broker:
        connection = broker.connect()
        with pytest.raises(ConnectionClosed, match=r'to .*:\d+ was lost: the peer closed the socket') as caught:
            connection.channel().queue.declare('a')
        assert caught.value.code == 0


def test_an_error_of_the_connection_names_code_text_and_method() -> None:
    def script(peer: Peer) -> list[Any]:
        peer.accept()
        peer.say(commands.Connection.Close(541, 'INTERNAL_ERROR', 60, 40))
        return peer.last_words()

    with ScriptedBroker(script) as broker, broker.connect() as connection:
        error = ended(connection).get(timeout=5)
        assert isinstance(error, InternalError)
        assert str(error) == '541 INTERNAL_ERROR (method 60.40)'
        assert [type(each) for each in broker.result()] == [commands.Connection.CloseOk]


# -- who cannot be connected to ----------------------------------------------------------------------------------------


def test_nobody_listening_is_a_failed_connection_that_says_where() -> None:
    [port] = free_ports(1)
    with pytest.raises(ConnectionFailed, match=rf'cannot connect to 127\.0\.0\.1:{port}: .*refused'):
        Connection(HOST, port)


def test_a_name_that_does_not_resolve_is_a_failed_connection() -> None:
    with pytest.raises(ConnectionFailed, match=r'cannot connect to no-such-host\.invalid:5672'):
        Connection('no-such-host.invalid')


def test_a_port_that_accepts_and_says_nothing_is_given_up_in_time() -> None:
    with ScriptedBroker(Peer.last_words_raw) as broker:
        watch = Stopwatch()
        with pytest.raises(ConnectionFailed, match=r'no AMQP connection to .* within 0\.3 s'):
            broker.connect(connect_timeout=0.3)
        assert watch.seconds > 0.25
        assert watch.awake < 1
        # and the socket is not left open
        assert broker.result(limit=1) == b'AMQP\x00\x00\x09\x01'


@pytest.mark.parametrize(
    'answer',
    [
        b'HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\n\r\nno',
        b'SSH-2.0-OpenSSH_9.2\r\n',
        b'AMQP\x00\x01\x00\x00',
        b'\x15\x03\x03\x00\x02\x02\x46',
        b'',
    ],
    ids=['HTTP', 'SSH', 'AMQP 1.0', 'TLS alert', 'nothing'],
)
def test_whoever_answers_something_else_is_a_failed_connection(answer: bytes) -> None:
    def script(peer: Peer) -> None:
        peer.read_exactly(8)
        peer.send(answer)

    with ScriptedBroker(script) as broker:
        watch = Stopwatch()
        with pytest.raises(ConnectionFailed, match=rf':{broker.port}'):
            broker.connect()
        assert watch.awake < 1


def test_another_version_of_amqp_is_a_failed_connection() -> None:
    def script(peer: Peer) -> None:
        peer.read_exactly(8)
        peer.say(commands.Connection.Start(8, 0, {}, 'PLAIN', 'en_US'))
        peer.last_words()

    with ScriptedBroker(script) as broker, pytest.raises(ConnectionFailed, match='speaks AMQP 8-0, not 0-9-1'):
        broker.connect()


# -- blocked -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def memory_alarm(rabbit: RabbitNode) -> Iterator[Callable[[bool], None]]:
    def switch(on: bool) -> None:
        rabbit.ctl('set_vm_memory_high_watermark', '0' if on else '0.4')

    yield switch
    switch(False)


def test_a_blocked_publisher_waits_until_the_broker_takes_messages_again(
    connect: Connect, service: str, memory_alarm: Callable[[bool], None]
) -> None:
    # given a broker that is out of memory, and a connection that has published to it
    connection, other = connect(), connect()
    heard: list[str | None] = []
    connection.blocked_listeners.append(heard.append)
    channel = connection.channel()
    channel.queue.declare(service, auto_delete=True)
    memory_alarm(True)
    channel.basic.publish(Message('first'), routing_key=service)
    eventually(lambda: connection.blocked is not None)
    assert connection.blocked == 'low on memory'

    # when more is published
    publisher = gevent.spawn(channel.basic.publish, Message('second'), routing_key=service)
    publisher.join(0.1)
    assert not publisher.ready()
    assert other.blocked is None

    # then it goes out once the broker is well again
    memory_alarm(False)
    publisher.get(timeout=5)
    assert connection.blocked is None
    assert heard == ['low on memory', None]
    assert [channel.basic.get(service, no_ack=True).body for _ in range(2)] == [b'first', b'second']


def test_a_blocked_publisher_hears_of_the_connections_end() -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        peer.accept_channel()
        peer.say(commands.Connection.Blocked('low on disk'))
        peer.last_words()

    with ScriptedBroker(script) as broker, broker.connect() as connection:
        channel = connection.channel()
        eventually(lambda: connection.blocked == 'low on disk')
        publisher = gevent.spawn(channel.basic.publish, Message('x'), routing_key='k')
        publisher.join(0.05)
        assert not publisher.ready()

        connection.close(timeout=0.1)

        with pytest.raises(ConnectionClosed, match='closed by this side'):
            publisher.get(timeout=1)


# -- threads, and programs that are patched ----------------------------------------------------------------------------


def test_use_from_another_thread_is_an_error_and_nothing_else(connection: Connection, queue: str, channel: Any) -> None:
    uses: list[Callable[[], object]] = [
        connection.channel,
        connection.close,
        channel.close,
        lambda: channel.queue.declare('a'),
        lambda: channel.queue.declare('a', nowait=True),
        lambda: channel.exchange.declare('a'),
        lambda: channel.basic.publish(Message('x'), routing_key=queue),
        lambda: channel.basic.get(queue),
        lambda: channel.basic.ack(1),
        lambda: channel.basic.nack(1),
        lambda: channel.basic.reject(1),
        lambda: channel.basic.consume(queue, print),
        lambda: channel.confirm.select(),
        lambda: channel.tx.select(),
        channel.sync,
    ]
    pool = gevent.get_hub().threadpool
    for use in uses:
        with pytest.raises(WrongThread, match='belongs to another thread'):
            pool.apply(use)
    assert channel.consumers == {}
    assert channel.basic.get(queue) is None
    channel.sync()


PROGRAM = """
import sys
{patch}
from amphora.amqp import Connection, Message
with Connection.from_url(sys.argv[1]) as connection:
    channel = connection.channel()
    name = channel.queue.declare(exclusive=True).queue
    channel.confirm.select()
    channel.basic.publish(Message(b'x' * 300000), routing_key=name, wait=True)
    assert len(channel.basic.get(name)) == 300000
print('well')
"""


@pytest.mark.parametrize('patch', ['', 'from gevent import monkey; monkey.patch_all()'], ids=['unpatched', 'patched'])
def test_it_works_in_programs_that_are_monkey_patched_and_in_those_that_are_not(rabbit: RabbitNode, patch: str) -> None:
    done = subprocess.run(
        [sys.executable, '-c', PROGRAM.format(patch=patch), rabbit.url],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=20,
    )
    assert done.stdout.decode() == 'well\n'


# -- secrets -----------------------------------------------------------------------------------------------------------


def everything_shown(error: BaseException) -> str:
    """What logs and debuggers show of an error and of those behind it, without the locals of frames."""
    shown = traceback.format_exception(type(error), error, error.__traceback__)
    each: BaseException | None = error
    while each is not None:
        shown += [repr(each), str(each), repr(each.args), repr(vars(each))]
        each = each.__cause__ or each.__context__
    # Where the test itself wrote the password down is not the connection's doing.
    return ''.join(shown)


def refuse_login(peer: Peer) -> None:
    peer.greet()
    peer.say(commands.Connection.Close(403, 'ACCESS_REFUSED', 0, 0))
    peer.last_words()


@pytest.mark.parametrize(
    ('script', 'password'),
    [
        (refuse_login, CANARY),
        (Peer.greet, CANARY),
        (lambda peer: None, CANARY),
        (refuse_login, CANARY + '\udcff'),
        (refuse_login, CANARY * 10),
    ],
    ids=['refused', 'hung up at login', 'hung up at once', 'not UTF-8', 'long'],
)
@pytest.mark.parametrize('mechanism', ['PLAIN', 'AMQPLAIN'])
def test_no_error_and_no_log_shows_the_password(
    script: Callable[[Peer], object], password: str, mechanism: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    options = {'password': password, 'auth_mechanisms': [mechanism], 'debug': True}
    with ScriptedBroker(script) as broker, pytest.raises(Exception) as caught:  # noqa: PT011 - any error counts
        broker.connect(**options)
    assert CANARY not in everything_shown(caught.value)
    assert CANARY not in caplog.text


def test_no_repr_shows_the_password(rabbit: RabbitNode, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    rabbit.ctl('add_user', 'careful', CANARY)
    rabbit.ctl('set_permissions', 'careful', '.*', '.*', '.*')
    try:
        url = f'amqp://careful:{quote(CANARY)}@{rabbit.host}:{rabbit.port}'
        with Connection.from_url(url, debug=True) as connection:
            channel = connection.channel()
            shown = [repr(connection), str(connection), repr(channel)]
            shown += [repr(getattr(connection, name)) for name in dir(connection) if not name.startswith('__')]
        shown += [repr(connection), str(connection), repr(connection.error)]
    finally:
        rabbit.ctl('delete_user', 'careful')
    assert 'careful' in shown[0]
    assert CANARY not in ''.join(shown)
    assert 'Queue.Declare' not in caplog.text
    assert 'Channel.Open' in caplog.text
    assert CANARY not in caplog.text


# -- a hostile broker --------------------------------------------------------------------------------------------------


def nested(depth: int) -> bytes:
    """The payload of a table that holds a table that holds a table ..."""
    payload = b''
    for _ in range(depth):
        payload = b'\x01a' + b'F' + sized(payload)
    return payload


def start(server_properties: bytes) -> bytes:
    payload = b'\x00\x0a\x00\x0a\x00\x09' + server_properties + sized(b'PLAIN') + sized(b'en_US')
    return raw_frame(METHOD, 0, payload)


GET_OK = method(1, commands.Basic.GetOk(1, False, '', 'k', 0))
ENDLESS_ARRAY = b'\x01aA' + struct.pack('>I', 0xFFFFFF) + b't\x01'


@pytest.fixture
def frugal() -> Iterator[None]:
    """Whatever the test does costs less than 16 MiB and 2 s."""
    tracemalloc.start()
    watch = Stopwatch()
    try:
        yield
        assert watch.awake < 2
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 16 * 1024 * 1024


@pytest.mark.usefixtures('frugal')
@pytest.mark.parametrize(
    ('greeting', 'says'),
    [
        (struct.pack('>BHI', METHOD, 0, 0xFFFFFFFF), '4294967303 bytes; at most 4096'),
        (struct.pack('>BHI', METHOD, 0, 4089) + bytes(4089), '4097 bytes; at most 4096'),
        (start(struct.pack('>I', 5000)), 'longer than its frame'),
        (start(sized(nested(570))), 'nested more than'),
        (start(sized(nested(1000))), 'bytes; at most 4096'),
        (start(sized(ENDLESS_ARRAY)), 'longer than its frame or table'),
        (start(sized(b'\x01a\xff')), 'no known type'),
        (start(sized(b'\x05abc')), 'longer than the table'),
        (raw_frame(METHOD, 0, b'\x00\x0a\x00\x0a\x00'), 'ends before'),
        (raw_frame(METHOD, 0, b'\x00\x0a'), 'unknown method'),
        (raw_frame(METHOD, 0, b''), 'unknown method'),
        (raw_frame(METHOD, 0, b'\x00\x0a\x00\xff'), 'unknown method'),
        (raw_frame(METHOD, 0, b'\x00\x0a\x00\x0a', end=b'\x00'), 'octet 0x00'),
        (raw_frame(9, 0, b''), 'type 9'),
        (method(0, commands.Connection.OpenOk()), 'not expected now'),
        (method(3, commands.Channel.OpenOk()), 'channel 3, which is not open'),
    ],
    ids=lambda value: value if isinstance(value, str) else '',
)
def test_a_hostile_greeting_ends_the_connection_and_says_why(greeting: bytes, says: str) -> None:
    def script(peer: Peer) -> None:
        peer.read_exactly(8)
        peer.send(greeting)
        peer.last_words()

    with ScriptedBroker(script) as broker, pytest.raises((Closed, ConnectionFailed), match=says):
        broker.connect()


@pytest.mark.usefixtures('frugal')
@pytest.mark.parametrize('size', [1, 4095])
def test_a_broker_that_wants_frames_below_4096_is_refused(size: int) -> None:
    def script(peer: Peer) -> list[Any]:
        peer.greet()
        peer.say(commands.Connection.Tune(0, size, 0))
        return peer.last_words()

    with ScriptedBroker(script) as broker:
        with pytest.raises(NotAllowed, match=f'at most {size} bytes; AMQP demands 4096'):
            broker.connect()
        [close] = broker.result()
        assert close.reply_code == 530


def test_zero_in_tune_means_no_limit() -> None:
    def script(peer: Peer) -> tuple[int, int]:
        peer.greet()
        agreed = peer.tune(channel_max=0, frame_max=0)
        peer.expect(commands.Connection.Open)
        peer.say(commands.Connection.OpenOk())
        peer.accept_channel()
        peer.last_words()
        return agreed.channel_max, agreed.frame_max

    with ScriptedBroker(script) as broker:
        connection = broker.connect()
        connection.channel()
        connection.close(timeout=0.1)
        assert broker.result() == (2047, 131072)


@pytest.mark.usefixtures('frugal')
@pytest.mark.parametrize(
    ('data', 'kind', 'says'),
    [
        (struct.pack('>BHI', BODY, 1, 0xFFFFFFFF), FrameError, '4294967303 bytes; at most 131072'),
        (GET_OK + content_header(1, 200_000) + raw_frame(BODY, 1, b'x' * 131065), FrameError, '131073 bytes'),
        (raw_frame(9, 1, b''), UnexpectedFrame, 'type 9 on channel 1'),
        (raw_frame(HEARTBEAT, 1, b''), UnexpectedFrame, 'type 8 on channel 1'),
        (raw_frame(HEARTBEAT, 5, b''), ChannelNumberError, 'channel 5, which is not open'),
        (method(77, commands.Queue.BindOk()), ChannelNumberError, 'channel 77, which is not open'),
        (method(77, commands.Basic.Ack(1)), ChannelNumberError, 'channel 77, which is not open'),
        (raw_frame(BODY, 0, b'x'), UnexpectedFrame, 'type 3 on channel 0'),
        (raw_frame(HEADER, 0, b'x'), UnexpectedFrame, 'type 2 on channel 0'),
        (content_header(1, 1), UnexpectedFrame, 'a content header where a method frame was expected'),
        (raw_frame(BODY, 1, b'x'), UnexpectedFrame, 'a body frame where a method frame was expected'),
        (GET_OK + raw_frame(BODY, 1, b'x'), UnexpectedFrame, 'a body frame where a content header was expected'),
        (GET_OK + GET_OK, UnexpectedFrame, 'a method frame where a content header was expected'),
        (
            GET_OK + content_header(1, 9) + content_header(1, 9),
            UnexpectedFrame,
            'a content header where a body frame was expected',
        ),
        (GET_OK + method(1, commands.Queue.BindOk()), UnexpectedFrame, 'in the middle of a message'),
        (GET_OK + content_header(1, 2**63), FrameError, f'a body of {2**63} bytes was announced'),
        (GET_OK + content_header(1, 2**27 + 1), FrameError, 'at most 134217728 are accepted'),
        (GET_OK + content_header(1, 3) + raw_frame(BODY, 1, b'four'), FrameError, '1 bytes longer'),
        (GET_OK + raw_frame(HEADER, 1, bytes(13)), FrameError, 'a content header of 13 bytes'),
        (GET_OK + raw_frame(HEADER, 1, struct.pack('>HHQH', 10, 0, 1, 0)), FrameError, 'of class 10'),
        (GET_OK + content_header(1, 1, b'\x00\x01'), FrameError, 'more than one word of flags'),
        (GET_OK + content_header(1, 1, b'\x80\x00\x09abc'), FrameError, 'in the middle of '),
        (GET_OK + content_header(1, 1, b'\x20\x00\xff\xff\xff\xff'), FrameError, 'longer than its frame'),
        (raw_frame(METHOD, 1, b'\x00\x32\x00\x0b\x03abc', end=b'\xcd'), FrameError, 'octet 0xcd'),
        (raw_frame(METHOD, 1, b'\x00\x32\x00\x0b\x09abc'), FrameError, 'longer than its frame'),
        (raw_frame(METHOD, 1, b'\x00\x32\x00\x0b\x03abc\x00'), FrameError, 'ends before its field message_count'),
        (raw_frame(METHOD, 1, b'\x00\x32\x00\x0b\x02\xff\xfe' + bytes(8)), SyntaxError_, 'not UTF-8'),
        (raw_frame(METHOD, 1, b'\x00\x3c\x00\x50'), FrameError, r'basic\.ack'),
        (raw_frame(METHOD, 1, b'\x00\x3c\x00\x3c\x01'), FrameError, None),
        (raw_frame(METHOD, 1, b'\xde\xad\xbe\xef'), SyntaxError_, 'unknown method: de ad be ef'),
        (method(0, commands.Connection.Start(0, 9, {}, 'PLAIN', 'en_US')), Closed, 'not expected now'),
    ],
    ids=lambda value: value if isinstance(value, str) else '',
)
def test_hostile_frames_end_the_connection_and_say_why(data: bytes, kind: type[Closed], says: str | None) -> None:
    def script(peer: Peer) -> list[Any]:
        peer.accept()
        peer.accept_channel()
        peer.expect(commands.Basic.Get)
        peer.send(data + (content_header(1, 1) + raw_frame(BODY, 1, b'x') if says is None else b''))
        return peer.last_words()

    with ScriptedBroker(script) as broker:
        connection = broker.connect()
        reason = ended(connection)
        with pytest.raises(kind, match=says):
            connection.channel().basic.get('a')
        assert reason.get(timeout=1) is connection.error
        # the broker is told which rule it broke, and the socket closes
        [close] = broker.result(limit=1)
        assert isinstance(close, commands.Connection.Close)
        assert isinstance(connection.error, Closed)
        assert close.reply_code == connection.error.code


@pytest.mark.parametrize(
    'headers',
    [
        nested(1000),
        ENDLESS_ARRAY,
        b'\x01a\xff',
        b'\x05abc',
        b'\x01aF' + sized(ENDLESS_ARRAY),
        b'\x01aS\xff\xff\xff\xff',
    ],
    ids=['nested', 'endless array', 'unknown type', 'cut short', 'endless array in a table', 'long string cut short'],
)
@pytest.mark.limit(10)
def test_headers_that_cannot_be_decoded_cost_neither_the_message_nor_time(headers: bytes) -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        peer.accept_channel()
        peer.expect(commands.Basic.Get)
        peer.send(GET_OK + content_header(1, 5, b'\x20\x00' + sized(headers)) + raw_frame(BODY, 1, b'hello'))
        peer.last_words()

    tracemalloc.start()
    try:
        with ScriptedBroker(script) as broker, broker.connect() as connection:
            watch = Stopwatch()
            message = connection.channel().basic.get('a')
            assert watch.awake < 1
            assert message is not None
            assert message.body == b'hello'
            connection.close(timeout=0.05)
        assert tracemalloc.get_traced_memory()[1] < 16 * 1024 * 1024
    finally:
        tracemalloc.stop()


def test_an_error_whose_text_is_not_ascii_still_ends_the_connection() -> None:
    # The name of an unknown field goes into the reason, and the reason into a short string of 255 bytes.
    headers = b'\xff' + '☃'.encode() * 85 + b'\xff'

    def script(peer: Peer) -> None:
        peer.read_exactly(8)
        peer.send(start(sized(headers)))
        peer.last_words()

    with ScriptedBroker(script) as broker, pytest.raises((Closed, ConnectionFailed)):
        broker.connect(connect_timeout=2)


def test_what_the_broker_said_last_is_read_although_writing_fails() -> None:
    said, go_on = Event(), Event()

    def script(peer: Peer) -> None:
        peer.accept()
        peer.accept_channel()
        go_on.wait()
        # At once, and not when what was sent before is acked: the reset would be first.
        peer.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peer.say(commands.Connection.Close(320, 'CONNECTION_FORCED - shutdown', 0, 0))
        # Ends with a reset, so that writing fails.
        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
        peer.sock.close()
        said.set()

    with ScriptedBroker(script) as broker:
        connection = broker.connect()
        channel = connection.channel()
        # As if this greenlet did not let the hub run.
        connection._transport.pause()
        go_on.set()
        said.wait()
        connection._transport.resume()
        for _ in range(3):
            channel.publish('', 'q', {}, b'x')

        eventually(lambda: connection.closed)
        assert isinstance(connection.error, ConnectionForced)


def test_two_greenlets_that_close_it_both_hear_the_broker() -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        peer.expect(commands.Connection.Close)
        gevent.sleep(0.1)
        peer.say(commands.Connection.CloseOk())
        gevent.sleep(5)

    with ScriptedBroker(script) as broker:
        connection = broker.connect()
        closing = [gevent.spawn(connection.close, 30) for _ in range(2)]

        assert len(gevent.joinall(closing, timeout=5)) == 2


def test_a_login_larger_than_the_broker_takes_is_named_as_the_reason(connect: Connect) -> None:
    with pytest.raises(ConnectionFailed, match=r'login and client properties take 5\d\d\d bytes'):
        connect(client_properties={'token': 'x' * 5000})


def test_where_the_first_of_a_names_addresses_is_silent_the_others_are_tried(
    rabbit: RabbitNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = '127.0.0.2'
    usual = socket.getaddrinfo

    def both(host: str, port: int, *how: Any) -> list[Any]:
        hosts = [silent, HOST] if host == 'both' else [host]
        return [address for each in hosts for address in usual(each, port, *how)]

    monkeypatch.setattr(socket, 'getaddrinfo', both)
    with ExitStack() as sockets:
        listener = sockets.enter_context(socket.socket())
        listener.bind((silent, rabbit.port))
        listener.listen(0)
        # Its queue is full with these: it answers no more.
        for _ in range(3):
            waiting = sockets.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex((silent, rabbit.port))

        with Connection('both', rabbit.port, connect_timeout=6) as connection:
            assert not connection.closed
