"""`create_new_request_queue` and `remove_request_queue`: names, bindings, lifetimes, and waiting for them or not."""

from __future__ import annotations

import gevent
import pytest

from amphora import NotSent, Unroutable
from amphora.amqp import NotFound, PreconditionFailed
from tests.parties import Client, Server
from tests.proxy import Proxy
from tests.rabbitmq import RabbitNode
from tests.rpc.peer import Peer, body_of
from tests.waiting import eventually


def test_the_queue_is_named_after_its_label_and_bound_to_it(client: Client, peer: Peer, label: str, queue: str) -> None:
    calling = client()

    calling.create_new_request_queue(label)

    assert peer.exists(queue)
    calling.defer(routing_key=label).hello()
    assert body_of(peer.take(queue))['func'] == 'hello'


def test_a_routing_key_of_its_own_takes_the_labels_place(client: Client, peer: Peer, label: str, queue: str) -> None:
    calling = client()

    calling.create_new_request_queue(label, routing_key='another')

    calling.defer(routing_key='another').hello()
    assert body_of(peer.take(queue))['func'] == 'hello'
    with pytest.raises(Unroutable):
        calling.call(routing_key=label).hello()


def test_the_queue_is_durable_and_stays(client: Client, peer: Peer, label: str, queue: str) -> None:
    calling = client()
    calling.create_new_request_queue(label)

    # The broker refuses a declaration that differs.
    with peer.fresh_channel() as channel:
        channel.queue.declare(queue, durable=True)
    calling.stop()

    assert peer.exists(queue)


def test_x_expires_is_in_milliseconds(client: Client, peer: Peer, label: str, queue: str) -> None:
    client().create_new_request_queue(label, x_expires=45_000)

    with peer.fresh_channel() as channel:
        channel.queue.declare(queue, durable=True, arguments={'x-expires': 45_000})


def test_a_queue_that_nobody_uses_expires(client: Client, rabbit: RabbitNode, label: str, queue: str) -> None:
    client().create_new_request_queue(label, x_expires=500)

    # Not by declaring it passively: that would be a use.
    eventually(lambda: queue not in rabbit.list_queues())


def test_creating_a_queue_that_is_there_changes_nothing(client: Client, peer: Peer, label: str, queue: str) -> None:
    calling = client()
    calling.create_new_request_queue(label)
    calling.defer(routing_key=label, wait_publish=True).hello()

    calling.create_new_request_queue(label)

    assert peer.ready(queue) == 1


def test_a_queue_that_is_there_with_other_arguments_is_an_error_and_the_client_goes_on(
    client: Client, server: Server, label: str
) -> None:
    calling = client()
    calling.create_new_request_queue(label)
    server(named={'hello': lambda: 'hello'})

    with pytest.raises(PreconditionFailed):
        client().create_new_request_queue(label, x_expires=45_000)

    assert calling.call.hello() == 'hello'


def test_with_nowait_the_queue_comes_into_being_meanwhile(client: Client, peer: Peer, label: str, queue: str) -> None:
    client().create_new_request_queue(label, nowait=True)

    eventually(lambda: peer.exists(queue))


def test_with_nowait_no_broker_is_needed_yet(
    gateway: Proxy, client: Client, peer: Peer, label: str, queue: str
) -> None:
    with gevent.Timeout(1):
        client(amqp_url=gateway.url).create_new_request_queue(label, nowait=True)

    gateway.admit()

    eventually(lambda: peer.exists(queue))


def test_without_nowait_it_waits_for_the_broker(
    gateway: Proxy, client: Client, peer: Peer, label: str, queue: str
) -> None:
    creating = gevent.spawn(client(amqp_url=gateway.url).create_new_request_queue, label)
    creating.join(0.2)
    assert not creating.dead

    gateway.admit()
    creating.get(timeout=5)

    assert peer.exists(queue)


@pytest.mark.parametrize('method', ['create_new_request_queue', 'remove_request_queue'])
def test_without_a_broker_until_the_clients_timeout_it_is_an_error(
    gateway: Proxy, client: Client, label: str, method: str
) -> None:
    with pytest.raises(NotSent, match=r'^queue .* was not (created|removed) within 0\.3 s: there is no connection: '):
        getattr(client(amqp_url=gateway.url, timeout=0.3), method)(label)


def test_a_removed_queue_is_gone_and_its_key_is_unroutable(client: Client, peer: Peer, label: str, queue: str) -> None:
    calling = client()
    calling.create_new_request_queue(label)

    calling.remove_request_queue(label)

    assert not peer.exists(queue)
    with pytest.raises(Unroutable):
        calling.call(routing_key=label).hello()


def test_a_queue_is_removed_with_nowait_meanwhile(client: Client, peer: Peer, label: str, queue: str) -> None:
    calling = client()
    calling.create_new_request_queue(label)

    calling.remove_request_queue(label, nowait=True)

    eventually(lambda: not peer.exists(queue))


def test_removing_a_queue_that_is_not_there_does_nothing(client: Client, label: str) -> None:
    client().remove_request_queue(label)


def test_another_client_can_remove_the_queue(client: Client, peer: Peer, label: str, queue: str) -> None:
    client().create_new_request_queue(label)

    client().remove_request_queue(label)

    assert not peer.exists(queue)


@pytest.mark.parametrize('create_nowait', [False, True])
@pytest.mark.parametrize('remove_nowait', [False, True])
def test_a_queue_removed_and_created_at_once_is_there_and_empty(
    client: Client, peer: Peer, label: str, queue: str, remove_nowait: bool, create_nowait: bool
) -> None:
    calling = client()
    for _ in range(10):
        calling.create_new_request_queue(label)
        calling.defer(routing_key=label, wait_publish=True).old()

        calling.remove_request_queue(label, nowait=remove_nowait)
        calling.create_new_request_queue(label, nowait=create_nowait)

        # The message of old tells the queue of old from its successor.
        eventually(lambda: is_there_and_empty(peer, queue))
        # Bound it may be a moment after it is there.
        eventually(lambda: calling.defer(routing_key=label).new() and peer.ready(queue))
        assert body_of(peer.take(queue))['func'] == 'new'


def is_there_and_empty(peer: Peer, queue: str) -> bool:
    try:
        return peer.ready(queue) == 0
    except NotFound:
        return False


def test_many_greenlets_may_create_and_remove_at_the_same_time(client: Client, peer: Peer, label: str) -> None:
    calling = client()

    def create_and_remove(number: int) -> None:
        calling.create_new_request_queue(f'{label}-{number}')
        if number % 2:
            calling.remove_request_queue(f'{label}-{number}')

    for greenlet in [gevent.spawn(create_and_remove, number) for number in range(20)]:
        greenlet.get(timeout=5)

    assert [peer.exists(f'rpc_{label}-{number}_request') for number in range(20)] == [True, False] * 10
