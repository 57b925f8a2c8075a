"""The fanout pair: every server handles every request, and the first answer is the result."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from gevent.event import AsyncResult

from amphora import (
    AmqpRpcFanoutClient,
    AmqpRpcFanoutServer,
    IgnoreRequest,
    NoResult,
    RemoteException,
    Unroutable,
    WrongRequest,
)
from tests.parties import Client, Gate, Server
from tests.rabbitmq import RabbitNode
from tests.rpc.peer import Peer, body_of
from tests.waiting import eventually

Meet = Callable[..., AmqpRpcFanoutClient]


@pytest.fixture
def meet(fanout_client: Client) -> Meet:
    """Makes a client whose requests all of these servers hear: they have shown it."""

    def make(*servers: AmqpRpcFanoutServer, **options: Any) -> AmqpRpcFanoutClient:
        heard: set[int] = set()
        for number, serving in enumerate(servers):
            serving.add_function(lambda number=number: heard.add(number), name='greet')
        calling = fanout_client(**options)
        eventually(lambda: calling.defer.greet() and len(heard) == len(servers))
        return calling

    return make


def recording(run: list[str], name: str) -> Callable[[Any], str]:
    """A function that says in `run` that it ran, and answers with its server's name."""

    def record(value: Any = None) -> str:
        run.append(f'{name} {value}')
        return name

    return record


def test_every_server_handles_the_request(fanout_server: Server, meet: Meet) -> None:
    run: list[str] = []
    calling = meet(*(fanout_server(named={'record': recording(run, name)}) for name in ('one', 'two', 'three')))

    calling.call.record('this')

    eventually(lambda: len(run) == 3)
    assert sorted(run) == ['one this', 'three this', 'two this']


def test_every_server_handles_every_one_of_many_requests(fanout_server: Server, meet: Meet) -> None:
    run: list[str] = []
    calling = meet(*(fanout_server(named={'record': recording(run, name)}) for name in ('one', 'two')))

    results = [calling.defer.record(number) for number in range(100)]

    assert {result.get(timeout=5) for result in results} <= {'one', 'two'}
    eventually(lambda: len(run) == 200)
    assert sorted(run) == sorted(f'{name} {number}' for name in ('one', 'two') for number in range(100))


def test_the_first_answer_is_the_result(fanout_server: Server, meet: Meet, gate: Gate) -> None:
    slow = fanout_server(named={'who': lambda: gate.function()('slow')})
    calling = meet(slow, fanout_server(named={'who': lambda: 'fast'}))

    assert calling.call.who() == 'fast'
    gate.open()
    eventually(lambda: gate.left)
    assert calling.call.who() in ('slow', 'fast')


def test_a_deferred_request_gives_an_async_result(fanout_server: Server, meet: Meet) -> None:
    calling = meet(fanout_server(named={'who': lambda: 'server'}))

    result = calling.defer.who()

    assert isinstance(result, AsyncResult)
    assert result.get(timeout=5) == 'server'


def test_a_server_that_ignores_a_request_leaves_the_answer_to_others(
    fanout_server: Server, meet: Meet, rabbit: RabbitNode, vhost: str
) -> None:
    ignored = []

    def ignore() -> None:
        ignored.append(True)
        raise IgnoreRequest

    url = rabbit.url_of(vhost)
    calling = meet(
        fanout_server(named={'who': ignore}, amqp_url=url),
        fanout_server(named={'who': lambda: 'answering'}, amqp_url=url),
        amqp_url=url,
    )

    assert [calling.call.who() for _ in range(10)] == ['answering'] * 10
    eventually(lambda: len(ignored) == 10)

    # Acked, so neither ready nor unacknowledged, and not delivered again.
    assert {name: messages for name, (messages, _) in rabbit.list_queues(vhost).items() if messages} == {}
    assert len(ignored) == 10


def test_a_request_that_every_server_ignores_has_no_result(fanout_server: Server, meet: Meet) -> None:
    ignored = []

    def ignore() -> None:
        ignored.append(True)
        raise IgnoreRequest

    calling = meet(*(fanout_server(ignore) for _ in range(2)))

    with pytest.raises(NoResult) as caught:
        calling.call(timeout=0.5).ignore()

    assert caught.value.executed is None
    assert len(ignored) == 2


def test_without_any_server_a_request_is_unroutable(fanout_client: Client) -> None:
    with pytest.raises(Unroutable) as caught:
        fanout_client().call.who()

    assert caught.value.executed is False


def test_a_stopped_server_does_not_answer_and_the_others_do(fanout_server: Server, meet: Meet) -> None:
    run: list[str] = []
    one, two = (fanout_server(named={'record': recording(run, name)}) for name in ('one', 'two'))
    calling = meet(one, two)

    one.stop()

    assert calling.call.record('after') == 'two'
    assert run == ['two after']


def test_a_server_that_comes_back_has_the_requests_of_meanwhile(fanout_server: Server, meet: Meet) -> None:
    run: list[str] = []
    one, two = (fanout_server(named={'record': recording(run, name)}) for name in ('one', 'two'))
    calling = meet(one, two)
    one.stop()
    assert calling.call.record('meanwhile') == 'two'

    one.serve()

    eventually(lambda: sorted(run) == ['one meanwhile', 'two meanwhile'])


def test_every_server_has_a_queue_of_its_own_that_expires(
    fanout_server: Server, meet: Meet, rabbit: RabbitNode, vhost: str, service: str
) -> None:
    url = rabbit.url_of(vhost)
    meet(*(fanout_server(amqp_url=url) for _ in range(2)), amqp_url=url)

    listed = json.loads(rabbit.ctl('list_queues', '-p', vhost, 'name', 'durable', 'arguments', '--formatter', 'json'))

    queues = [queue for queue in listed if re.fullmatch(f'rpc_{service}_.+_request', queue['name'])]
    assert len({queue['name'] for queue in queues}) == 2
    for queue in queues:
        assert queue['durable']
        assert dict_of(queue['arguments'])['x-expires'] > 0


def dict_of(arguments: Any) -> dict[str, Any]:
    """RabbitMQ's queue arguments, which some versions list as triples of name, type and value."""
    return arguments if isinstance(arguments, dict) else {name: value for name, _, value in arguments}


def test_the_request_exchange_is_a_fanout_exchange(fanout_client: Client, peer: Peer, service: str) -> None:
    with pytest.raises(Unroutable):
        fanout_client().call.anything()

    # The broker refuses a declaration that differs.
    with peer.fresh_channel() as channel:
        channel.exchange.declare(f'rpc_{service}_request', 'fanout', durable=True)


def test_a_fanout_pair_shares_nothing_with_a_server_that_is_none(fanout_server: Server, meet: Meet, peer: Peer) -> None:
    meet(fanout_server())

    assert not peer.exists(peer.request_queue)


def test_exceptions_reach_the_caller(fanout_server: Server, meet: Meet) -> None:
    def fail() -> None:
        raise ValueError('x', -5)

    calling = meet(fanout_server(fail))

    with pytest.raises(RemoteException) as caught:
        calling.call.fail()
    assert (caught.value.error_type, caught.value.args) == ('ValueError', ('x', -5))
    with pytest.raises(WrongRequest):
        calling.call.missing()


def test_its_client_has_the_options_of_the_other_client(
    fanout_server: Server, meet: Meet, peer: Peer, service: str, gate: Gate
) -> None:
    calling = meet(fanout_server(gate.function(), named={'send.sms': lambda text: text}), uuid='fan', timeout=0.4)

    assert calling.call.send.sms('one') == 'one'
    assert calling.call(function_name='send.sms')('two') == 'two'
    with pytest.raises(NoResult):
        calling.call.wait()
    with pytest.raises(NoResult):
        calling.call(timeout=0.2).wait()
    assert peer.exists(f'rpc_{service}_fan_response')


def test_its_clients_calls_wait_for_serve_without_autostart(
    fanout_server: Server, meet: Meet, fanout_client: Client
) -> None:
    meet(fanout_server(named={'who': lambda: 'server'}))
    calling = fanout_client(autostart=False)
    result = calling.defer.who()
    assert result.wait(0.2) is None

    calling.serve()

    assert result.get(timeout=5) == 'server'


def test_its_client_can_create_a_queue_that_hears_every_request(
    fanout_server: Server, meet: Meet, peer: Peer, service: str
) -> None:
    calling = meet(fanout_server(named={'who': lambda: 'server'}))

    calling.create_new_request_queue(f'{service}-log')

    assert calling.call.who() == 'server'
    assert body_of(peer.take(f'rpc_{service}-log_request'))['func'] == 'who'
    calling.remove_request_queue(f'{service}-log')
    assert not peer.exists(f'rpc_{service}-log_request')


def test_its_clients_functions_can_be_tuned(fanout_server: Server, meet: Meet, peer: Peer, service: str) -> None:
    calling = meet(fanout_server(named={'who': lambda: 'server'}))
    calling.create_new_request_queue(f'{service}-log')
    calling.tune_function('who')(lambda args, kwargs: {'routing_key': 'tuned'})

    calling.call.who()

    assert peer.take(f'rpc_{service}-log_request').delivery_info.routing_key == 'tuned'


def test_a_fanout_server_can_receive_from_a_queue(fanout_server: Server, meet: Meet, service: str) -> None:
    serving = fanout_server(named={'who': lambda: 'server'})
    calling = meet(serving)
    calling.create_new_request_queue(f'{service}-extra')
    calling.call.who()

    # Its own queue had the request, and the other one has it too.
    assert serving.receive_from_queue(f'{service}-extra', max_calls=1, timeout=5) == 1
