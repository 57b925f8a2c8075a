"""amqprpc, as Go and Python put it on the wire (by hand: neither is on PyPI), in conversation with amphora."""

from collections.abc import Callable
from typing import Any

import pytest
from gevent.event import Event

from amphora import NoResult, RemoteException, WrongRequest
from amphora.amqp import Connection, Message
from amphora.dialects import AmqpRpc, Json, MsgPack
from tests.parties import Client, Server
from tests.peers.amqprpc import (
    GO_JSON,
    GO_MSGPACK,
    PYTHON_JSON,
    PYTHON_MSGPACK,
    Formatter,
    GoClient,
    GoServer,
    PythonClient,
    PythonServer,
    RPCError,
)
from tests.waiting import eventually

InThread = Callable[..., Any]
Name = Callable[[str], str]

FORMATS = [
    pytest.param(Json, PYTHON_JSON, id='json'),
    pytest.param(Json, GO_JSON, id='json of go'),
    pytest.param(MsgPack, PYTHON_MSGPACK, id='msgpack'),
    pytest.param(MsgPack, GO_MSGPACK, id='msgpack of go'),
]
VALUES = [
    None,
    True,
    0,
    -1,
    127,
    2**40,
    -(2**63),
    1.5,
    '',
    '<grüße> 😀',
    'ä' * 300,
    [],
    list(range(20)),
    {'a': {'b': [1]}},
]


class Calculator:
    def mul(self, args: dict[str, int]) -> int:
        return args['A'] * args['B']


def fail(value: Any) -> Any:
    raise ValueError('no %s' % value)


def echo(value: Any) -> Any:
    return value


FUNCTIONS = {'Server.mul': Calculator().mul, 'Server.echo': echo, 'Server.fail': fail}


@pytest.fixture
def codec(name: Name) -> str:
    return name('testrpc')


# -- they call ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('theirs', [PythonClient, GoClient])
@pytest.mark.parametrize(('format', 'formatter'), FORMATS)
def test_they_get_results_and_errors(
    serving: Server, url: str, in_thread: InThread, codec: str, theirs: Any, format: Any, formatter: Formatter
) -> None:
    serving(named=FUNCTIONS, dialects=[AmqpRpc(codec, format)])

    def call() -> tuple[Any, list[Any], list[str]]:
        with theirs(url, codec, formatter) as calling:
            product = calling.call('Server.mul', {'A': 2, 'B': 3})
            echoed = [calling.call('Server.echo', value) for value in VALUES]
            errors = []
            for function in ('Server.fail', 'Server.missing'):
                with pytest.raises(RPCError) as caught:
                    calling.call(function, 4)
                errors.append(str(caught.value))
            return product, echoed, errors

    assert in_thread(call) == (6, VALUES, ['no 4', 'unknown function Server.missing'])


@pytest.mark.parametrize('theirs', [PythonClient, GoClient])
def test_their_replies_are_as_the_wire_says(
    serving: Server, url: str, in_thread: InThread, codec: str, theirs: Any
) -> None:
    serving(named=FUNCTIONS, dialects=[AmqpRpc(codec)])

    def call() -> tuple[list[Any], str]:
        with theirs(url, codec, GO_JSON) as calling:
            calling.call('Server.mul', {'A': 2, 'B': 3})
            with pytest.raises(RPCError):
                calling.call('Server.fail', 4)
            return [calling.replies[number] for number in sorted(calling.replies)], calling.reply_queue

    [result, error], reply_queue = in_thread(call)
    first = 0 if theirs is GoClient else 1
    assert result.body == b'6'
    assert result.properties.message_id == str(first)
    assert result.properties.correlation_id == reply_queue
    assert result.properties.reply_to == 'Server.mul'
    assert not result.properties.headers
    assert error.body == b'null'
    assert error.properties.message_id == str(first + 1)
    assert error.properties.headers == {'error': 'no 4'}


@pytest.mark.parametrize('theirs', [PythonClient, GoClient])
def test_they_call_a_hundred_times_at_once(
    serving: Server, url: str, in_thread: InThread, codec: str, theirs: Any
) -> None:
    serving(named=FUNCTIONS, dialects=[AmqpRpc(codec)])

    def call() -> list[Any]:
        with theirs(url, codec, GO_JSON) as calling:
            numbers = [calling.start('Server.mul', {'A': number, 'B': 2}) for number in range(100)]
            return [calling.finish(number) for number in numbers]

    assert in_thread(call) == [2 * number for number in range(100)]


def test_an_answer_into_the_request_queue_is_no_request(
    serving: Server, client: Client, url: str, codec: str, caplog: pytest.LogCaptureFixture
) -> None:
    run = []
    serving(named={'Server.note': run.append, 'Server.echo': echo}, dialects=[AmqpRpc(codec)])

    with Connection.from_url(url) as connection:
        # A reply echoes all that makes a request: here it would be one.
        loop = Message(b'1', reply_to='Server.note', correlation_id=codec, message_id='1')
        connection.channel().basic.publish(loop, '', codec)
        assert eventually(lambda: [each for each in caplog.records if 'is dropped' in each.getMessage()])

    assert client(dialect=AmqpRpc(codec)).call.Server.echo(5) == 5
    assert run == []


def test_bytes_pass_in_messagepack(serving: Server, client: Client, codec: str) -> None:
    serving(named=FUNCTIONS, dialects=[AmqpRpc(codec, MsgPack)])

    assert client(dialect=AmqpRpc(codec, MsgPack)).call.Server.echo(b'\xff\x00') == b'\xff\x00'


# -- amphora calls -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('theirs', [PythonServer, GoServer])
@pytest.mark.parametrize(('format', 'formatter'), FORMATS)
def test_their_results_and_errors_are_got(
    client: Client, url: str, codec: str, theirs: Any, format: Any, formatter: Formatter
) -> None:
    with theirs(url, codec, formatter, FUNCTIONS):
        calling = client(dialect=AmqpRpc(codec, format))

        assert calling.call.Server.mul({'A': 2, 'B': 3}) == 6
        assert [calling.call.Server.echo(value) for value in VALUES] == VALUES
        with pytest.raises(RemoteException) as caught:
            calling.call.Server.fail(4)
        assert (caught.value.error_type, caught.value.args) == ('RPCError', ('no 4',))
        with pytest.raises(WrongRequest, match=r'Server\.missing'):
            calling.call.Server.missing(4)


@pytest.mark.parametrize('theirs', [PythonServer, GoServer])
def test_a_request_is_as_the_wire_says(client: Client, url: str, codec: str, theirs: Any) -> None:
    with theirs(url, codec, GO_JSON, FUNCTIONS) as server:
        calling = client(dialect=AmqpRpc(codec))
        calling.call.Server.mul({'A': 2, 'B': 3})
        calling.call.Server.echo('ä')

        first, second = server.requests
    assert first.body == b'{"A":2,"B":3}'
    assert first.properties.reply_to == 'Server.mul'
    assert first.properties.correlation_id == f'rpc_{calling.service_name}_{calling.uuid}_response'
    assert first.properties.content_type is None
    assert int(second.properties.message_id) == int(first.properties.message_id) + 1 < 1 << 64


@pytest.mark.parametrize('theirs', [PythonServer, GoServer])
def test_they_are_called_a_hundred_times_at_once(client: Client, url: str, codec: str, theirs: Any) -> None:
    with theirs(url, codec, GO_JSON, FUNCTIONS):
        calling = client(dialect=AmqpRpc(codec))

        results = [calling.defer.Server.mul({'A': number, 'B': 2}) for number in range(100)]

        assert [result.get() for result in results] == [2 * number for number in range(100)]


def test_what_is_not_answered_in_time_has_no_result(serving: Server, client: Client, codec: str) -> None:
    leave = Event()
    serving(named={'Server.wait': lambda _: leave.wait()}, dialects=[AmqpRpc(codec)])

    with pytest.raises(NoResult):
        client(dialect=AmqpRpc(codec)).call(timeout=0.3).Server.wait(1)

    leave.set()


def test_a_call_waits_for_a_server_that_is_still_to_come(client: Client, serving: Server, codec: str) -> None:
    result = client(dialect=AmqpRpc(codec)).defer(wait_publish=True).Server.echo(1)

    serving(named=FUNCTIONS, dialects=[AmqpRpc(codec)])

    assert result.get() == 1


@pytest.mark.parametrize(('args', 'kwargs'), [((), {}), ((1, 2), {}), ((1,), {'x': 1})])
def test_exactly_one_argument_can_be_sent(
    client: Client, codec: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    with pytest.raises(TypeError, match='one positional argument'):
        client(dialect=AmqpRpc(codec)).call.Server.echo(*args, **kwargs)


def test_a_formatter_must_pack_and_unpack() -> None:
    with pytest.raises(TypeError, match='pack and unpack'):
        AmqpRpc(formatter=object())
