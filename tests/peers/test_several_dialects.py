"""One server that answers several systems at once; and what cannot be combined."""

from collections.abc import Callable
from typing import Any

import pytest
from gevent.event import AsyncResult

from amphora import AmqpRpcClient, AmqpRpcFanoutServer, AmqpRpcServer, QueueFull, Unroutable
from amphora.dialects import AioPikaMaster, AioPikaRpc, AmqpRpc, MsgPack, RabiBridge, Tutorial
from tests.parties import Client, Gate, Server
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


def test_a_client_of_another_dialect_has_no_queues_of_its_own(client: Client) -> None:
    with pytest.raises(TypeError, match='dialect'):
        client(dialect=RabiBridge()).create_new_request_queue('any')


def test_two_dialects_that_want_one_queue_are_an_error(amqp_url: str) -> None:
    server = AmqpRpcServer('any', amqp_url=amqp_url, dialects=[AioPikaRpc(), AioPikaMaster()])
    server.add_function(double)

    with pytest.raises(ValueError, match="'double'"):
        server.serve()
    server.stop()


@pytest.mark.parametrize('dialect', [Tutorial, 'Tutorial', None])
def test_what_is_no_dialect_is_a_type_error(dialect: Any) -> None:
    with pytest.raises(TypeError, match=r'amphora\.dialects'):
        AmqpRpcServer('any', dialects=[dialect])


@pytest.mark.parametrize('dialect', [Tutorial, 'Tutorial'])
def test_a_client_takes_no_class_for_a_dialect(dialect: Any) -> None:
    with pytest.raises(TypeError, match=r'amphora\.dialects'):
        AmqpRpcClient('any', dialect=dialect, autostart=False)
