"""A client's calls: their options, their outcomes, and a client's own life."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest

from amphora import (
    AmqpError,
    AmqpRpcClient,
    NoResult,
    NotSent,
    PrettyCaller,
    QueueFull,
    RpcMsgPackSerializer,
    Unroutable,
    WrongThread,
)
from amphora.amqp import Connection, Message, PublishNacked
from tests.parties import Client, Gate, Server
from tests.proxy import Proxy
from tests.rabbitmq import RabbitNode
from tests.rpc.peer import Peer, body_of
from tests.stopwatch import Stopwatch
from tests.waiting import AMPLE, eventually

# How long to look for something that must not happen.
NEVER = 0.3


def add(x: Any, y: Any) -> Any:
    return x + y


def describe(*args: Any, **kwargs: Any) -> list[Any]:
    return [list(args), kwargs]


# -- what is called ----------------------------------------------------------------------------------------------------


def test_a_call_returns_the_result(server: Server, client: Client) -> None:
    server(add)

    assert client().call.add(2, 3) == 5


def test_arguments_arrive_as_they_were_given(server: Server, client: Client) -> None:
    server(describe)

    assert client().call.describe(1, 'two', [3.5], four={'five': None}) == [[1, 'two', [3.5]], {'four': {'five': None}}]


def test_a_result_of_none_is_a_result(server: Server, client: Client) -> None:
    server(named={'nothing': lambda: None})

    assert client().call.nothing() is None


def test_attributes_make_a_dotted_name(server: Server, client: Client) -> None:
    server(named={'send_message.sms': lambda number, text: f'{text} to {number}'})

    assert client().call.send_message.sms('+12345678901', 'Message') == 'Message to +12345678901'


def test_a_part_of_a_name_can_be_kept_and_used_again(server: Server, client: Client) -> None:
    names = ('text', 'html')
    server(named={f'send_message.email.{name}': functools.partial(describe, name) for name in names})
    sender = client().call.send_message.email

    assert isinstance(sender, PrettyCaller)
    assert sender.text(1) == [['text', 1], {}]
    assert sender.html(2) == [['html', 2], {}]
    assert sender.text(3) == [['text', 3], {}]


def test_the_function_name_may_be_an_option(server: Server, client: Client) -> None:
    server(named={f'send_message.email.{name}': functools.partial(describe, name) for name in ('html', 'text')})
    calling = client()

    results = [calling.call(function_name='send_message.email.' + name)('Hello!') for name in ('html', 'text')]

    assert results == [[['html', 'Hello!'], {}], [['text', 'Hello!'], {}]]


def test_options_of_a_call_do_not_share_the_functions_keyword_arguments(server: Server, client: Client) -> None:
    server(describe)
    kwargs = {'timeout': 1, 'routing_key': 'a', 'function_name': 'b', 'wait_publish': 'c', 'self': 'd', 'func': 'e'}

    assert client().call(timeout=5).describe(**kwargs) == [[], kwargs]


@pytest.mark.parametrize('verb', ['call', 'defer'])
def test_an_unknown_option_of_a_call_is_a_type_error(client: Client, verb: str) -> None:
    with pytest.raises(TypeError, match='timout'):
        getattr(client(), verb)(timout=5)


@pytest.mark.parametrize('name', ['__len__', '__iter__', '__wrapped__', '__html__', '__deepcopy__', '__array__'])
def test_dunder_attributes_are_missing_and_send_nothing(client: Client, peer: Peer, name: str) -> None:
    calling = client()
    for caller in (calling.call, calling.defer, calling.call.part):
        with pytest.raises(AttributeError):
            getattr(caller, name)
    calling.defer(wait_publish=True).marker()

    assert b'marker' in peer.take().body
    assert peer.ready() == 0


def test_routing_key_chooses_the_queue(server: Server, client: Client, service: str) -> None:
    label = f'{service}-user12345'
    calling = client()
    calling.create_new_request_queue(label)
    server(named={'who': lambda: 'anybody'})
    special = server(named={'who': lambda: 'user12345'})
    special.receive_from_queue(label, block=False)

    # The other server does not receive from that queue, and the special one handles it.
    assert {calling.call(routing_key=label).who() for _ in range(10)} == {'user12345'}


# -- how long it waits -------------------------------------------------------------------------------------------------


def test_a_call_waits_as_long_as_the_client_says(server: Server, client: Client, gate: Gate) -> None:
    server(gate.function())
    calling = client(timeout=0.4)

    watch = Stopwatch()
    with pytest.raises(NoResult):
        calling.call.wait()

    watch.check_timeout(0.4)


@pytest.mark.parametrize('of_the_client', [0.1, 30])
def test_a_calls_own_timeout_goes_before_the_clients(
    server: Server, client: Client, gate: Gate, of_the_client: float
) -> None:
    server(gate.function())
    calling = client(timeout=of_the_client)

    watch = Stopwatch()
    with pytest.raises(NoResult):
        calling.call(timeout=0.5).wait()

    watch.check_timeout(0.5)


def test_a_call_that_may_have_run_says_so(server: Server, client: Client, gate: Gate) -> None:
    server(gate.function())

    with pytest.raises(NoResult) as caught:
        client().call(timeout=AMPLE).wait()

    assert type(caught.value) is NoResult
    assert caught.value.executed is None
    assert gate.entered == [None]


def test_an_answer_after_the_timeout_disturbs_nothing(server: Server, client: Client, gate: Gate) -> None:
    server(gate.function(), add)
    calling = client()
    with pytest.raises(NoResult):
        calling.call(timeout=AMPLE).wait('late')

    gate.open()
    eventually(lambda: gate.left)

    assert calling.call.add(2, 3) == 5


# -- before there is anybody -------------------------------------------------------------------------------------------


def test_a_call_made_before_any_server_has_started_waits_for_one(server: Server, client: Client, peer: Peer) -> None:
    result = gevent.spawn(client().call.add, 2, 3)
    eventually(lambda: peer.exists(peer.request_queue) and peer.ready())
    assert not result.dead

    server(add)

    assert result.get(timeout=5) == 5


def test_a_call_made_while_no_broker_listens_waits_for_it(gateway: Proxy, server: Server, client: Client) -> None:
    server(add)
    result = gevent.spawn(client(amqp_url=gateway.url).call.add, 2, 3)
    assert result.join(NEVER) is None
    assert not result.dead

    gateway.admit()

    assert result.get(timeout=10) == 5


def test_a_server_started_while_no_broker_listens_waits_for_it(gateway: Proxy, server: Server, client: Client) -> None:
    server(add, amqp_url=gateway.url)
    result = client().defer.add(2, 3)
    assert result.wait(NEVER) is None

    gateway.admit()

    assert result.get(timeout=10) == 5


# -- requests that certainly did not run -------------------------------------------------------------------------------


@pytest.mark.parametrize('verb', ['call', 'defer'])
def test_a_routing_key_without_a_queue_is_unroutable(server: Server, client: Client, verb: str) -> None:
    server(add)
    calling = client()
    watch = Stopwatch()

    with pytest.raises(Unroutable) as caught:
        outcome(getattr(calling, verb)(routing_key='nowhere').add(2, 3))

    assert caught.value.executed is False
    assert isinstance(caught.value, NoResult)
    assert watch.awake < 2


@pytest.mark.parametrize('verb', ['call', 'defer'])
def test_without_a_broker_until_the_timeout_the_request_is_not_sent(gateway: Proxy, client: Client, verb: str) -> None:
    calling = client(amqp_url=gateway.url)

    watch = Stopwatch()
    with pytest.raises(NotSent, match='not sent in time: there is no connection: ') as caught:
        outcome(getattr(calling, verb)(timeout=0.4).add(2, 3))

    assert caught.value.executed is False
    assert isinstance(caught.value, NoResult)
    watch.check_timeout(0.4)


@pytest.mark.parametrize('was_started', [True, False])
def test_a_client_that_is_stopped_does_not_blame_the_broker(client: Client, was_started: bool) -> None:
    calling = client(autostart=was_started)
    if was_started:
        calling.stop()

    with pytest.raises(NotSent, match='there is no connection: it was stopped, or not started'):
        calling.call(timeout=0.2).add(2, 3)


@pytest.mark.parametrize('verb', ['call', 'defer'])
def test_a_program_that_was_busy_until_the_timeout_does_not_blame_the_broker(
    server: Server, client: Client, verb: str
) -> None:
    server(add)
    calling = client()
    assert calling.call.add(1, 1) == 2

    @calling.tune_function('add')
    def calculate(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, str]:
        time.sleep(0.3)
        return {'routing_key': ''}

    with pytest.raises(
        NotSent, match='not sent in time: its time was over before this program came to send it'
    ) as caught:
        outcome(getattr(calling, verb)(timeout=0.2).add(2, 3))

    assert caught.value.executed is False


@pytest.mark.parametrize('verb', ['call', 'defer'])
def test_a_queue_that_refuses_the_request_is_full(client: Client, peer: Peer, service: str, verb: str) -> None:
    peer.declare_queue(f'rpc_{service}-small_request', 'small', max_length=1, overflow='reject-publish')
    calling = client()
    first = calling.defer(routing_key='small', wait_publish=True).add(1, 2)

    with pytest.raises(QueueFull) as caught:
        outcome(getattr(calling, verb)(routing_key='small').add(2, 3))

    assert caught.value.executed is False
    assert isinstance(caught.value, NoResult)
    assert not first.ready()


@pytest.fixture
def full_quorum_queue(amqp_url: str, service: str) -> Iterator[Peer]:
    """The routing key `small` leads to a quorum queue that is full, and refuses more."""
    with Connection.from_url(amqp_url) as connection:
        peer = Peer(connection, service)
        peer.channel.exchange.declare(peer.request_exchange, 'direct', durable=True)
        arguments = {'x-queue-type': 'quorum', 'x-max-length': 1, 'x-overflow': 'reject-publish'}
        peer.request_queue = f'rpc_{service}-small_request'
        peer.channel.queue.declare(peer.request_queue, durable=True, arguments=arguments)
        peer.channel.queue.bind(peer.request_queue, peer.request_exchange, 'small')
        peer.channel.confirm.select()
        with pytest.raises(PublishNacked):
            fill(peer)
        yield peer


def fill(peer: Peer) -> None:
    while True:
        peer.channel.basic.publish(Message(b'{}'), peer.request_exchange, 'small', wait=True)


def test_a_quorum_queue_that_stays_full_is_full_at_the_end_of_the_calls_time(
    client: Client, full_quorum_queue: Peer
) -> None:
    calling = client(queue_type='quorum')

    watch = Stopwatch()
    with pytest.raises(QueueFull) as caught:
        calling.call(routing_key='small', timeout=AMPLE).add(2, 3)

    assert caught.value.executed is False
    watch.check_timeout(AMPLE)


def test_a_request_that_a_quorum_queue_refused_is_sent_again_until_there_is_room(
    client: Client, full_quorum_queue: Peer
) -> None:
    ready = full_quorum_queue.ready()
    result = client(queue_type='quorum').defer(routing_key='small', timeout=3).add(2, 3)
    gevent.sleep(NEVER)
    assert full_quorum_queue.ready() == ready
    assert not result.ready()

    for _ in range(ready):
        full_quorum_queue.take()

    assert body_of(full_quorum_queue.take())['args'] == [2, 3]
    with pytest.raises(NoResult) as caught:
        result.get(timeout=5)
    # Somebody has it now.
    assert caught.value.executed is None


def outcome(result: Any) -> Any:
    """What a call, or a deferred call, came to."""
    return result.get(timeout=5) if hasattr(result, 'get') else result


# -- errors of the login -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize('wrong', ['password', 'vhost'])
def test_a_wrong_password_or_vhost_raises_from_the_first_call(client: Client, rabbit: RabbitNode, wrong: str) -> None:
    urls = {'password': rabbit.url.replace('guest:guest', 'guest:secret'), 'vhost': rabbit.url_of('missing')}
    watch = Stopwatch()

    with pytest.raises(AmqpError) as caught:
        client(amqp_url=urls[wrong]).call.add(2, 3)

    assert watch.awake < 1
    assert 'secret' not in str(caught.value)


@pytest.mark.parametrize('wrong', ['password', 'vhost'])
def test_a_server_that_cannot_log_in_says_so(server: Server, rabbit: RabbitNode, wrong: str) -> None:
    urls = {'password': rabbit.url.replace('guest:guest', 'guest:secret'), 'vhost': rabbit.url_of('missing')}
    watch = Stopwatch()

    with pytest.raises(AmqpError):
        server(amqp_url=urls[wrong], serve=False).serve(nowait=False)

    assert watch.awake < 1


# -- a client's life ---------------------------------------------------------------------------------------------------


def test_the_uuid_is_in_the_name_of_the_reply_queue_and_in_reply_to(client: Client, peer: Peer, service: str) -> None:
    client(uuid='client-7').defer.add(2, 3)

    assert peer_take(peer).properties['reply_to'] == 'client-7'
    eventually(lambda: peer.exists(f'rpc_{service}_client-7_response'))


def test_without_a_uuid_every_client_has_one_of_its_own(client: Client, peer: Peer, service: str) -> None:
    for _ in range(2):
        client().defer(wait_publish=True).add(2, 3)

    uuids = {peer_take(peer).properties['reply_to'] for _ in range(2)}

    assert len(uuids) == 2
    for uuid in uuids:
        eventually(lambda uuid=uuid: peer.exists(f'rpc_{service}_{uuid}_response'))


def test_a_client_takes_its_parameters_by_position(server: Server, amqp_url: str, service: str, peer: Peer) -> None:
    made = AmqpRpcClient(service, 'by-position', RpcMsgPackSerializer, 0.3, False, amqp_url=amqp_url)
    try:
        assert not peer.exists(f'rpc_{service}_by-position_response')
        with pytest.raises(NotSent):
            made.call.add(b'\x00', b'\xff')

        made.serve()
        eventually(lambda: peer.exists(f'rpc_{service}_by-position_response'))
        server(add, serializer=RpcMsgPackSerializer)
        assert made.call(timeout=5).add(b'\x00', b'\xff') == b'\x00\xff'
    finally:
        made.stop()


def test_without_autostart_calls_wait_for_serve(server: Server, client: Client) -> None:
    server(add)
    calling = client(autostart=False)
    blocked, deferred = gevent.spawn(calling.call.add, 2, 3), calling.defer.add(3, 4)
    assert deferred.wait(NEVER) is None
    assert not blocked.dead

    calling.serve()

    assert deferred.get(timeout=5) == 7
    assert blocked.get(timeout=5) == 5


def test_with_autostart_the_client_connects_by_itself(client: Client, peer: Peer, service: str) -> None:
    client(uuid='eager')

    eventually(lambda: peer.exists(f'rpc_{service}_eager_response'))


def test_a_clients_serve_blocks_only_when_told_to(server: Server, client: Client) -> None:
    server(add)
    calling = client(autostart=False)

    blocked = gevent.spawn(calling.serve, nowait=False)
    assert calling.call.add(2, 3) == 5
    assert not blocked.dead

    calling.stop()
    blocked.get(timeout=5)


def test_what_a_stopped_client_did_not_send_is_sent_when_it_serves_again(
    server: Server, client: Client, peer: Peer
) -> None:
    server(add)
    calling = client()
    assert calling.call.add(1, 1) == 2
    calling.stop()

    deferred = [calling.defer.add(number, 1) for number in range(10)]
    blocked = gevent.spawn(calling.call.add, 2, 3)
    assert deferred[-1].wait(NEVER) is None
    calling.serve()

    assert [result.get(timeout=5) for result in deferred] == list(range(1, 11))
    assert blocked.get(timeout=5) == 5


def test_a_client_whose_publisher_is_stopped_holds_requests_and_takes_replies(
    server: Server, client: Client, gate: Gate
) -> None:
    server(gate.function(), add)
    calling = client()
    running = calling.defer.wait('running')
    eventually(lambda: gate.entered)

    calling.stop_publisher()
    held = calling.defer.add(2, 3)
    gate.open()

    assert running.get(timeout=5) == 'running'
    assert held.wait(NEVER) is None
    calling.serve()
    assert held.get(timeout=5) == 5


def test_a_client_whose_consumer_is_stopped_sends_requests_and_leaves_replies_in_their_queue(
    client: Client, server: Server, peer: Peer, service: str
) -> None:
    server(add)
    calling = client(uuid='half')
    replies = f'rpc_{service}_half_response'
    assert calling.call.add(1, 1) == 2

    calling.stop_consumer()
    result = calling.defer.add(2, 3)
    eventually(lambda: peer.ready(replies) == 1)
    assert not result.ready()

    calling.serve()
    assert result.get(timeout=5) == 5


def test_a_client_that_never_served_can_be_stopped(client: Client) -> None:
    client(autostart=False).stop()


@pytest.mark.parametrize(
    'use',
    [
        lambda client: client.call.add(2, 3),
        lambda client: client.defer.add(2, 3),
        lambda client: client.create_new_request_queue('label'),
        lambda client: client.remove_request_queue('label'),
        lambda client: client.serve(),
        lambda client: client.stop(),
        lambda client: client.stop_publisher(),
        lambda client: client.stop_consumer(),
    ],
    ids=['call', 'defer', 'create', 'remove', 'serve', 'stop', 'stop_publisher', 'stop_consumer'],
)
def test_a_client_is_used_from_the_thread_it_was_made_in(
    server: Server, client: Client, elsewhere: Callable[..., Any], use: Callable[[AmqpRpcClient], Any]
) -> None:
    server(add)
    calling = client()
    assert calling.call.add(2, 3) == 5

    with pytest.raises(WrongThread):
        elsewhere(use, calling)

    assert calling.call.add(2, 3) == 5


def test_what_another_thread_may_not_ask_for_is_not_done_later(
    client: Client, peer: Peer, elsewhere: Callable[..., Any], label: str, queue: str
) -> None:
    calling = client()

    with pytest.raises(WrongThread):
        elsewhere(lambda: calling.create_new_request_queue(label, nowait=True))
    calling.create_new_request_queue(label + '-other')

    assert not peer.exists(queue)


# -- many at once ------------------------------------------------------------------------------------------------------


def test_ten_thousand_calls_of_a_hundred_greenlets_give_each_its_own_answer(server: Server, client: Client) -> None:
    server(add)
    calling = client()

    def call_a_hundred_times(caller: int) -> list[int]:
        return [calling.call.add(caller * 1000, number) for number in range(100)]

    callers = [gevent.spawn(call_a_hundred_times, caller) for caller in range(100)]

    for caller, greenlet in enumerate(callers):
        assert greenlet.get(timeout=30) == [caller * 1000 + number for number in range(100)]


def test_clients_of_one_service_get_only_their_own_answers(server: Server, client: Client) -> None:
    server(named={'echo': lambda value: value})
    clients = [client() for _ in range(3)]

    results = [
        [calling.defer.echo(f'{which} {number}') for number in range(50)] for which, calling in enumerate(clients)
    ]

    for which, answers in enumerate(results):
        assert [answer.get(timeout=5) for answer in answers] == [f'{which} {number}' for number in range(50)]


def test_services_do_not_hear_each_other(server: Server, client: Client, service: str, amqp_url: str) -> None:
    server(named={'who': lambda: 'this'})
    other = AmqpRpcClient(f'{service}-other', amqp_url=amqp_url)
    try:
        with pytest.raises(NoResult):
            other.call(timeout=0.3).who()
    finally:
        other.stop()

    assert client().call.who() == 'this'


def peer_take(peer: Peer) -> Any:
    eventually(lambda: peer.exists(peer.request_queue))
    return peer.take()
