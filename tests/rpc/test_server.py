"""A server: which functions it offers, under which names, how it runs them, and how it starts and stops."""

from __future__ import annotations

import contextvars
import itertools
import logging
import time
from collections.abc import Callable
from typing import Any

import gevent
import pytest

from amphora import (
    AmqpRpcServer,
    IgnoreRequest,
    NoResult,
    RemoteException,
    RpcMsgPackSerializer,
    WrongRequest,
    WrongThread,
)
from tests.parties import Client, Gate, Server
from tests.rpc.peer import Peer
from tests.waiting import eventually

# How long to look for something that must not happen.
NEVER = 0.3


def add(x: Any, y: Any) -> Any:
    return x + y


# -- adding functions --------------------------------------------------------------------------------------------------


def test_a_function_is_called_by_its_own_name(server: Server, client: Client) -> None:
    server().add_function(add)

    assert client().call.add(2, 3) == 5


def test_a_function_is_called_by_the_name_it_was_given(server: Server, client: Client) -> None:
    server().add_function(add, name='plus')

    assert client().call.plus(2, 3) == 5


def test_add_function_decorates(server: Server, client: Client) -> None:
    serving = server()

    @serving.add_function
    def multiply(x: int, y: int) -> int:
        return x * y

    assert client().call.multiply(5, 5) == 25
    assert multiply(2, 3) == 6


def test_add_function_with_a_name_decorates(server: Server, client: Client) -> None:
    serving = server()

    @serving.add_function('div')
    def divide(x: int, y: int) -> float:
        return x / y

    assert client().call.div(64, 16) == 4.0
    assert divide(6, 3) == 2


def test_a_dotted_name_may_be_given(server: Server, client: Client) -> None:
    server().add_function(add, name='math.simple.add')

    assert client().call.math.simple.add(2, 3) == 5


def test_the_name_of_a_renamed_function_is_not_its_own(server: Server, client: Client) -> None:
    server().add_function(add, name='plus')

    with pytest.raises(WrongRequest):
        client().call.add(2, 3)


def test_methods_and_partial_arguments_can_be_added(server: Server, client: Client) -> None:
    class Counter:
        def __init__(self) -> None:
            self.count = 0

        def step(self, by: int = 1) -> int:
            self.count += by
            return self.count

    server(Counter().step)
    calling = client()

    assert [calling.call.step(), calling.call.step(by=5)] == [1, 6]


def test_what_cannot_be_called_cannot_be_added(server: Server) -> None:
    with pytest.raises(TypeError):
        server(serve=False).add_function(42)


def test_functions_of_a_running_server_can_be_added(server: Server, client: Client) -> None:
    serving, calling = server(add), client()
    assert calling.call.add(2, 3) == 5

    serving.add_function(add, name='late')

    assert calling.call.late(2, 3) == 5


# -- running them ------------------------------------------------------------------------------------------------------


def test_a_function_that_waits_does_not_hold_up_others(server: Server, client: Client, gate: Gate) -> None:
    server(gate.function(), add)
    calling = client()
    waiting = calling.defer.wait('first')
    eventually(lambda: gate.entered)

    assert calling.call.add(2, 3) == 5
    assert not waiting.ready()

    gate.open()
    assert waiting.get(timeout=5) == 'first'


def test_two_servers_share_the_load(server: Server, client: Client, gate: Gate) -> None:
    # Each takes one request at a time, and none returns before the gate opens: two are in only if both servers work.
    for name in ('one', 'two'):
        server(named={'wait': lambda name=name: gate.function()(name)}, prefetch=1)
    calling = client()
    results = [calling.defer.wait() for _ in range(2)]

    eventually(lambda: len(gate.entered) == 2)
    gate.open()

    assert sorted(result.get(timeout=5) for result in results) == ['one', 'two']


def test_context_variables_are_each_requests_own(server: Server, client: Client) -> None:
    variable = contextvars.ContextVar('variable', default='unset')

    def swap(value: str) -> str:
        before = variable.get()
        variable.set(value)
        gevent.sleep(0)
        return f'{before}, then {variable.get()}'

    server(swap)
    calling = client()
    results = [calling.defer.swap(str(number)) for number in range(20)]
    again = calling.call.swap('last')

    assert [result.get(timeout=5) for result in results] == [f'unset, then {number}' for number in range(20)]
    assert again == 'unset, then last'
    assert variable.get() == 'unset'


def test_a_request_that_is_past_its_deadline_is_never_begun(server: Server, client: Client, peer: Peer) -> None:
    run = []
    calling = client()
    with pytest.raises(NoResult):
        calling.call(timeout=0.2).remember('expired')
    # The broker counts from when it has the request, which on a busy machine may be later than the caller does.
    eventually(lambda: peer.ready() == 0)

    server(named={'remember': run.append})
    calling.call.remember('in time')

    assert run == ['in time']


def test_a_handled_request_leaves_its_queue(server: Server, client: Client, peer: Peer) -> None:
    serving = server(add)
    assert client().call.add(2, 3) == 5

    serving.stop()

    assert peer.ready() == 0


def test_a_result_that_does_not_serialise_reaches_the_caller_and_the_log(
    server: Server, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    server(named={'thing': object})

    with caplog.at_level(logging.DEBUG), pytest.raises(RemoteException) as caught:
        client().call.thing()

    assert 'object' in str(caught.value)
    logged = [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert [r.name.split('.')[0] for r in logged] == ['amphora']
    assert logged[0].name.startswith('amphora.')
    assert 'serialise' in logged[0].getMessage()


# -- IgnoreRequest -----------------------------------------------------------------------------------------------------


def test_an_ignored_request_is_handled_by_another_server(server: Server, client: Client, peer: Peer) -> None:
    ignored = []

    def ignore(value: str) -> None:
        ignored.append(value)
        raise IgnoreRequest

    server(named={'answer': ignore})
    calling = client()
    result = calling.defer.answer('question')
    eventually(lambda: ignored)
    assert not result.ready()

    server(named={'answer': lambda value: f'{value} answered'})

    assert result.get(timeout=8) == 'question answered'


def test_a_server_alone_takes_an_ignored_request_at_most_once_a_second(server: Server, client: Client) -> None:
    taken: list[float] = []

    def third_time_lucky() -> str:
        taken.append(time.monotonic())
        if len(taken) < 3:
            raise IgnoreRequest
        return 'at last'

    server(third_time_lucky)

    assert client().call.third_time_lucky() == 'at last'
    gaps = [later - earlier for earlier, later in itertools.pairwise(taken)]
    # The second passes between the requeues; the first of them may be at once.
    assert gaps[1] > 0.9
    assert len(gaps) == 2


def test_a_server_that_waits_to_requeue_goes_on_with_other_requests(server: Server, client: Client) -> None:
    ignored = []

    def ignore() -> None:
        ignored.append(True)
        raise IgnoreRequest

    server(ignore, add)
    calling = client()
    waiting = calling.defer(timeout=5).ignore()
    eventually(lambda: ignored)

    assert calling.call(timeout=0.9).add(2, 3) == 5
    assert not waiting.ready()


# -- serving and stopping ----------------------------------------------------------------------------------------------


def test_serve_does_not_block_unless_told_to(server: Server, client: Client) -> None:
    serving = server(add, serve=False)

    with gevent.Timeout(5):
        serving.serve()

    assert client().call.add(2, 3) == 5


def test_serve_with_nowait_false_blocks_until_the_server_stops(server: Server, client: Client) -> None:
    serving = server(add, serve=False)

    blocked = gevent.spawn(serving.serve, nowait=False)
    assert client().call.add(2, 3) == 5
    assert not blocked.dead

    serving.stop()
    blocked.get(timeout=5)


def test_a_server_that_never_served_can_be_stopped(server: Server) -> None:
    server(serve=False).stop()


def test_prepare_stop_leaves_new_requests_in_the_queue(server: Server, client: Client, peer: Peer, gate: Gate) -> None:
    serving, calling = server(gate.function()), client()
    running = calling.defer.wait('running')
    eventually(lambda: gate.entered)

    serving.prepare_stop()
    assert peer.consumers() == 0
    late = calling.defer(wait_publish=True).wait('late')
    assert peer.ready() == 1

    gate.open()
    assert running.get(timeout=5) == 'running'
    assert gate.entered == ['running']
    serving.stop()
    assert peer.ready() == 1

    server(gate.function())
    assert late.get(timeout=5) == 'late'


def test_stop_waits_for_what_runs_and_its_caller_gets_the_answer(
    server: Server, client: Client, peer: Peer, gate: Gate
) -> None:
    serving, calling = server(gate.function()), client()
    result = calling.defer.wait('running')
    eventually(lambda: gate.entered)

    stopping = gevent.spawn(serving.stop)
    eventually(lambda: peer.consumers() == 0)
    assert not stopping.dead

    gate.open()
    stopping.get(timeout=5)
    assert result.get(timeout=5) == 'running'
    assert peer.ready() == 0


def test_a_stopped_server_can_serve_again(server: Server, client: Client) -> None:
    serving, calling = server(add), client()
    assert calling.call.add(2, 3) == 5
    serving.stop()
    late = calling.defer.add(3, 4)

    serving.serve()

    assert late.get(timeout=5) == 7


def test_a_server_whose_publisher_is_stopped_runs_requests_and_keeps_their_replies(
    server: Server, client: Client
) -> None:
    run = []
    serving, calling = server(named={'remember': lambda value: run.append(value) or f'{value} done'}), client()
    assert calling.call.remember('before') == 'before done'

    serving.stop_publisher()
    result = calling.defer.remember('meanwhile')
    eventually(lambda: len(run) == 2)
    assert result.wait(NEVER) is None

    serving.serve()
    assert result.get(timeout=5) == 'meanwhile done'
    assert run == ['before', 'meanwhile']


def test_a_server_whose_consumer_is_stopped_leaves_requests_in_the_queue(
    server: Server, client: Client, peer: Peer, gate: Gate
) -> None:
    serving, calling = server(gate.function()), client()
    running = calling.defer.wait('running')
    eventually(lambda: gate.entered)

    stopping = gevent.spawn(serving.stop_consumer)
    eventually(lambda: peer.consumers() == 0)
    late = calling.defer(wait_publish=True).wait('late')
    gate.open()

    assert running.get(timeout=5) == 'running'
    stopping.get(timeout=5)
    assert peer.ready() == 1
    assert gate.entered == ['running']

    serving.serve()
    assert late.get(timeout=5) == 'late'


@pytest.mark.parametrize('method', ['serve', 'prepare_stop', 'stop', 'stop_publisher', 'stop_consumer'])
def test_a_server_is_used_from_the_thread_it_was_made_in(
    server: Server, elsewhere: Callable[..., Any], method: str
) -> None:
    serving = server(add)

    with pytest.raises(WrongThread):
        elsewhere(getattr(serving, method))


def test_a_server_takes_its_service_and_serializer_by_position(amqp_url: str, service: str, client: Client) -> None:
    serving = AmqpRpcServer(service, RpcMsgPackSerializer, amqp_url=amqp_url)
    serving.add_function(add)
    serving.serve()

    try:
        assert client(serializer=RpcMsgPackSerializer).call.add(b'\x00', b'\xff') == b'\x00\xff'
    finally:
        serving.stop()
