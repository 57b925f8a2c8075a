"""`receive_from_queue`: which queue, how many calls, for how long, and what becomes of the rest."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from typing import Any

import gevent
import pytest

from amphora import AmqpRpcClient, AmqpRpcServer, WrongThread
from tests.parties import Client, Gate, Server
from tests.proxy import Proxy
from tests.rabbitmq import RabbitNode
from tests.rpc.peer import Peer
from tests.stopwatch import Stopwatch
from tests.waiting import eventually


def echo(value: Any) -> Any:
    return value


def send(calling: AmqpRpcClient, label: str, count: int, function_name: str = 'echo') -> list[Any]:
    """Results of so many calls, which are in the queue when this returns."""
    caller = calling.defer(routing_key=label, wait_publish=True, function_name=function_name)
    return [caller(number) for number in range(count)]


def answers(results: list[Any]) -> list[Any]:
    return [result.get(timeout=8) for result in results]


def test_the_queue_may_be_named_by_its_label(server: Server, calling: AmqpRpcClient, label: str) -> None:
    results = send(calling, label, 2)

    assert server(echo).receive_from_queue(label, max_calls=2) == 2

    assert answers(results) == [0, 1]


def test_the_queue_may_be_named_in_full(server: Server, calling: AmqpRpcClient, label: str, queue: str) -> None:
    results = send(calling, label, 2)

    assert server(echo).receive_from_queue(queue, max_calls=2) == 2

    assert answers(results) == [0, 1]


def test_a_queue_that_amphora_did_not_name_will_do(
    server: Server, calling: AmqpRpcClient, peer: Peer, service: str
) -> None:
    peer.declare_queue(f'{service}.by.hand', 'hand')
    results = send(calling, 'hand', 1)

    assert server(echo).receive_from_queue(f'{service}.by.hand', max_calls=1) == 1

    assert answers(results) == [0]


def test_the_services_own_queue_is_received_from_as_well(server: Server, calling: AmqpRpcClient, label: str) -> None:
    serving = server(echo)
    serving.receive_from_queue(label, block=False)

    assert calling.call.echo('own') == 'own'
    assert calling.call(routing_key=label).echo('extra') == 'extra'


def test_several_queues_can_be_received_from(server: Server, calling: AmqpRpcClient, label: str) -> None:
    serving = server(echo)
    labels = [label, f'{label}-2', f'{label}-3']
    for one in labels:
        calling.create_new_request_queue(one)
        serving.receive_from_queue(one, block=False)

    assert [calling.call(routing_key=one).echo(one) for one in labels] == labels


def test_a_queue_that_does_not_exist_is_a_value_error(server: Server, client: Client, service: str) -> None:
    serving, calling = server(echo), client()

    with pytest.raises(ValueError, match=f'{service}-missing'):
        serving.receive_from_queue(f'{service}-missing', max_calls=1)

    # That a channel failed for it harms nothing.
    assert calling.call.echo('well') == 'well'


@pytest.mark.parametrize('limits', [{'max_calls': 0}, {'max_calls': -1}, {'timeout': -1}])
def test_a_limit_without_sense_is_a_value_error(
    server: Server, calling: AmqpRpcClient, label: str, limits: dict[str, int]
) -> None:
    with pytest.raises(ValueError, match=next(iter(limits))):
        server(echo).receive_from_queue(label, **limits)


# -- max_calls ---------------------------------------------------------------------------------------------------------


def test_no_more_than_max_calls_are_handled_and_another_server_gets_the_rest(
    server: Server, calling: AmqpRpcClient, label: str, peer: Peer, queue: str
) -> None:
    results = send(calling, label, 20)

    assert server(named={'echo': lambda value: ['one', value]}).receive_from_queue(label, max_calls=5) == 5
    assert peer.consumers(queue) == 0
    assert eventually(lambda: peer.ready(queue) == 15)
    assert server(named={'echo': lambda value: ['two', value]}).receive_from_queue(label, max_calls=15) == 15

    by_server = sorted(answers(results))
    assert [name for name, _ in by_server] == ['one'] * 5 + ['two'] * 15
    assert sorted(value for _, value in by_server) == list(range(20))


def test_calls_that_come_later_count_too(
    server: Server, calling: AmqpRpcClient, label: str, peer: Peer, queue: str
) -> None:
    receiving = gevent.spawn(server(echo).receive_from_queue, label, max_calls=3)
    eventually(lambda: peer.consumers(queue) == 1)

    results = send(calling, label, 2)
    assert answers(results) == [0, 1]
    assert not receiving.dead
    results = send(calling, label, 1)

    assert answers(results) == [0]
    assert receiving.get(timeout=5) == 3


def test_a_call_that_raises_counts(server: Server, calling: AmqpRpcClient, label: str) -> None:
    results = send(calling, label, 1, 'missing')

    assert server(echo).receive_from_queue(label, max_calls=1) == 1

    assert results[0].wait(5) is None
    assert results[0].exception is not None


def test_without_max_calls_there_is_no_end(server: Server, calling: AmqpRpcClient, label: str) -> None:
    receiving = gevent.spawn(server(echo).receive_from_queue, label)

    assert answers(send(calling, label, 250)) == list(range(250))

    assert not receiving.dead


def test_max_calls_is_the_prefetch_of_the_consumer(
    server: Server, calling: AmqpRpcClient, label: str, queue: str, rabbit: RabbitNode, gate: Gate
) -> None:
    # One less: the consumer ends with the last of them.
    send(calling, label, 2, 'wait')

    server(gate.function()).receive_from_queue(label, max_calls=3, block=False)
    eventually(lambda: len(gate.entered) == 2)

    assert prefetch_of(rabbit, queue) == [3]
    gate.open()


def prefetch_of(rabbit: RabbitNode, queue: str) -> list[int]:
    """What `basic.qos` has said for each consumer of the queue."""
    listed = json.loads(rabbit.ctl('list_consumers', 'queue_name', 'prefetch_count', '--formatter', 'json'))
    return [consumer['prefetch_count'] for consumer in listed if consumer['queue_name'] == queue]


def test_a_call_handled_is_not_handled_again(
    server: Server, calling: AmqpRpcClient, label: str, queue: str, peer: Peer, gate: Gate
) -> None:
    serving = server(gate.function())
    [result] = send(calling, label, 1, 'wait')

    assert serving.receive_from_queue(label, max_calls=1, block_until_closed=False) == 1
    assert peer.ready(queue) == 0
    gate.open()
    assert result.get(timeout=5) == 0
    serving.stop()

    # Had the channel been closed before the ack, the message would be back.
    assert peer.ready(queue) == 0
    assert gate.entered == [0]


# -- timeout -----------------------------------------------------------------------------------------------------------


def test_the_time_may_be_over_before_max_calls_were_taken(
    server: Server, calling: AmqpRpcClient, label: str, queue: str, peer: Peer
) -> None:
    results = send(calling, label, 1)
    serving = server(echo)

    watch = Stopwatch()
    with pytest.raises(gevent.Timeout):
        serving.receive_from_queue(label, max_calls=2, timeout=0.5)

    assert watch.seconds > 0.45
    assert watch.awake < 1.5
    assert answers(results) == [0]
    eventually(lambda: peer.consumers(queue) == 0)


def test_max_calls_may_be_taken_before_the_time_is_over(server: Server, calling: AmqpRpcClient, label: str) -> None:
    send(calling, label, 2)

    watch = Stopwatch()
    assert server(echo).receive_from_queue(label, max_calls=2, timeout=5) == 2

    assert watch.awake < 4


def test_a_timeout_alone_ends_receiving(
    server: Server, calling: AmqpRpcClient, label: str, queue: str, peer: Peer
) -> None:
    server(echo).receive_from_queue(label, timeout=0.3, block=False)
    assert calling.call(routing_key=label).echo('in time') == 'in time'

    eventually(lambda: peer.consumers(queue) == 0)
    send(calling, label, 1)
    assert peer.ready(queue) == 1


def test_calls_that_run_when_the_time_is_over_are_answered_and_acked(
    server: Server, calling: AmqpRpcClient, label: str, queue: str, peer: Peer, gate: Gate
) -> None:
    serving = server(gate.function())
    [result] = send(calling, label, 1, 'wait')

    receiving = gevent.spawn(serving.receive_from_queue, label, max_calls=2, timeout=0.3)
    eventually(lambda: gate.entered)
    eventually(lambda: peer.consumers(queue) == 0)
    assert not receiving.dead
    gate.open()

    with pytest.raises(gevent.Timeout):
        receiving.get(timeout=5)
    assert result.get(timeout=5) == 0
    assert peer.ready(queue) == 0


# -- blocking ----------------------------------------------------------------------------------------------------------


def test_with_block_false_it_returns_at_once_and_calls_are_handled(
    server: Server, calling: AmqpRpcClient, label: str, gate: Gate
) -> None:
    results = send(calling, label, 2, 'wait')

    assert server(gate.function()).receive_from_queue(label, max_calls=2, block=False) is None

    assert gate.left == []
    gate.open()
    assert answers(results) == [0, 1]


def test_block_until_closed_waits_for_the_calls_that_were_taken(
    server: Server, calling: AmqpRpcClient, label: str, queue: str, peer: Peer, gate: Gate
) -> None:
    results = send(calling, label, 2, 'wait')

    receiving = gevent.spawn(server(gate.function()).receive_from_queue, label, max_calls=2)
    eventually(lambda: len(gate.entered) == 2 and peer.consumers(queue) == 0)
    assert not receiving.dead

    gate.open()
    assert receiving.get(timeout=5) == 2
    assert gate.left == [0, 1]
    assert peer.ready(queue) == 0
    assert answers(results) == [0, 1]


def test_without_block_until_closed_it_returns_when_the_calls_are_taken(
    server: Server, calling: AmqpRpcClient, label: str, gate: Gate
) -> None:
    results = send(calling, label, 2, 'wait')

    assert server(gate.function()).receive_from_queue(label, max_calls=2, block_until_closed=False) == 2

    assert gate.left == []
    gate.open()
    assert answers(results) == [0, 1]


def test_stopping_the_server_ends_it(
    server: Server, calling: AmqpRpcClient, label: str, queue: str, peer: Peer
) -> None:
    serving = server(echo)
    receiving = gevent.spawn(serving.receive_from_queue, label, max_calls=5)
    assert answers(send(calling, label, 2)) == [0, 1]

    serving.stop()

    assert receiving.get(timeout=5) == 2
    assert peer.consumers(queue) == 0


def test_it_can_be_called_again_and_again(server: Server, calling: AmqpRpcClient, label: str) -> None:
    serving = server(echo)
    results = send(calling, label, 6)

    taken = [serving.receive_from_queue(label, max_calls=count) for count in (1, 2, 3)]

    assert taken == [1, 2, 3]
    assert answers(results) == list(range(6))


def test_two_servers_with_limits_handle_every_call_once(
    server: Server, calling: AmqpRpcClient, label: str, queue: str, peer: Peer
) -> None:
    results = send(calling, label, 30)
    counter = itertools.count()

    def number(_: int) -> int:
        return next(counter)

    receiving = [gevent.spawn(server(named={'echo': number}).receive_from_queue, label, max_calls=15) for _ in range(2)]

    assert [greenlet.get(timeout=8) for greenlet in receiving] == [15, 15]
    assert sorted(answers(results)) == list(range(30))
    assert peer.ready(queue) == 0


def test_a_queue_worked_off_bit_by_bit_by_two_servers_leaves_no_call(
    server: Server, calling: AmqpRpcClient, label: str, queue: str, peer: Peer
) -> None:
    results = send(calling, label, 600)

    def work_off(serving: AmqpRpcServer) -> list[int | None]:
        return [serving.receive_from_queue(label, max_calls=50) for _ in range(6)]

    # The broker sends each of them more than it takes, before it hears that these were enough: what is left over, and
    # comes back to one of them, must not count as taken.
    working = [gevent.spawn(work_off, server(echo)) for _ in range(2)]

    assert [greenlet.get(timeout=20) for greenlet in working] == [[50] * 6] * 2
    assert answers(results) == list(range(600))
    assert peer.ready(queue) == 0


def test_it_is_used_from_the_servers_own_thread(
    server: Server, calling: AmqpRpcClient, label: str, elsewhere: Callable[..., Any]
) -> None:
    serving = server(echo)

    with pytest.raises(WrongThread):
        elsewhere(serving.receive_from_queue, label)


def test_it_returns_when_the_server_stops_although_the_last_reply_was_not_sent(
    server: Server, calling: AmqpRpcClient, label: str, gate: Gate, gateway: Proxy
) -> None:
    gateway.admit()
    serving = server(gate.function(), amqp_url=gateway.url)
    receiving = gevent.spawn(serving.receive_from_queue, label, max_calls=1)
    calling.defer(routing_key=label).wait(1)
    eventually(lambda: gate.entered)
    gateway.refuse()
    gateway.reset()
    gate.open()
    eventually(lambda: gate.left)

    serving.stop()

    assert receiving.get(timeout=5) == 1


def test_one_that_has_only_just_begun_ends_with_the_server(
    server: Server, calling: AmqpRpcClient, label: str, queue: str, gateway: Proxy, peer: Peer
) -> None:
    gateway.admit()
    serving = server(echo, amqp_url=gateway.url)
    # Each step takes a fifth of a second. The queue is looked for; then a channel is opened, and consumes.
    for pause in (0.7, 0.9, 1.1):
        assert serving.wait_ready(10)
        gateway.delay = 0.1
        receiving = gevent.spawn(serving.receive_from_queue, label)
        gevent.sleep(pause)
        gateway.delay = 0
        serving.stop()
        assert receiving.get(timeout=10) == 0
        serving.serve()
    assert peer.consumers(queue) == 0
