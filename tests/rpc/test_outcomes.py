"""Every call ends once, in time and in what is true, also where several things go wrong at once."""

import sys

import gevent
import pytest
from gevent import subprocess

from amphora import BufferFull, NoResult, QueueFull
from tests.parties import Client, Gate, Server
from tests.proxy import FROM_BROKER, Proxy
from tests.rabbitmq import RabbitNode
from tests.rpc.peer import Peer
from tests.stopwatch import GRACE, Stopwatch
from tests.waiting import eventually


def test_a_broadcast_that_one_queue_refuses_may_have_run_elsewhere(
    fanout_server: Server, fanout_client: Client, gate: Gate
) -> None:
    heard: list[int] = []
    # One server is busy, and its queue is full; the other is not.
    fanout_server(named={'note': gate.function('note')}, prefetch=1, queue_size=1).wait_ready(10)
    fanout_server(named={'note': heard.append}, queue_size=1).wait_ready(10)
    calling = fanout_client(queue_size=1)

    def refused() -> QueueFull | None:
        try:
            calling.call(timeout=5).note(1)
        except QueueFull as error:
            return error
        return None

    before = 0

    def refused_once() -> QueueFull | None:
        nonlocal before
        before = len(heard)
        return refused()

    error = eventually(refused_once)
    eventually(lambda: len(heard) > before)
    assert error.executed is None


def test_waiting_for_the_publish_ends_with_the_calls_time_whatever_becomes_of_the_confirm(
    server: Server, client: Client, gateway: Proxy, gate: Gate
) -> None:
    gateway.admit()
    server(gate.function())
    calling = client(amqp_url=gateway.url, heartbeat=1)
    assert calling.serve() is None
    eventually(lambda: gateway.open_links == 2)
    eventually(lambda: calling._publishing.connection is not None and calling._consuming.connection is not None)
    calling.defer.wait(0)
    eventually(lambda: gate.entered == [0])
    gateway.drop(FROM_BROKER)

    watch = Stopwatch()
    result = calling.defer(wait_publish=True, timeout=1).wait(1)

    assert watch.awake < 1 + GRACE
    with pytest.raises(NoResult):
        result.get(timeout=1)


def test_a_result_is_there_when_waiting_for_the_publish_is_over(client: Client, peer: Peer, label: str) -> None:
    calling = client(queue_size=1)
    calling.defer(wait_publish=True).note(0)

    result = calling.defer(wait_publish=True).note(1)

    assert isinstance(result.exception, QueueFull)


def test_what_a_raw_greenlet_does_not_catch_keeps_no_other_call_from_its_end(client: Client) -> None:
    calling = client()
    calling.serve()
    gevent.spawn_raw(lambda: calling.call(timeout=0.5).nobody())
    others = [gevent.spawn(calling.try_call(timeout=0.5).nobody) for _ in range(20)]

    gevent.joinall(others, timeout=5)

    assert all(isinstance(other.value.error, NoResult) for other in others)


def test_what_was_answered_is_not_sent_again_after_a_loss(
    server: Server, client: Client, gateway: Proxy, rabbit: RabbitNode
) -> None:
    ran: list[int] = []
    gateway.admit()
    first = server(named={'note': ran.append})
    calling = client(amqp_url=gateway.url)
    assert calling.call.note(0) is None
    # The confirms of these are lost; their replies come another way.
    publishing = calling._publishing.connection._transport._sock.getsockname()
    [link] = [link for link in gateway._links if link._sockets[0].getpeername() == publishing]
    link.dropped.add(FROM_BROKER)
    for number in range(1, 20):
        assert calling.call(timeout=5).note(number) is None
    first.stop()
    second: list[int] = []
    server(named={'note': second.append})

    gateway.reset()

    assert calling.call(timeout=10).note(20) is None
    assert second == [20]


def test_what_a_quorum_queue_has_refused_counts_until_it_is_sent_again(client: Client) -> None:
    calling = client(queue_type='quorum', queue_size=1, buffer_count=10)
    calling.defer(wait_publish=True).note(0)
    results = []

    refused = 0
    for _ in range(1000):
        try:
            results.append(calling.defer(timeout=30).note(1))
        except BufferFull:
            refused += 1
        gevent.sleep(0.001)

    assert refused
    # A quorum queue takes a few more than its size.
    assert sum(not result.ready() for result in results) <= 15


FORGETFUL = """
import gc, sys
from amphora import AmqpRpcClient

def fire():
    client = AmqpRpcClient(sys.argv[1], amqp_url=sys.argv[2])
    for number in range(5):
        client.defer.note(number)

fire()
gc.collect()
"""


def test_what_a_client_that_is_forgotten_has_accepted_is_sent_before_the_program_ends(
    peer: Peer, rabbit: RabbitNode, service: str
) -> None:
    subprocess.run([sys.executable, '-c', FORGETFUL, service, rabbit.url], check=True, timeout=30)

    assert peer.ready() == 5


def test_a_broker_that_falls_silent_while_something_is_consumed_does_not_hold_up_a_stop(
    client: Client, gateway: Proxy, peer: Peer, rabbit: RabbitNode
) -> None:
    gateway.admit()
    calling = client(amqp_url=gateway.url, heartbeat=20)
    calling.defer(wait_publish=True).note(0)
    eventually(lambda: calling._consumer._tag)
    gateway.delay = 0.2
    peer.channel.queue.delete(calling._reply_queue.name)
    # It is about to consume again.
    eventually(lambda: calling._consumer._lock._owner is not None)
    gateway.drop(FROM_BROKER)
    gateway.delay = 0

    watch = Stopwatch()
    calling.stop()

    assert watch.awake < 8


def test_a_queue_that_is_there_stays_wished_for_when_making_it_again_fails(
    client: Client, gateway: Proxy, peer: Peer, label: str, queue: str
) -> None:
    gateway.admit()
    calling = client(amqp_url=gateway.url, timeout=1)
    calling.create_new_request_queue(label)
    gateway.refuse()
    gateway.reset()
    with pytest.raises(NoResult):
        calling.create_new_request_queue(label)
    peer.channel.queue.delete(queue)

    gateway.admit()

    eventually(lambda: peer.exists(queue), 10)


@pytest.mark.parametrize('confirm', [True, False])
def test_however_many_were_held_are_sent_when_the_broker_is_there(
    client: Client, gateway: Proxy, peer: Peer, confirm: bool
) -> None:
    peer.declare_service()
    calling = client(amqp_url=gateway.url, timeout=60, confirm=confirm, persistent=False)
    for number in range(20_000):
        calling.defer.note(number)
    assert calling._publisher.held == 20_000

    gateway.admit()

    eventually(lambda: peer.ready() == 20_000, 30)
