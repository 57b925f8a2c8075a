"""`defer`: results that come later, results that nobody wants, and waiting for the publish."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import gevent
import pytest
from gevent.event import AsyncResult
from gevent.exceptions import BlockingSwitchOutError

from amphora import BufferFull, NoResult, PrettyCaller, RemoteException, WrongRequest
from tests.parties import Client, Gate, Server
from tests.proxy import Proxy
from tests.rpc.peer import Peer, body_of
from tests.stopwatch import Stopwatch
from tests.waiting import AMPLE, eventually


def add(x: int, y: int) -> int:
    return x + y


def test_it_returns_an_async_result_before_the_function_does(server: Server, client: Client, gate: Gate) -> None:
    server(gate.function())

    result = client().defer.wait('value')

    assert isinstance(result, AsyncResult)
    eventually(lambda: gate.entered)
    assert not result.ready()
    gate.open()
    assert result.get(timeout=5) == 'value'
    assert result.successful()


def test_results_come_in_the_order_of_their_own(server: Server, client: Client, gate: Gate) -> None:
    server(gate.function(), add)
    calling = client()
    slow, fast = calling.defer.wait('slow'), calling.defer.add(2, 3)

    assert fast.get(timeout=5) == 5
    assert not slow.ready()


def test_it_is_a_caller_whose_parts_can_be_kept(server: Server, client: Client) -> None:
    server(named={'send.text': lambda to: f'text {to}', 'send.html': lambda to: f'html {to}'})
    sender = client().defer.send

    results = [sender.text('a'), sender.html('b'), sender.text('c')]

    assert isinstance(sender, PrettyCaller)
    assert [result.get(timeout=5) for result in results] == ['text a', 'html b', 'text c']


def test_the_function_name_may_be_an_option(server: Server, client: Client) -> None:
    server(named={'send_message.email.html': lambda to: f'html to {to}'})

    result = client().defer(function_name='send_message.email.html')('root@example.com')

    assert result.get(timeout=5) == 'html to root@example.com'


def test_the_routing_key_may_be_an_option(client: Client, peer: Peer, service: str) -> None:
    calling = client()
    calling.create_new_request_queue(f'{service}-user12345')

    calling.defer(routing_key=f'{service}-user12345').show_message('Hello, user12345!')

    message = peer.take(f'rpc_{service}-user12345_request')
    assert body_of(message) == {'func': 'show_message', 'args': ['Hello, user12345!'], 'kwargs': {}}


def test_the_timeout_may_be_an_option(server: Server, client: Client, gate: Gate) -> None:
    server(gate.function())
    watch = Stopwatch()

    result = client().defer(timeout=0.3).wait()

    with pytest.raises(NoResult):
        result.get(timeout=5)
    watch.check_timeout(0.3)


def test_the_clients_timeout_holds_for_it(server: Server, client: Client, gate: Gate) -> None:
    server(gate.function())

    result = client(timeout=AMPLE).defer.wait()

    with pytest.raises(NoResult) as caught:
        result.get(timeout=5)
    assert caught.value.executed is None


def test_get_raises_what_the_function_raised(server: Server, client: Client) -> None:
    def divide(x: int, y: int) -> float:
        return x / y

    server(divide)
    result = client().defer.divide(10, 0)

    with pytest.raises(RemoteException) as caught:
        result.get(timeout=5)

    assert caught.value.error_type == 'ZeroDivisionError'
    assert not result.successful()


def test_get_raises_wrong_request_for_an_unknown_function(server: Server, client: Client) -> None:
    server()

    with pytest.raises(WrongRequest):
        client().defer.missing().get(timeout=5)


def test_an_argument_that_does_not_serialise_raises_at_once(client: Client) -> None:
    with pytest.raises(TypeError):
        client().defer.add(object(), 1)


# -- wait_publish ------------------------------------------------------------------------------------------------------


def test_with_wait_publish_the_broker_has_the_request_when_it_returns(client: Client, peer: Peer) -> None:
    client().defer(wait_publish=True).add(2, 3)

    assert peer.ready() == 1


def test_with_wait_publish_it_waits_for_a_broker(gateway: Proxy, client: Client, peer: Peer) -> None:
    calling = client(amqp_url=gateway.url)
    deferring = gevent.spawn(calling.defer(wait_publish=True).add, 2, 3)
    deferring.join(0.2)
    assert not deferring.dead

    gateway.admit()

    assert isinstance(deferring.get(timeout=5), AsyncResult)
    assert peer.ready() == 1


@pytest.mark.parametrize('options', [{}, {'wait_publish': False}])
def test_without_wait_publish_it_waits_for_nothing(gateway: Proxy, client: Client, options: dict[str, Any]) -> None:
    calling = client(amqp_url=gateway.url)

    with gevent.Timeout(0.5):
        result = calling.defer(**options).add(2, 3)

    assert not result.ready()


# -- results that nobody wants -----------------------------------------------------------------------------------------


def test_the_request_of_a_dropped_result_is_still_sent(server: Server, client: Client) -> None:
    run: list[int] = []
    server(named={'remember': run.append})
    calling = client()

    for number in range(100):
        calling.defer.remember(number)
        gc.collect(0)

    eventually(lambda: len(run) == 100)
    assert sorted(run) == list(range(100))


def test_the_request_of_a_result_dropped_while_no_broker_listens_is_still_sent(
    gateway: Proxy, server: Server, client: Client
) -> None:
    run: list[int] = []
    server(named={'remember': run.append})
    client(amqp_url=gateway.url).defer.remember(1)
    gc.collect()

    gateway.admit()

    eventually(lambda: run == [1], 10)


def test_a_dropped_result_is_forgotten(server: Server, client: Client, gate: Gate) -> None:
    server(gate.function())
    result = client().defer.wait()
    eventually(lambda: gate.entered)
    dropped = weakref.ref(result)

    del result
    gc.collect()

    assert dropped() is None


def test_the_answer_to_a_dropped_result_disturbs_nothing(server: Server, client: Client, gate: Gate) -> None:
    server(gate.function(), add)
    calling = client()
    calling.defer.wait()
    eventually(lambda: gate.entered)
    gc.collect()

    gate.open()
    eventually(lambda: gate.left)

    assert calling.call.add(2, 3) == 5


@pytest.mark.parametrize('link', ['rawlink', 'link'])
def test_a_result_with_a_linked_callback_is_kept(server: Server, client: Client, gate: Gate, link: str) -> None:
    called: list[Any] = []
    server(gate.function())
    calling = client()

    def linked() -> None:
        result = calling.defer.wait('value')
        (result.rawlink if link == 'rawlink' else link_through_greenlet(result))(lambda done: called.append(done.value))

    linked()
    eventually(lambda: gate.entered)
    gc.collect()
    gate.open()

    eventually(lambda: called == ['value'])


def link_through_greenlet(result: AsyncResult) -> Any:
    """A greenlet that waits for the result keeps it, as a callback does."""
    return lambda callback: gevent.spawn(lambda: (result.get(), callback(result)))


def test_a_linked_callback_hears_of_a_timeout(client: Client) -> None:
    called: list[Any] = []

    client(timeout=0.3).defer.add(2, 3).rawlink(lambda done: called.append(done.exception))
    gc.collect()

    eventually(lambda: called)
    # NotSent, when it took longer than that to connect.
    assert isinstance(called[0], NoResult)


@pytest.mark.parametrize(
    'call',
    [
        lambda calling: calling.call.store('of a callback'),
        lambda calling: calling.cast.store('of a callback'),
        lambda calling: calling.defer(wait_publish=True).store('of a callback'),
    ],
    ids=['call', 'cast', 'defer(wait_publish=True)'],
)
def test_what_waits_sends_nothing_from_a_callback_of_the_event_loop(
    server: Server, client: Client, call: Callable[[Any], Any]
) -> None:
    stored: list[str] = []

    def store(value: str) -> None:
        stored.append(value)

    server(store)
    calling = client()
    raised: list[BaseException] = []

    def callback(result: AsyncResult) -> None:
        try:
            call(calling)
        except BaseException as error:
            raised.append(error)

    calling.defer.store('before').rawlink(callback)
    eventually(lambda: raised)
    calling.call.store('after')

    assert isinstance(raised[0], BlockingSwitchOutError)
    assert 'nothing was sent' in str(raised[0])
    assert stored == ['before', 'after']


# -- too many ----------------------------------------------------------------------------------------------------------


@pytest.mark.limit(30)
def test_the_buffer_of_requests_that_wait_for_the_broker_is_bounded(gateway: Proxy, client: Client) -> None:
    calling = client(amqp_url=gateway.url, timeout=60)
    megabyte = 'x' * 1_000_000
    accepted = []

    def fill() -> None:
        for _ in range(1000):
            accepted.append(calling.defer.store(megabyte))

    with pytest.raises(BufferFull):
        fill()

    assert accepted
    assert not accepted[0].ready()
