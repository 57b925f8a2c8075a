"""Random, mutated and cut bytes against everything that reads bytes.

`--fuzz-seconds` are divided among the properties; `make fuzz` gives them an hour.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import datetime, timezone
from decimal import Decimal
from inspect import signature
from json import dumps
from typing import Any

import gevent
import pytest
from gevent import socket
from hypothesis import strategies as st
from pamqp import base, commands, exceptions, frame

from amphora import RemoteException, RpcJsonSerializer, WrongRequest, WrongResult
from amphora.amqp import AmqpUrl, Closed, Connection, Message, frames
from amphora.amqp.content import ContentAssembler
from amphora.amqp.deliveries import read_delivery
from amphora.amqp.fields import field_table, read_field_table
from amphora.amqp.message import DeliveryInfo
from amphora.amqp.properties import NAMES, decode_header, encode_header
from amphora.broker import Broker
from amphora.errors import AmqpError
from tests.amqp.drawing import refused, sized
from tests.amqp.scripted import raw_frame
from tests.hostile.fuzzing import Fuzz, Rates
from tests.hostile.mutating import Frame, changed, mutated
from tests.hostile.recording import FRAME_MAX, Recording, Straw, Turn, record, talk
from tests.parties import Client, Server
from tests.rabbitmq import HOST, RabbitNode, free_ports
from tests.waiting import eventually

pytestmark = [pytest.mark.row('fuzzing'), pytest.mark.limit(60, fuzz=True)]


@pytest.fixture(scope='module')
def rates(request: pytest.FixtureRequest) -> Rates:
    made = Rates()
    request.config.pluginmanager.register(made, 'rates')
    return made


@pytest.fixture
def fuzz(request: pytest.FixtureRequest, rates: Rates) -> Iterator[Fuzz]:
    """Tries a property, for its share of the time."""
    tests = [each for name, each in vars(request.module).items() if name.startswith('test_')]
    # One more for what the tests do beside fuzzing.
    shares = 1 + sum('fuzz' in signature(test).parameters for test in tests)
    made = Fuzz(request.config.getoption('--fuzz-seconds') / shares)
    yield made
    rates.add(request.node.name, made)


@pytest.fixture(scope='module')
def recording(rabbit: RabbitNode) -> Recording:
    """A session of amphora with RabbitMQ."""
    return record(rabbit.port)


def split(data: bytes, frame_max: int = 131072) -> list[Frame]:
    return list(frames.Splitter(frame_max).feed(data))


def understand(pieces: Iterable[bytes], frame_max: int = 131072) -> list[Any]:
    """What a connection makes of bytes: methods and messages.

    :raises Closed: nothing.
    """
    made: list[Any] = []
    assemblers: defaultdict[int, ContentAssembler] = defaultdict(lambda: ContentAssembler(100_000))

    def take(data: bytes, at: int, frame_max: int) -> int:
        delivery = read_delivery(data, at, frame_max)
        if delivery is None:
            return 0
        stop, channel, method, *how, properties, body = delivery
        assemblers[channel].check_whole(body)
        assert tuple(how) == frames.decode_deliver(method)
        made.append(delivered(method, properties, body))
        return stop

    splitter = frames.Splitter(frame_max, take)
    for piece in pieces:
        for kind, channel, payload in splitter.feed(piece):
            assembler = assemblers[channel]
            name = payload[:4]
            if kind == frames.METHOD and name in (frames.BASIC_DELIVER, frames.BASIC_GET_OK, frames.BASIC_RETURN):
                assembler.begin(payload)
            elif kind == frames.METHOD and name in (frames.BASIC_ACK, frames.BASIC_NACK):
                made.append(frames.decode_ack(payload))
            elif kind == frames.METHOD:
                made.append(told(frames.decode_method(payload)))
            elif kind == frames.PART:
                assembler.part(payload)
            elif (kind == frames.HEADER and assembler.header(payload)) or (
                kind == frames.BODY and assembler.body(payload)
            ):
                method, properties, body = assembler.take()
                if method[:4] == frames.BASIC_DELIVER:
                    made.append(delivered(method, properties, body))
                else:
                    made.append((told(frames.decode_method(method)), properties, body))
    return made


def delivered(method: bytes, properties: dict[str, Any], body: bytes) -> tuple[str, dict[str, Any], bytes]:
    return repr(DeliveryInfo(method, *frames.decode_deliver(method))), properties, body


def told(method: base.Frame) -> tuple[str, dict[str, Any]]:
    return method.name, dict(method)


# -- what is encoded comes back as it was ------------------------------------------------------------------------------

texts = st.text(st.characters(codec='utf-8'), max_size=60)
table_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
    | st.binary(max_size=20)
    | st.integers(0, 2**33).map(lambda seconds: datetime.fromtimestamp(seconds, timezone.utc))
    | st.builds(
        lambda digits, scale: Decimal(digits).scaleb(-scale), st.integers(-(2**31), 2**31 - 1), st.integers(0, 9)
    ),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=12,
)
field_tables = st.dictionaries(st.text(st.characters(codec='utf-8'), max_size=32), table_values, max_size=6)
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    'bit': st.booleans(),
    'octet': st.integers(0, 255),
    'short': st.integers(0, 2**16 - 1),
    'long': st.integers(0, 2**32 - 1),
    'longlong': st.integers(0, 2**64 - 1),
    'shortstr': texts,
    'longstr': st.binary(max_size=300),
    'table': field_tables,
}


def methods() -> st.SearchStrategy[tuple[type[base.Frame], dict[str, Any]]]:
    return st.sampled_from(sorted(commands.INDEX_MAPPING.values(), key=lambda kind: kind.index)).flatmap(
        lambda kind: st.tuples(
            st.just(kind), st.fixed_dictionaries({name: FIELDS[kind.amqp_type(name)] for name in kind.attributes()})
        )
    )


def test_methods_come_back_as_they_were(fuzz: Fuzz) -> None:
    @fuzz(st.integers(0, 65535), methods())
    def check(channel: int, method: tuple[type[base.Frame], dict[str, Any]]) -> None:
        kind, fields = method
        [(what, number, payload)] = split(frames.encode_method(channel, kind, **fields))
        decoded = frames.decode_method(payload)
        assert (what, number, type(decoded)) == (frames.METHOD, channel, kind)
        assert {name: getattr(decoded, name) for name in fields} == fields


properties = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(NAMES, texts),
        'headers': field_tables,
        'delivery_mode': st.integers(0, 255),
        'priority': st.integers(0, 255),
        'timestamp': st.integers(0, 2**64 - 1),
    },
)


def test_properties_and_field_tables_come_back_as_they_were(fuzz: Fuzz) -> None:
    @fuzz(st.integers(0, 2**64 - 1), properties)
    def check(size: int, given: dict[str, Any]) -> None:
        [(kind, channel, payload)] = split(encode_header(7, size, given))
        assert (kind, channel) == (frames.HEADER, 7)
        assert decode_header(payload) == (size, given)


def test_frames_come_back_as_they_were_in_whatever_pieces(fuzz: Fuzz) -> None:
    one = st.tuples(st.integers(0, 255), st.integers(0, 65535), st.binary(max_size=100))

    @fuzz(st.lists(one, max_size=12), st.lists(st.integers(1, 40), max_size=12))
    def check(these: list[Frame], sizes: list[int]) -> None:
        data = b''.join(raw_frame(*each) for each in these)
        splitter = frames.Splitter()
        assert [each for piece in cut(data, sizes) for each in splitter.feed(piece)] == these


def cut(data: bytes, sizes: list[int]) -> Iterator[bytes]:
    for size in sizes:
        yield data[:size]
        data = data[size:]
    yield data


# -- a recorded session ------------------------------------------------------------------------------------------------


def test_a_recorded_session_is_understood_the_same_wherever_it_is_cut(recording: Recording) -> None:
    said = recording.broker
    whole, understood = split(said), understand([said])
    assert len(understood) >= 25

    for at in range(len(said) + 1):
        splitter = frames.Splitter()
        assert [*splitter.feed(said[:at]), *splitter.feed(said[at:])] == whole
    # Whoever is given the frames does not know of the pieces, so a few cuts will do.
    for at in range(0, len(said), 97):
        assert understand([said[:at], said[at:]]) == understood


def test_a_session_goes_the_same_way_in_whatever_pieces_its_bytes_come(fuzz: Fuzz, recording: Recording) -> None:
    whole = understand([recording.broker])
    with Straw().listening() as straw:
        straw.turns = recording.turns

        @fuzz(st.lists(st.integers(1, 500), max_size=20))
        def check(sizes: list[int]) -> None:
            assert understand(cut(recording.broker, sizes)) == whole
            straw.pieces = sizes
            assert talk(straw.port) == recording.outcome


def test_decoders_end_mutated_bytes_with_an_error_of_amqp_or_none(fuzz: Fuzz, recording: Recording) -> None:
    @fuzz(mutated(recording.broker, split) | st.binary(max_size=200))
    def check(data: bytes) -> None:
        error = refused(understand, [data], FRAME_MAX)
        assert error is None or (error.text and error.code in (501, 502, 505))


def test_field_tables_of_mutated_bytes_are_read_or_an_error_of_amqp(fuzz: Fuzz) -> None:
    table = {
        'a': {'b': [1, 2.5, 'c', None, datetime(2024, 2, 29, tzinfo=timezone.utc)]},
        'd': b'e',
        'f': Decimal('1.5'),
    }
    data = field_table(table, 'a table')[4:]

    @fuzz(changed(data, 8))
    def check(data: bytes) -> None:
        error = refused(read_field_table, sized(data), 0)
        if error is None:
            read, end = read_field_table(sized(data), 0)
            assert end == 4 + len(data)
            repr(read)
        else:
            assert error.text


def test_a_connection_to_a_broker_that_says_mutated_bytes_ends_and_says_why(fuzz: Fuzz, recording: Recording) -> None:
    # In turn up to a point, so that the client is in every state; from there on mutated and all at once.
    answers = [turn.answer for turn in recording.turns]
    changes = st.one_of(*(st.tuples(st.just(at), mutated(answer, split)) for at, answer in enumerate(answers)))
    with Straw().listening() as straw:

        @fuzz(changes)
        def check(change: tuple[int, bytes]) -> None:
            at, data = change
            rest = b''.join(answers[at + 1 :])
            straw.turns = [*recording.turns[:at], Turn(recording.turns[at].frames, data + rest)]
            try:
                talk(straw.port)
            except AmqpError as error:
                why = str(error)
            else:
                why = 'nothing that mattered was changed'
            assert why


# -- pamqp's opinion ---------------------------------------------------------------------------------------------------


def second_opinion(data: bytes) -> tuple[list[Frame], bool]:
    """The frames that pamqp sees, and whether it then finds fault with the stream.

    Every payload is shown to it as a body's: its decoders of tables do not end with every table.
    """
    seen: list[Frame] = []
    while data:
        kind, channel, size = frame.frame_parts(data)
        if size is None or size + 8 > len(data):
            return seen, size is not None and size + 8 > FRAME_MAX
        if size + 8 > FRAME_MAX:
            return seen, True
        if size == 0:
            # It takes no frame without a payload but a heartbeat, of which it does not look at the end.
            if data[7] != 0xCE:
                return seen, True
            seen.append((kind, channel, b''))
            data = data[8:]
            continue
        try:
            used, channel, body = frame.unmarshal(b'\x03' + data[1:])
        except exceptions.UnmarshalingException:
            return seen, True
        seen.append((kind, channel, body.value))
        data = data[used:]
    return seen, False


def test_the_splitter_sees_what_pamqp_sees(fuzz: Fuzz, recording: Recording) -> None:
    @fuzz(mutated(recording.broker, split) | st.binary(max_size=200))
    def check(data: bytes) -> None:
        seen, faulty = [], False
        try:
            for each in frames.Splitter(FRAME_MAX).feed(data):
                seen.append(each)
        except Closed:
            faulty = True
        assert (seen, faulty) == second_opinion(data)


# -- what is in messages -----------------------------------------------------------------------------------------------

CALL = RpcJsonSerializer.serialize_call('double', [21], {'a': None, 'b': [1.5, {'c': 'd'}]})
RESULTS = [
    RpcJsonSerializer.serialize_result({'a': [1, None, 2.5, 'text']}),
    RpcJsonSerializer.serialize_result(ValueError('text', 1)),
    RpcJsonSerializer.serialize_result(WrongRequest('text')),
]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=6,
)


def json_of(names: list[str]) -> st.SearchStrategy[bytes]:
    """JSON objects with some of these names, and what is no JSON only because of its numbers."""
    values = json_values | st.sampled_from(['double', 'WrongRequest', 'os.system', '__class__', 'add.__globals__'])
    return st.dictionaries(st.sampled_from(names), values, max_size=len(names)).map(lambda value: dumps(value).encode())


bodies = st.one_of(changed(CALL), st.binary(max_size=60), json_of(['func', 'args', 'kwargs', 'result']))
results = st.one_of(
    *map(changed, RESULTS),
    st.binary(max_size=60),
    json_of(['result', 'exception', 'type', 'args']),
    json_of(['type', 'args']).map(lambda fault: b'{"exception": %s}' % fault),
)
# RabbitMQ looks into some of the properties and headers, and closes the channel when it finds them wrong.
sent_headers = field_tables.map(lambda table: {name: table[name] for name in table if name not in ('CC', 'BCC')})
short = st.text(st.characters(codec='utf-8'), max_size=60) | st.binary(max_size=60).map(
    lambda raw: raw.decode('utf-8', 'surrogateescape')
)
sent_properties = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(set(NAMES) - {'user_id', 'expiration'}, short),
        'headers': sent_headers,
        'delivery_mode': st.sampled_from([1, 2]),
        'priority': st.integers(0, 255),
        'timestamp': st.integers(0, 2**63 - 1),
        'expiration': st.integers(0, 100_000).map(str),
    },
)


def test_a_server_answers_a_healthy_call_after_each_request_that_makes_no_sense(
    fuzz: Fuzz, server: Server, client: Client, service: str, rabbit: RabbitNode
) -> None:
    def double(x: int) -> int:
        return 2 * x

    server(double).wait_ready(5)
    calling = client()
    calling.call.double(1)
    with Connection(port=rabbit.port) as connection:
        channel = connection.channel()
        answers = channel.queue.declare(exclusive=True).queue
        channel.queue.bind(answers, f'rpc_{service}_response', 'mine')
        addresses = st.fixed_dictionaries(
            {},
            optional={'message_id': st.sampled_from(['', 'id', 'i' * 255]), 'reply_to': st.sampled_from(['mine', 'x'])},
        )

        @fuzz(bodies, sent_properties, addresses)
        def check(body: bytes, properties: dict[str, Any], address: dict[str, Any]) -> None:
            channel.basic.publish(Message(body, **{**properties, **address}), f'rpc_{service}_request', '')
            assert calling.call.double(21) == 42
            while (answer := channel.basic.get(answers, no_ack=True)) is not None:
                try:
                    RpcJsonSerializer.deserialize_result(answer.body)
                except (RemoteException, WrongRequest):
                    pass

        assert eventually(lambda: rabbit.list_queues()[f'rpc_{service}_request'] == (0, 1))


def test_a_client_gets_a_healthy_reply_after_each_that_makes_no_sense(
    fuzz: Fuzz, client: Client, service: str, rabbit: RabbitNode
) -> None:
    calling = client()
    with Connection(port=rabbit.port) as connection:
        channel = connection.channel()
        replies: list[tuple[dict[str, Any], bytes]] = []

        def reply(request: Message) -> None:
            asked = request.properties
            for properties, body in replies:
                own = {'message_id': asked['message_id'], 'correlation_id': asked['message_id']}
                channel.basic.publish(
                    Message(body, **{**own, **properties}), f'rpc_{service}_response', asked['reply_to']
                )

        queue = f'rpc_{service}_request'
        eventually(lambda: queue in rabbit.list_queues())
        channel.basic.consume(queue, reply, no_ack=True)

        @fuzz(results, sent_properties)
        def check(body: bytes, properties: dict[str, Any]) -> None:
            # The right one comes second: the first is passed over when its id is another.
            replies[:] = [(properties, body), ({}, RESULTS[0])]
            try:
                calling.call.anything()
            except (RemoteException, WrongRequest, WrongResult) as error:
                repr(error)
            channel.check_open()
            replies[:] = [({}, RESULTS[0])]
            assert calling.call.anything() == {'a': [1, None, 2.5, 'text']}


# -- the embedded broker -----------------------------------------------------------------------------------------------


def test_a_client_that_says_mutated_bytes_to_the_embedded_broker_ends_alone(fuzz: Fuzz, recording: Recording) -> None:
    header = frames.PROTOCOL_HEADER
    [port] = free_ports(1)
    mutations = mutated(recording.client.removeprefix(header), split)

    @fuzz(
        mutations.map(lambda data: header + data) | st.binary(max_size=100), st.lists(st.integers(1, 3000), max_size=4)
    )
    def check(data: bytes, sizes: list[int]) -> None:
        with Broker(port=port) as broker, Connection.from_url(broker.url) as other:
            channel = other.channel()
            channel.queue.declare('healthy')
            with socket.create_connection((HOST, port)) as sock:
                say(sock, cut(data, sizes))
            channel.basic.publish(Message('still here'), routing_key='healthy')
            got = channel.basic.get('healthy', no_ack=True)
            assert got is not None
            assert got.body == b'still here'
            eventually(lambda: broker.running_connections == 1)
            for name in broker.queues():
                broker.delete_queue(name)
            assert broker.meter.used == 0


DEATH = {'queue': 'full', 'reason': 'maxlen', 'count': 1, 'exchange': '', 'routing-keys': ['full']}
LETTER = encode_header(
    1, 1, {'headers': {'x-death': [DEATH], 'CC': ['quorum'], 'BCC': ['dead']}, 'expiration': '1', 'priority': 7}
)[7:-1]


def headers(table: bytes) -> bytes:
    """The payload of a content header with these headers alone."""
    return LETTER[:12] + b'\x20\x00' + sized(table)


# Each ended a neighbour's connection once, or lost its dead letters.
HURTFUL = [
    LETTER[:12] + b'\x80\x00\x09abc',
    headers(b'\xc8' + b'n' * 200 + b't\x01'),
    headers(b'\x01aT' + b'\xff' * 8),
    headers(b'\x01ad\x7f\xf0' + bytes(6)),
    headers(field_table({'x-death': [{**DEATH, 'queue': 'short', 'reason': 'expired', 'count': 'many'}]}, '')[4:]),
    headers(field_table({'x-death': [{**DEATH, 'count': 2**63 - 1}]}, '')[4:]),
]


def test_messages_with_mutated_properties_at_the_embedded_broker_hurt_their_publisher_alone(fuzz: Fuzz) -> None:
    [port] = free_ports(1)
    keys = st.lists(st.sampled_from(['quorum', 'full', 'short', 'urgent', 'dead']), min_size=1, max_size=3)

    # A neighbour consumes from queues of all kinds, and what dies in them comes to it as well.
    @fuzz(
        changed(LETTER, 6) | st.binary(max_size=40).map(LETTER[:12].__add__),
        keys,
        examples=[(header, ['quorum', 'full', 'short']) for header in HURTFUL],
    )
    def check(header: bytes, keys: list[str]) -> None:
        with Broker(port=port) as broker, Connection.from_url(broker.url) as neighbour:
            channel = neighbour.channel()
            letters = {'x-dead-letter-exchange': '', 'x-dead-letter-routing-key': 'dead'}
            channel.queue.declare('quorum', durable=True, arguments={'x-queue-type': 'quorum', **letters})
            channel.queue.declare('full', arguments={'x-max-length': 0, **letters})
            channel.queue.declare('short', arguments={'x-message-ttl': 0, **letters})
            channel.queue.declare('urgent', arguments={'x-max-priority': 9})
            channel.queue.declare('dead')
            got: list[Message] = []
            for queue in ('quorum', 'urgent', 'dead'):
                channel.basic.consume(queue, got.append, direct=True, no_ack=True)
            with Connection.from_url(broker.url) as publishing:
                publisher = publishing.channel().id
                for key in keys:
                    publish = frames.encode_publish(publisher, '', key, False)
                    publishing.write(publish + raw_frame(frames.HEADER, publisher, header))
                    publishing.write(raw_frame(frames.BODY, publisher, b'x'))
                publishing.close(timeout=0.01)
            channel.basic.publish(Message('still here'), routing_key='full')
            eventually(lambda: any(each.body == b'still here' for each in got))


def say(sock: socket.socket, pieces: Iterable[bytes]) -> None:
    """Say it, and listen to the end: the broker hangs up when nothing more comes."""
    try:
        for piece in pieces:
            sock.sendall(piece)
            gevent.sleep(0)
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(65536):
            pass
    except ConnectionError:
        pass


# -- URLs --------------------------------------------------------------------------------------------------------------

URLS = [
    'amqp://user:pass%40word@host.example:5672/vhost?heartbeat=30&connection_timeout=1000&channel_max=10&frame_max=4096',
    'amqps://[::1]:5671/a%2Fb?auth_mechanism=plain&auth_mechanism=external&name=x&verify=verify_none&cacertfile=/x',
    'amqp://',
]
words = st.sampled_from(['amqp', 's', '://', '@', ':', '/', '?', '&', '=', '%', '%2F', '[', ']', '::1', '#', '65536'])


def test_any_url_is_understood_or_a_value_error(fuzz: Fuzz) -> None:
    pieces = st.lists(words | st.text(max_size=6), max_size=12).map(''.join)
    mutations = [changed(url.encode()).map(lambda raw: raw.decode('utf-8', 'surrogateescape')) for url in URLS]

    @fuzz(st.one_of(*mutations, pieces, pieces.map('amqp://'.__add__)))
    def check(url: str) -> None:
        try:
            parsed = AmqpUrl.parse(url)
        except ValueError as error:
            repr(error)
            return
        assert parsed.host
        assert 1 <= parsed.port <= 65535
        repr(parsed)
