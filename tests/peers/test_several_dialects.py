"""One server that answers several systems at once; and what cannot be combined."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from gevent.event import AsyncResult

from amphora import (
    AmqpError,
    AmqpRpcClient,
    AmqpRpcFanoutServer,
    AmqpRpcServer,
    NoResult,
    QueueFull,
    RejectRequest,
    RemoteException,
    Unroutable,
)
from amphora.amqp import Connection
from amphora.dialects import AioPikaMaster, AioPikaRpc, AmqpRpc, Dialect, Json, MsgPack, RabiBridge, Tutorial
from tests.parties import Client, Gate, Server
from tests.rabbitmq import RabbitNode
from tests.waiting import eventually

Name = Callable[[str], str]


def double(n: Any) -> Any:
    return n * 2


def test_one_server_speaks_all_of_them_and_its_own(serving: Server, client: Client, name: Name) -> None:
    double_ = name('double')
    dialects = [Tutorial(name('q'), double_), AmqpRpc(name('codec'), MsgPack), RabiBridge(), AioPikaRpc()]
    serving(named={double_: double}, dialects=dialects)

    def call(*args: Any, dialect: Any = None, **kwargs: Any) -> Any:
        return client(dialect=dialect).call(function_name=double_)(*args, **kwargs)

    assert call(4) == 8
    assert call(4, dialect=Tutorial(name('q'))) == 8
    assert call(4, dialect=AmqpRpc(name('codec'), MsgPack)) == 8
    assert call(4, dialect=RabiBridge()) == 8
    assert call(4, dialect=RabiBridge(kind='sync')) == 8
    assert call(n=4, dialect=AioPikaRpc()) == 8


def test_a_function_that_is_added_later_gets_its_queues(serving: Server, client: Client, name: Name) -> None:
    server = serving(dialects=[RabiBridge()])
    calling = client(dialect=RabiBridge())

    server.add_function(double, name('double'))

    assert eventually(lambda: calling.try_call(function_name=name('double'))(4).value == 8)


def test_the_options_of_a_function_are_those_of_its_queues(
    serving: Server, client: Client, name: Name, gate: Gate
) -> None:
    server = serving(dialects=[RabiBridge()])
    server.add_function(gate.function(), name('wait'), queue_size=1, prefetch=1, ttl=60)
    calling = client(dialect=RabiBridge())
    wait = calling.defer(function_name=name('wait'), wait_publish=True)
    running = [eventually(lambda: unless_unroutable(wait, 0))]
    assert eventually(lambda: gate.entered)

    waiting, refused = wait(1), wait(2)

    with pytest.raises(QueueFull):
        refused.get()
    gate.open()
    assert [result.get() for result in (*running, waiting)] == [0, 1]


def unless_unroutable(wait: Any, value: int) -> Any:
    """The result to come of a call; None when its queue is not there yet."""
    result = wait(value)
    return None if isinstance(result.exception, Unroutable) else result


def test_a_fanout_server_answers_other_systems_once(serving: Server, client: Client, name: Name) -> None:
    for _ in range(2):
        serving(named={name('double'): double}, dialects=[RabiBridge()], kind=AmqpRpcFanoutServer)

    assert client(dialect=RabiBridge()).call(function_name=name('double'))(4) == 8


def test_it_is_stopped_and_started_again(serving: Server, client: Client, name: Name) -> None:
    server = serving(named={name('double'): double}, dialects=[RabiBridge()])
    calling = client(dialect=RabiBridge())
    calling.call(function_name=name('double'))(4)

    server.stop()
    result: AsyncResult[Any] = calling.defer(function_name=name('double'))(5)
    server.serve()

    assert result.get() == 10


# -- errors, and formats of one's own ----------------------------------------------------------------------------------


class HostileError(Exception):
    """Nothing about it works."""

    def __str__(self) -> str:
        raise RuntimeError('no text')

    __repr__ = __str__


STRANGE: dict[str, Exception] = {
    'long': ValueError('x' * 200_000),
    'half of a surrogate pair': ValueError('\ud800'),
    'none': HostileError(HostileError()),
    'an object': ValueError(object()),
    'long, rejected': RejectRequest('x' * 200_000),
    'half of a surrogate pair, rejected': RejectRequest('\ud800'),
    'none, rejected': RejectRequest(HostileError()),
}
DIALECTS: dict[str, Callable[[str, str], tuple[Dialect, tuple[Any, ...]]]] = {
    'tutorial': lambda queue, function: (Tutorial(queue, function), (1,)),
    'amqprpc': lambda queue, function: (AmqpRpc(queue), (1,)),
    'rabibridge': lambda queue, function: (RabiBridge(), ()),
    'aio-pika': lambda queue, function: (AioPikaRpc(), ()),
    'aio-pika, JSON': lambda queue, function: (AioPikaRpc(Json), ()),
}


@pytest.mark.parametrize('text', STRANGE)
@pytest.mark.parametrize('dialect', DIALECTS)
def test_an_error_is_told_once_whatever_its_text(
    serving: Server, client: Client, name: Name, dialect: str, text: str
) -> None:
    run = []

    def fail(*args: Any) -> None:
        run.append(1)
        raise STRANGE[text]

    speaking, args = DIALECTS[dialect](name('q'), name('fail'))
    serving(named={name('fail'): fail}, dialects=[speaking])

    with pytest.raises(RemoteException) as caught:
        client(dialect=speaking).call(function_name=name('fail'))(*args)

    expected = 'RPCError' if dialect == 'amqprpc' else type(STRANGE[text]).__name__
    # A pickled exception is of a class that Python has.
    assert caught.value.error_type in (expected, 'Exception')
    assert run == [1]


class JsonText:
    """As people write it who have the standard library."""

    pack = staticmethod(json.dumps)
    unpack = staticmethod(json.loads)


class TextOnly:
    pack = staticmethod(str.encode)
    unpack = staticmethod(bytes.decode)


class Numbers:
    pack = staticmethod(int)
    unpack = staticmethod(int)


@pytest.mark.parametrize('format', [JsonText, TextOnly])
def test_a_format_may_pack_to_text_and_know_no_none(serving: Server, client: Client, name: Name, format: Any) -> None:
    run = []

    def double_once(value: str) -> str:
        run.append(value)
        return {'a': 'aa'}[value]

    serving(double_once, dialects=[AmqpRpc(name('codec'), format)])
    calling = client(dialect=AmqpRpc(name('codec'), format))

    assert calling.call.double_once('a') == 'aa'
    with pytest.raises(RemoteException, match='b'):
        calling.call.double_once('b')
    assert run == ['a', 'b']


def test_a_format_that_packs_to_no_bytes_is_a_type_error(client: Client, name: Name) -> None:
    with pytest.raises(TypeError, match='must pack to bytes'):
        client(dialect=AmqpRpc(name('codec'), Numbers)).call.double(2)


def test_a_format_that_cannot_say_an_error_costs_its_own_call_only(
    serving: Server, client: Client, name: Name, caplog: pytest.LogCaptureFixture
) -> None:
    run = []

    def nothing(text: str) -> None:
        run.append(text)

    class Keywords:
        @staticmethod
        def pack(value: dict[str, str] | str) -> bytes:
            return (value if isinstance(value, str) else value['text']).encode()

        @staticmethod
        def unpack(body: bytes) -> dict[str, str]:
            return {'text': body.decode()}

    functions = {name('nothing'): nothing, name('same'): lambda text: text}
    serving(named=functions, dialects=[AioPikaRpc(Keywords)])
    calling = client(dialect=AioPikaRpc(Keywords))

    with pytest.raises(NoResult):
        calling.call(function_name=name('nothing'), timeout=1.5)(text='x')

    assert run == ['x']
    assert [record for record in caplog.records if 'gets no answer' in record.getMessage()]
    assert calling.call(function_name=name('same'))(text='y') == {'text': 'y'}


@pytest.mark.parametrize('value', [float('nan'), [1, {'a': float('inf')}]], ids=['NaN', 'infinite'])
@pytest.mark.parametrize('dialect', ['amqprpc', 'aio-pika, JSON'])
def test_what_json_cannot_carry_is_an_error_and_no_null(
    serving: Server, client: Client, name: Name, dialect: str, value: Any
) -> None:
    speaking, args = DIALECTS[dialect](name('q'), name('give'))
    serving(named={name('give'): lambda *args: value}, dialects=[speaking])

    with pytest.raises(RemoteException, match='JSON cannot carry'):
        client(dialect=speaking).call(function_name=name('give'))(*args)


def test_of_an_error_only_the_arguments_that_json_cannot_carry_become_text(
    serving: Server, client: Client, name: Name
) -> None:
    def fail() -> None:
        raise ValueError('no', 3, {1: (2,)}, 1j)

    serving(named={name('fail'): fail}, dialects=[AioPikaRpc(Json)])

    with pytest.raises(RemoteException) as caught:
        client(dialect=AioPikaRpc(Json)).call(function_name=name('fail'))()

    assert list(caught.value.args) == ['no', 3, {'1': [2]}, '1j']


# -- queues that cannot be had -----------------------------------------------------------------------------------------


def test_a_queue_that_another_has_for_itself_keeps_no_other_function_from_being_called(
    serving: Server, client: Client, url: str, name: Name
) -> None:
    server = serving(dialects=[AioPikaRpc()])
    with Connection.from_url(url) as connection:
        channel = connection.channel()
        channel.queue.declare(name('taken'))
        channel.basic.consume(name('taken'), lambda message: None, exclusive=True)

        server.add_function(double, name('taken'))
        server.add_function(double, name('double'))

        calling = client(dialect=AioPikaRpc())
        assert eventually(lambda: calling.try_call(function_name=name('double'))(n=4).value == 8)


def test_queues_that_are_locked_leave_no_channels_open(server: Server, rabbit: RabbitNode, vhost: str) -> None:
    url = rabbit.url_of(vhost)
    names = [f'locked_{number}' for number in range(30)]
    with Connection.from_url(url) as connection:
        channel = connection.channel()
        for each in names:
            channel.queue.declare(each, exclusive=True)

        serving = server(named=dict.fromkeys(names, double), dialects=[AioPikaMaster()], amqp_url=url)
        with pytest.raises(AmqpError, match='RESOURCE_LOCKED'):
            serving.wait_ready(10)

        assert rabbit.ctl('list_channels', 'vhost').split().count(vhost) < 10


def test_a_client_of_another_dialect_has_no_queues_of_its_own(client: Client) -> None:
    with pytest.raises(TypeError, match='dialect'):
        client(dialect=RabiBridge()).create_new_request_queue('any')


def test_two_dialects_that_want_one_queue_are_an_error(amqp_url: str) -> None:
    server = AmqpRpcServer('any', amqp_url=amqp_url, dialects=[AioPikaRpc(), AioPikaMaster()])
    server.add_function(double)

    with pytest.raises(ValueError, match="'double'"):
        server.serve()
    server.stop()


def test_a_queue_that_another_dialect_takes_from_already_is_an_error_too(server: Server, name: Name) -> None:
    serving = server(named={name('fib'): double}, dialects=[Tutorial(name('double'), name('fib')), AioPikaRpc()])

    with pytest.raises(ValueError, match='two dialects want the queue'):
        serving.add_function(double, name('double'))


@pytest.mark.parametrize('dialect', [RabiBridge, AioPikaRpc, AioPikaMaster])
def test_one_name_is_no_collection_of_functions(dialect: Any) -> None:
    with pytest.raises(TypeError, match=r"such as \['double'\]"):
        dialect(functions='double')


@pytest.mark.parametrize('dialect', [Tutorial, 'Tutorial', None])
def test_what_is_no_dialect_is_a_type_error(dialect: Any) -> None:
    with pytest.raises(TypeError, match=r'amphora\.dialects'):
        AmqpRpcServer('any', dialects=[dialect])


@pytest.mark.parametrize('dialect', [Tutorial, 'Tutorial'])
def test_a_client_takes_no_class_for_a_dialect(dialect: Any) -> None:
    with pytest.raises(TypeError, match=r'amphora\.dialects'):
        AmqpRpcClient('any', dialect=dialect, autostart=False)
