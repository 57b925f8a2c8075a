"""Bad input in other systems' ways of calling: requests to a server that speaks them, and replies to a client.

After each, a good call has its answer at once over the connection there was. What the sender of a bad one is told is in
the table beside it; who could not be told is named in the log.
"""

from __future__ import annotations

import gzip
import os
import pickle
import re
import secrets
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import msgspec
import pytest

from amphora import AmphoraError, AmqpRpcClient, AmqpRpcServer, RemoteException, WrongRequest, WrongResult
from amphora.amqp import Channel, Connection, Message
from amphora.compression import compress
from amphora.dialects import (
    AioPikaMaster,
    AioPikaRpc,
    AmqpRpc,
    Dialect,
    Format,
    GzipJson,
    Json,
    MsgPack,
    Pickle,
    RabiBridge,
    Tutorial,
)
from tests.hostile.stranger import (
    CORRELATION_ID,
    HEADERS,
    MESSAGE_ID,
    QUICK,
    REPLY_TO,
    long,
    nested_table,
    publish_raw,
    short,
)
from tests.parties import Client, Gate, Server
from tests.stopwatch import Stopwatch
from tests.waiting import eventually

pytestmark = pytest.mark.usefixtures('no_connection_lost', 'nothing_escapes')

SERVER = pytest.mark.row('server input')
CLIENT = pytest.mark.row('client input')

DEEP = 100_000
MEGABYTE = 1_000_000


class Exploding:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> Any:
        return os.system, ('kill -9 %d' % os.getpid(),)


def double(n: Any) -> Any:
    return n * 2


@pytest.fixture
def nothing_escapes(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """Fails a test in which an exception has ended a greenlet: gevent prints it."""
    yield
    assert 'Traceback' not in capfd.readouterr().err


# -- somebody who speaks a dialect, well or badly ----------------------------------------------------------------------


class Speaker:
    """Speaks one dialect by hand.

    :ivar dialect: what a server and a client are given.
    :ivar queue: where requests for `function` go, by the default exchange.
    """

    #: where a message says its id, and where the answer goes
    id, address = 'correlation_id', 'reply_to'
    id_flag, address_flag = CORRELATION_ID, REPLY_TO
    #: what is the double of 4
    eight: Any = 8

    def __init__(self, channel: Channel, name: str) -> None:
        self.channel = channel
        self.function = f'double_{name}'
        self.queue = self.function
        self.replies = str(channel.queue.declare(exclusive=True).queue)
        self.dialect = self.make(name)

    def make(self, name: str) -> Dialect:
        raise NotImplementedError

    def call(self, client: AmqpRpcClient) -> Any:
        """Begin a good call, whose result is 8."""
        return client.defer(function_name=self.function)(4)

    def reply_body(self) -> bytes:
        """The body of a good reply, 8."""
        raise NotImplementedError

    def reply_properties(self) -> dict[str, Any]:
        return {}

    def good(self) -> bytes:
        """The body of a good request, for the double of 4."""
        raise NotImplementedError

    def others(self) -> dict[str, str]:
        """Properties of a request, beside its id and its address."""
        return {}

    def send(self, body: bytes, properties: dict[str, Any] | None = None) -> None:
        """Send a request with these properties instead of good ones."""
        if properties is None:
            properties = self.properties()
        self.channel.basic.publish(Message(body, **properties), '', self.queue)

    def properties(self, **more: Any) -> dict[str, Any]:
        """Of a good request."""
        return {self.id: secrets.token_hex(4), self.address: self.replies, **self.others(), **more}

    def send_raw(self, flags: int, raw: bytes, body: bytes) -> None:
        publish_raw(self.channel, '', self.queue.encode(), flags, raw, body)

    def take(self) -> Message:
        return eventually(lambda: self.channel.basic.get(self.replies, no_ack=True))

    def told(self, reply: Message) -> tuple[bool, Any]:
        """Whether a reply tells of a result, and that or what it says of an error."""
        raise NotImplementedError

    def refusal(self, body: bytes, properties: dict[str, Any] | None = None) -> str:
        """What the sender of a bad request is told."""
        self.send(body, properties)
        well, text = self.told(self.take())
        assert not well, text
        return str(text)

    def check_server_well(self) -> None:
        """The server answers as ever, and nothing is left in its queue."""
        watch = Stopwatch()
        self.send(self.good())
        assert self.told(self.take()) == (True, self.eight)
        assert watch.awake < QUICK
        eventually(lambda: self.channel.queue.declare(self.queue, passive=True).message_count == 0)

    def listen(self) -> None:
        """Be a server: have the queue that a client's requests come into."""
        self.channel.queue.declare(self.queue)

    def reply(self, request: Message, body: bytes, **instead: Any) -> None:
        """Reply with these properties instead of good ones; those that are None are left out."""
        properties = {self.id: request.properties[self.id], **self.reply_properties(), **instead}
        self.channel.basic.publish(Message(body, **properties), '', request.properties[self.address])

    def reply_raw(self, request: Message, flags: int, raw: bytes, body: bytes) -> None:
        publish_raw(self.channel, '', request.properties[self.address].encode(), flags, raw, body)

    def next_request(self) -> Message:
        return eventually(lambda: self.channel.basic.get(self.queue, no_ack=True))

    def check_client_well(self, calling: AmqpRpcClient) -> None:
        """The client's next call has its result at once."""
        watch = Stopwatch()
        result = self.call(calling)
        self.reply(self.next_request(), self.reply_body())
        assert result.get(timeout=5) == 8
        assert watch.awake < QUICK


class TutorialSpeaker(Speaker):
    eight = '8'

    def make(self, name: str) -> Dialect:
        self.queue = f'tutorial_{name}'
        return Tutorial(self.queue, self.function)

    def good(self) -> bytes:
        return b'4'

    def reply_body(self) -> bytes:
        return b'8'

    def told(self, reply: Message) -> tuple[bool, Any]:
        return 'headers' not in reply.properties, reply.body.decode()


class AmqpRpcSpeaker(Speaker):
    id, address = 'message_id', 'correlation_id'
    id_flag, address_flag = MESSAGE_ID, CORRELATION_ID

    def make(self, name: str) -> Dialect:
        self.queue = f'codec_{name}'
        return AmqpRpc(self.queue)

    def others(self) -> dict[str, str]:
        return {'reply_to': self.function}

    def good(self) -> bytes:
        return b'4'

    def reply_body(self) -> bytes:
        return b'8'

    def told(self, reply: Message) -> tuple[bool, Any]:
        error = (reply.properties.get('headers') or {}).get('error')
        return error is None, msgspec.json.decode(reply.body) if error is None else error


class RabiBridgeSpeaker(Speaker):
    format: type[Format] = MsgPack

    def make(self, name: str) -> Dialect:
        self.queue = f'rpc_async_{self.function}'
        return RabiBridge(self.format)

    def good(self) -> bytes:
        return self.format.pack([[4], {}])

    def reply_body(self) -> bytes:
        return self.format.pack([0, 8])

    def listen(self) -> None:
        super().listen()
        self.channel.exchange.declare('rpc', 'direct', durable=True)
        self.channel.queue.bind(self.queue, 'rpc', self.queue.removeprefix('rpc_'))

    def told(self, reply: Message) -> tuple[bool, Any]:
        failed, value = self.format.unpack(reply.body)
        return not failed, value


class PickleRabiBridgeSpeaker(RabiBridgeSpeaker):
    format = Pickle


class AioPikaSpeaker(Speaker):
    format: type[Format] = Pickle

    def make(self, name: str) -> Dialect:
        return AioPikaRpc(self.format)

    def call(self, client: AmqpRpcClient) -> Any:
        return client.defer(function_name=self.function)(n=4)

    def others(self) -> dict[str, str]:
        return {'type': 'call'}

    def good(self) -> bytes:
        return self.format.pack({'n': 4})

    def reply_body(self) -> bytes:
        return self.format.pack(8)

    def reply_properties(self) -> dict[str, Any]:
        return {'type': 'result'}

    def told(self, reply: Message) -> tuple[bool, Any]:
        well = reply.properties['type'] == 'result'
        return well, self.format.unpack(reply.body)


class JsonAioPikaSpeaker(AioPikaSpeaker):
    format = Json


class GzipAioPikaSpeaker(AioPikaSpeaker):
    format = GzipJson


SPEAKERS: dict[str, type[Speaker]] = {
    'tutorial': TutorialSpeaker,
    'amqprpc': AmqpRpcSpeaker,
    'RabiBridge': RabiBridgeSpeaker,
    'RabiBridge, pickle': PickleRabiBridgeSpeaker,
    'aio-pika': AioPikaSpeaker,
    'aio-pika, JSON': JsonAioPikaSpeaker,
    'aio-pika, gzip': GzipAioPikaSpeaker,
}


@pytest.fixture
def connection(amqp_url: str) -> Iterator[Connection]:
    with Connection.from_url(amqp_url) as made:
        yield made


@pytest.fixture(params=SPEAKERS)
def speaker(request: pytest.FixtureRequest, connection: Connection) -> Speaker:
    return SPEAKERS[request.param](connection.channel(), secrets.token_hex(4))


def serve(serving: Server, speaker: Speaker, *run: Callable[[Any], Any], **options: Any) -> AmqpRpcServer:
    function = run[0] if run else double
    return serving(named={speaker.function: function}, dialects=[speaker.dialect], **options)


def said(caplog: pytest.LogCaptureFixture, text: str) -> list[str]:
    return [record.getMessage() for record in caplog.records if text in record.getMessage()]


@pytest.fixture(params=[name for name in SPEAKERS if name != 'tutorial'])
def reader(request: pytest.FixtureRequest, connection: Connection) -> Speaker:
    """One whose bodies have a format. The tutorial's are text, or bytes of any kind."""
    return SPEAKERS[request.param](connection.channel(), secrets.token_hex(4))


# -- requests: bodies --------------------------------------------------------------------------------------------------

BOMB = 140 * MEGABYTE

NO_BODIES: dict[str, Callable[[], bytes]] = {
    'empty': lambda: b'',
    'not UTF-8': lambda: b'\xff\xfe\x00',
    'a pickle that runs code': lambda: pickle.dumps(Exploding()),
    'a pickle that runs code, of protocol 0': lambda: pickle.dumps(Exploding(), 0),
    'a pickle that is cut': lambda: pickle.dumps({'n': 4})[:-1],
    'JSON that is cut': lambda: b'{"n": ',
    'XML': lambda: b'<methodCall/>',
    '100,000 brackets': lambda: b'[' * DEEP,
    '100,000 arrays in MessagePack': lambda: b'\x92' + b'\x91' * DEEP + b'\xc0\x80',
    '4,294,967,295 items that do not come': lambda: b'\x92\xdd\xff\xff\xff\xff\x80',
    '1 MB of nothing': lambda: bytes(MEGABYTE),
    'a gzip that is cut': lambda: gzip.compress(b'{"n": 4}')[:-3],
    'a zstd that is cut': lambda: compress('zstd', MsgPack.pack([[4], {}]))[:-3],
    'zstd that is none': lambda: b'\x28\xb5\x2f\xfd' + bytes(100),
    'a bomb of gzip': lambda: gzip.compress(bytes(BOMB), 1),
    'a bomb of zstd': lambda: compress('zstd', bytes(BOMB)),
}


@SERVER
@pytest.mark.parametrize('body', NO_BODIES)
def test_a_body_that_is_none_is_refused(serving: Server, reader: Speaker, body: str) -> None:
    serve(serving, reader)

    refusal = reader.refusal(NO_BODIES[body]())

    assert re.search('cannot be read|is no (list|mapping)', refusal)
    reader.check_server_well()


def packed(format: type[Format], *values: Any) -> list[bytes]:
    return [format.pack(value) for value in values]


NO_MAPPINGS = (None, 4, 'n', [], [4], [['n', 4]], True, 1.5)
NO_CALLS = (None, 4, 'n', '', 'ab', [], [[4]], [[4], {}, 0], [4, {}], ['4', {}], [[4], []], [None, None], {'n': 4})
WRONG_SHAPES: dict[type[Speaker], list[bytes]] = {
    RabiBridgeSpeaker: [*packed(MsgPack, *NO_CALLS), msgspec.msgpack.encode([[4], {1: 2}])],
    PickleRabiBridgeSpeaker: packed(Pickle, *NO_CALLS, [[4], {1: 2}], [{4}, {}]),
    AioPikaSpeaker: packed(Pickle, *NO_MAPPINGS, {4: 'n'}, {b'n': 4}, {(): 4}),
    JsonAioPikaSpeaker: packed(Json, *NO_MAPPINGS),
    GzipAioPikaSpeaker: packed(GzipJson, *NO_MAPPINGS),
}


@SERVER
@pytest.mark.parametrize('kind', WRONG_SHAPES, ids=lambda kind: kind.__name__)
def test_a_body_of_another_shape_is_refused(serving: Server, connection: Connection, kind: type[Speaker]) -> None:
    speaker = kind(connection.channel(), secrets.token_hex(4))
    serve(serving, speaker)

    for body in WRONG_SHAPES[kind]:
        assert re.search('cannot be read|is no (list|mapping)', speaker.refusal(body)), body

    speaker.check_server_well()


@SERVER
def test_what_a_function_does_not_take_is_its_type_error(serving: Server, speaker: Speaker) -> None:
    def none() -> None:
        raise AssertionError

    serve(serving, speaker, none)

    assert 'argument' in speaker.refusal(speaker.good())


@SERVER
def test_an_argument_that_the_tutorial_cannot_convert_is_refused(
    serving: Server, connection: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    speaker = TutorialSpeaker(connection.channel(), secrets.token_hex(4))
    speaker.dialect = Tutorial(speaker.queue, speaker.function, convert=lambda text: int(float(text)))
    serve(serving, speaker)

    for body in (b'', b'four', b'nan', b'1e999', b'x' * MEGABYTE, b'4\n4', '\N{SNOWMAN}'.encode()):
        assert 'makes no sense' in speaker.refusal(body)

    assert all(len(line) < 1500 and '\n' not in line for line in said(caplog, 'makes no sense'))
    speaker.check_server_well()


# -- requests: properties ----------------------------------------------------------------------------------------------


def without(*names: str) -> Callable[[Speaker], dict[str, Any]]:
    """A good request's properties but for the id, or the address, or both."""

    def properties(speaker: Speaker) -> dict[str, Any]:
        left_out = [getattr(speaker, name) for name in names]
        return {name: value for name, value in speaker.properties().items() if name not in left_out}

    return properties


@SERVER
@pytest.mark.parametrize('left_out', [('id',), ('address',), ('id', 'address')], ids=' and '.join)
def test_a_request_whose_sender_cannot_be_told_is_dropped_without_running(
    serving: Server, speaker: Speaker, caplog: pytest.LogCaptureFixture, left_out: tuple[str, ...]
) -> None:
    run: list[Any] = []
    serve(serving, speaker, lambda n: (run.append(n), n * 2)[1])

    for body in (speaker.good(), b'no request'):
        speaker.send(body, without(*left_out)(speaker))

    if left_out == ('id',) and isinstance(speaker, TutorialSpeaker):
        # The first of the tutorials knew no ids.
        assert [speaker.take().body, speaker.take().body] == [b'8', b'no request' * 2]
        run.clear()
    else:
        assert eventually(lambda: len(said(caplog, 'is dropped')) == 2)
    assert run == []
    speaker.check_server_well()


@SERVER
@pytest.mark.parametrize('raw', [b'', b'\0', b'x' * 255, b'\xff\xfe' * 127, b'\xed\xa0\x80', b'\r\n'])
def test_an_id_of_any_bytes_comes_back_as_it_is(serving: Server, speaker: Speaker, raw: bytes) -> None:
    serve(serving, speaker)
    values = {speaker.id_flag: raw, speaker.address_flag: speaker.replies.encode()}
    if speaker.address != 'reply_to':
        values[REPLY_TO] = speaker.function.encode()

    for body in (speaker.good(), b'\x80'):
        # In the order of their flags, the highest first.
        flags = sorted(values, reverse=True)
        speaker.send_raw(sum(flags), b''.join(short(values[flag]) for flag in flags), body)
        reply = speaker.take()
        assert reply.properties[speaker.id].encode('utf-8', 'surrogateescape') == raw

    speaker.check_server_well()


TABLES = {
    'nested 1,000 deep': nested_table(1000),
    'a name that is not UTF-8': long(short(b'\xff') + b'S' + long(b'\xff')),
    'what amphora says itself': long(short(b'x-amphora-deliveries') + b'S' + long(b'many')),
    'an error': long(short(b'error') + b'S' + long(b'no')),
    'a moment in a time to come': long(short(b'From') + b'T' + b'\xff' * 8),
}


@SERVER
@pytest.mark.parametrize('table', TABLES)
def test_headers_of_any_shape_are_ignored(serving: Server, speaker: Speaker, table: str) -> None:
    serve(serving, speaker)
    values = {speaker.id_flag: b'1', speaker.address_flag: speaker.replies.encode()}
    if speaker.address != 'reply_to':
        values[REPLY_TO] = speaker.function.encode()
    flags = sorted(values, reverse=True)

    raw = TABLES[table] + b''.join(short(values[flag]) for flag in flags)
    speaker.send_raw(HEADERS | sum(flags), raw, speaker.good())

    assert speaker.told(speaker.take()) == (True, speaker.eight)
    speaker.check_server_well()


@SERVER
def test_every_other_property_is_ignored(serving: Server, speaker: Speaker) -> None:
    serve(serving, speaker)
    longest = 'x' * 255
    odd = {'content_type': longest, 'content_encoding': 'zstd', 'priority': 255, 'timestamp': 2**64 - 1}
    odd |= {'type': longest, 'app_id': longest, 'cluster_id': longest, 'expiration': '4294967295'}

    speaker.send(speaker.good(), speaker.properties(**odd, headers={'trace': {'a': [1]}, 'error': 5, 'From': None}))

    assert speaker.told(speaker.take()) == (True, speaker.eight)
    speaker.check_server_well()


@SERVER
@pytest.mark.parametrize('name', ['', 'missing', 'x' * 255, '__class__', 'a\nb', '\udcff\udcfe'])
def test_a_function_that_is_not_there_is_refused_by_amqprpc(serving: Server, connection: Connection, name: str) -> None:
    speaker = AmqpRpcSpeaker(connection.channel(), secrets.token_hex(4))
    serve(serving, speaker)

    refusal = speaker.refusal(speaker.good(), speaker.properties(reply_to=name))

    assert refusal.startswith('unknown function ' if name else 'the request names no function')
    speaker.check_server_well()


# -- where the answer goes ---------------------------------------------------------------------------------------------


@SERVER
@pytest.mark.parametrize('address', ['nobody', 'nothing', 'no UTF-8', 'its own queue', 'the queue of another'])
def test_an_answer_to_where_nobody_waits_goes_nowhere(
    serving: Server, speaker: Speaker, connection: Connection, service: str, address: str
) -> None:
    run: list[Any] = []
    serve(serving, speaker, lambda n: (run.append(n), n * 2)[1])
    other = TutorialSpeaker(connection.channel(), secrets.token_hex(4))
    serving(named={other.function: run.append}, dialects=[other.dialect], service=f'{service}-other')
    addresses = {
        'nobody': b'nobody',
        'nothing': b'',
        'no UTF-8': b'\xff\xfe',
        'its own queue': speaker.queue.encode(),
        'the queue of another': other.queue.encode(),
    }

    values = {speaker.id_flag: b'1', speaker.address_flag: addresses[address]}
    if speaker.address != 'reply_to':
        values[REPLY_TO] = speaker.function.encode()
    flags = sorted(values, reverse=True)
    raw = b''.join(short(values[flag]) for flag in flags)
    for body in (speaker.good(), b'\x80'):
        speaker.send_raw(sum(flags), raw, body)

    speaker.check_server_well()
    other.send(b'4')
    assert other.take().body == b'None'
    # The answers are dropped there, but for those of amqprpc, which look like the tutorial's requests.
    eventually(lambda: connection.channel().queue.declare(other.queue, passive=True).message_count == 0)
    assert len(run) < 6
    speaker.check_server_well()


# -- too much, and tasks -----------------------------------------------------------------------------------------------


@SERVER
def test_a_flood_of_bad_requests_waits_in_the_queue_and_ends(serving: Server, reader: Speaker) -> None:
    serve(serving, reader, prefetch=5)

    for _ in range(300):
        reader.send(b'\x80')

    told = [reader.told(reader.take()) for _ in range(300)]
    assert not [well for well, _ in told if well]
    reader.check_server_well()


@SERVER
@pytest.mark.parametrize('format', [Pickle, Json, GzipJson])
def test_tasks_that_make_no_sense_are_dropped(
    serving: Server, connection: Connection, format: type[Format], caplog: pytest.LogCaptureFixture
) -> None:
    done: list[Any] = []
    task, channel = f'task_{secrets.token_hex(4)}', connection.channel()
    # Not even when others are tried again.
    serving(named={task: lambda n: done.append(n)}, dialects=[AioPikaMaster(format)], on_failure='requeue')
    bad = [*(make() for make in NO_BODIES.values()), *packed(format, *NO_MAPPINGS)]

    for body in bad:
        channel.basic.publish(Message(body, reply_to=task, correlation_id='1', type='call'), '', task)
    channel.basic.publish(Message(format.pack({'n': 4})), '', task)

    eventually(lambda: done == [4], 20)
    eventually(lambda: channel.queue.declare(task, passive=True).message_count == 0)
    assert len(said(caplog, 'makes no sense')) == len(bad)


@SERVER
def test_a_server_that_stops_takes_nothing_with_it_of_what_it_has_not_begun(
    serving: Server, speaker: Speaker, gate: Gate
) -> None:
    wait = gate.function()
    server = serve(serving, speaker, lambda n: wait(n) * 2, prefetch=1)
    for _ in range(3):
        speaker.send(speaker.good())
    assert eventually(lambda: gate.entered)

    stopping = gevent.spawn(server.stop)
    gate.open()
    stopping.get(timeout=10)
    server.serve()

    assert [speaker.told(speaker.take()) for _ in range(3)] == [(True, speaker.eight)] * 3


# -- replies -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def calling(client: Client, speaker: Speaker) -> AmqpRpcClient:
    """A client whose requests come to the speaker."""
    speaker.listen()
    return client(dialect=speaker.dialect)


def outcome(result: Any) -> Exception:
    with pytest.raises(AmphoraError) as caught:
        result.get(timeout=5)
    return caught.value


STRAYS: dict[str, Callable[[str], str | None]] = {
    'no id': lambda id: None,
    'an empty id': lambda id: '',
    'an id that is not UTF-8': lambda id: '\udcff\udcfe',
    'an id with more behind it': lambda id: id + ' ',
    'the id of nobody': lambda id: id[::-1] + '0',
    'an id of 255 bytes': lambda id: 'x' * 255,
}


@CLIENT
@pytest.mark.parametrize('stray', STRAYS)
def test_a_reply_to_nothing_that_was_asked_is_ignored(calling: AmqpRpcClient, speaker: Speaker, stray: str) -> None:
    result = speaker.call(calling)
    request = speaker.next_request()

    speaker.reply(request, speaker.reply_body(), **{speaker.id: STRAYS[stray](request.properties[speaker.id])})
    eventually(lambda: calling.ignored_replies == 1)
    assert not result.ready()
    for _ in range(2):
        speaker.reply(request, speaker.reply_body())

    assert result.get(timeout=5) == 8
    eventually(lambda: calling.ignored_replies == 2)
    speaker.check_client_well(calling)


@CLIENT
@pytest.mark.parametrize('body', NO_BODIES)
def test_a_reply_that_is_none_is_a_wrong_result(client: Client, reader: Speaker, body: str) -> None:
    reader.listen()
    calling = client(dialect=reader.dialect)
    result = reader.call(calling)

    reader.reply(reader.next_request(), NO_BODIES[body]())

    if type(reader) is AioPikaSpeaker and 'runs code' in body:
        assert 'system' in repr(result.get(timeout=5))  # what it would have run, as a description
    else:
        error = outcome(result)
        assert type(error) is WrongResult
        assert 'cannot be read' in str(error)
    reader.check_client_well(calling)


DEEP_LIST: Any = 5
for _ in range(150):
    DEEP_LIST = [DEEP_LIST]

# Of replies: properties and body, and what a caller gets.
BAD_REPLIES: dict[str, tuple[type[Speaker], dict[str, Any], bytes, type[Exception]]] = {
    'tutorial: an error without text': (TutorialSpeaker, {'headers': {'x-amphora-error': ''}}, b'', RemoteException),
    'amqprpc: an error that is a number': (AmqpRpcSpeaker, {'headers': {'error': 5}}, b'', RemoteException),
    'amqprpc: an error that is a table': (AmqpRpcSpeaker, {'headers': {'error': {'a': 1}}}, b'8', RemoteException),
    'amqprpc: an error that is bytes': (AmqpRpcSpeaker, {'headers': {'error': b'\xff'}}, b'', RemoteException),
    'amqprpc: an error without text': (AmqpRpcSpeaker, {'headers': {'error': ''}}, b'', RemoteException),
    'amqprpc: a long error': (AmqpRpcSpeaker, {'headers': {'error': 'x' * 100_000}}, b'', RemoteException),
    'amqprpc: no function': (AmqpRpcSpeaker, {'headers': {'error': 'unknown function x'}}, b'', WrongRequest),
    'RabiBridge: nothing': (RabiBridgeSpeaker, {}, MsgPack.pack([]), WrongResult),
    'RabiBridge: no pair': (RabiBridgeSpeaker, {}, MsgPack.pack([0, 8, 9]), WrongResult),
    'RabiBridge: a mapping': (RabiBridgeSpeaker, {}, MsgPack.pack({'a': 1, 'b': 2}), WrongResult),
    'RabiBridge: a text': (RabiBridgeSpeaker, {}, MsgPack.pack('08'), WrongResult),
    'RabiBridge: a request': (RabiBridgeSpeaker, {}, MsgPack.pack([[4], {}]), WrongResult),
    'RabiBridge: a flag that is none': (RabiBridgeSpeaker, {}, MsgPack.pack(['0', 8]), WrongResult),
    'RabiBridge: an error that is null': (RabiBridgeSpeaker, {}, MsgPack.pack([1, None]), RemoteException),
    'RabiBridge: an error that is deep': (RabiBridgeSpeaker, {}, MsgPack.pack([1, DEEP_LIST]), RemoteException),
    'RabiBridge: an error without text': (RabiBridgeSpeaker, {}, MsgPack.pack([1, '']), RemoteException),
    'RabiBridge: blanks': (RabiBridgeSpeaker, {}, MsgPack.pack([1, ' \n' * MEGABYTE]), RemoteException),
    'RabiBridge: a pickled class': (
        PickleRabiBridgeSpeaker,
        {},
        pickle.dumps([1, ValueError('no')]),
        RemoteException,
    ),
    'aio-pika: no type': (AioPikaSpeaker, {'type': None}, Pickle.pack(8), WrongResult),
    'aio-pika: another type': (AioPikaSpeaker, {'type': 'x' * 255}, Pickle.pack(8), WrongResult),
    'aio-pika: an error that is none': (AioPikaSpeaker, {'type': 'error'}, Pickle.pack(8), RemoteException),
    'aio-pika: an error that is a class': (AioPikaSpeaker, {'type': 'error'}, pickle.dumps(OSError), RemoteException),
    'aio-pika: one that runs code': (AioPikaSpeaker, {'type': 'error'}, pickle.dumps(Exploding()), RemoteException),
    'aio-pika: null': (JsonAioPikaSpeaker, {'type': 'error'}, b'null', RemoteException),
    'aio-pika: an empty error': (JsonAioPikaSpeaker, {'type': 'error'}, b'{"error": {}}', RemoteException),
    'aio-pika: an error of numbers': (
        JsonAioPikaSpeaker,
        {'type': 'error'},
        b'{"error": {"type": 5, "message": 6, "args": 7}}',
        RemoteException,
    ),
    'aio-pika: an error of deep lists': (
        JsonAioPikaSpeaker,
        {'type': 'error'},
        Json.pack({'error': {'type': DEEP_LIST, 'args': [DEEP_LIST]}}),
        RemoteException,
    ),
    'aio-pika: a wrong request': (
        JsonAioPikaSpeaker,
        {'type': 'error'},
        b'{"error": {"type": "WrongRequest", "args": [null, {}]}}',
        WrongRequest,
    ),
}


@CLIENT
@pytest.mark.parametrize('reply', BAD_REPLIES)
def test_a_reply_that_is_bad_is_an_error(client: Client, connection: Connection, reply: str) -> None:
    kind, properties, body, expected = BAD_REPLIES[reply]
    speaker = kind(connection.channel(), secrets.token_hex(4))
    speaker.listen()
    calling = client(dialect=speaker.dialect)
    result = speaker.call(calling)

    speaker.reply(speaker.next_request(), body, **properties)

    error = outcome(result)
    assert type(error) is expected
    assert isinstance(str(error), str)
    speaker.check_client_well(calling)


@CLIENT
@pytest.mark.parametrize('table', [table for table in TABLES if table != 'an error'])
def test_headers_of_a_reply_are_ignored_whatever_their_shape(
    calling: AmqpRpcClient, speaker: Speaker, table: str
) -> None:
    if isinstance(speaker, AioPikaSpeaker):
        speaker.reply_properties = dict  # type: ignore[method-assign,assignment]
    result = speaker.call(calling)
    request = speaker.next_request()

    raw = TABLES[table] + short(request.properties[speaker.id].encode())
    speaker.reply_raw(request, HEADERS | speaker.id_flag, raw, speaker.reply_body())

    if isinstance(speaker, AioPikaSpeaker):
        assert type(outcome(result)) is WrongResult  # it has no type
    else:
        assert result.get(timeout=5) == 8


@CLIENT
def test_a_reply_to_a_task_is_no_answer(client: Client, connection: Connection) -> None:
    channel, task = connection.channel(), f'task_{secrets.token_hex(4)}'
    channel.queue.declare(task)
    calling = client(dialect=AioPikaMaster())

    calling.cast(function_name=task)(n=4)
    request = eventually(lambda: channel.basic.get(task, no_ack=True))
    replies = f'rpc_{calling.service_name}_{calling.uuid}_response'
    late = Message(Pickle.pack(8), correlation_id=request.properties['correlation_id'], type='result')
    channel.basic.publish(late, '', replies)

    eventually(lambda: calling.ignored_replies == 1)
    calling.cast(function_name=task)(n=4)
