"""No broker at the start, or one that does not let anybody in."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import gevent
import pytest
from gevent.event import AsyncResult

from amphora import AmqpError, NotSent
from amphora.amqp import LoginRefused, NotAllowed
from amphora.timing import Backoff
from tests.faults.parties import RECONNECT, Ledgers
from tests.parties import Client, Server
from tests.proxy import Proxy
from tests.rabbitmq import HOST, RabbitNode
from tests.stopwatch import Stopwatch
from tests.waiting import eventually

# A client has two connections, and so has a server.
CONNECTIONS = 4


@dataclass
class Obstacle:
    """Why a broker lets nobody in.

    :ivar url: where it does not.
    :ivar error: what its users are told.
    :ivar mend: removes the obstacle.
    """

    url: str
    error: type[AmqpError]
    mend: Callable[[], object]


@pytest.fixture(params=['password', 'vhost'])
def obstacle(node: RabbitNode, proxy: Proxy, request: pytest.FixtureRequest) -> Iterator[Obstacle]:
    """A wrong password, or a missing virtual host."""
    name = f'test-{secrets.token_hex(6)}'
    url = f'amqp://{name}:right@{HOST}:{proxy.port}/{name}'

    def add_vhost() -> None:
        node.ctl('add_vhost', name)
        node.ctl('set_permissions', '-p', name, name, '.*', '.*', '.*')

    if request.param == 'password':
        node.ctl('add_user', name, 'another')
        add_vhost()
        yield Obstacle(url, LoginRefused, lambda: node.ctl('change_password', name, 'right'))
    else:
        node.ctl('add_user', name, 'right')
        yield Obstacle(url, NotAllowed, add_vhost)
    if name in node.ctl('list_vhosts'):
        node.ctl('delete_vhost', name)
    node.ctl('delete_user', name)


def most_attempts(seconds: float) -> int:
    """How often one connection is tried in so many seconds when each delay is as short as can be drawn."""
    backoff = Backoff()
    attempts, elapsed = 1, 0.0
    while (elapsed := elapsed + backoff.next_delay(1)) <= seconds:
        attempts += 1
    return attempts


@pytest.mark.row('18')
def test_who_is_not_let_in_hears_so_at_once_and_gets_in_when_that_is_mended(
    server: Server, client: Client, proxy: Proxy, obstacle: Obstacle, full: bool
) -> None:
    watch = Stopwatch()
    calling = client(amqp_url=obstacle.url)
    with pytest.raises(obstacle.error):
        calling.call.abs(-1)
    assert watch.awake <= 1
    serving = server(abs, amqp_url=obstacle.url, serve=False)
    with pytest.raises(obstacle.error):
        serving.serve(nowait=False)
    serving.serve()

    # Calls are no reason to try more often.
    while watch.seconds < (10 if full else 2):
        with pytest.raises(obstacle.error):
            calling.call.abs(-1)
        gevent.sleep(0.01)
    # The server has begun anew once.
    assert proxy.accepted <= CONNECTIONS * most_attempts(watch.seconds) + 2

    obstacle.mend()

    def let_in() -> bool:
        try:
            return bool(calling.call(timeout=RECONNECT).abs(-1) == 1)
        except obstacle.error:
            return False

    eventually(let_in, RECONNECT)


@pytest.mark.row('19')
def test_calls_made_while_there_is_no_broker_succeed_when_it_appears(
    ledger_of: Ledgers, server: Server, client: Client, proxy: Proxy, full: bool
) -> None:
    proxy.refuse()
    ledger = ledger_of(client(amqp_url=proxy.url))
    server(ledger.double(), amqp_url=proxy.url)
    ledger.call(range(1000 if full else 100))
    gevent.idle()
    assert not ledger.ended

    proxy.admit()

    eventually(lambda: ledger.ended == ledger.sent, RECONNECT)
    ledger.check()
    assert not ledger.duplicated


@pytest.mark.row('19')
def test_calls_made_before_the_brokers_own_start_succeed_after_it(
    ledger_of: Ledgers, server: Server, client: Client, node: RabbitNode
) -> None:
    node.stop()
    ledger = ledger_of(client())
    server(ledger.double())
    ledger.call(range(100))

    node.start()

    eventually(lambda: ledger.ended == 100, RECONNECT)
    ledger.check()
    assert not ledger.duplicated


@pytest.mark.row('19')
@pytest.mark.parametrize('verb', ['call', 'defer'])
def test_a_call_without_a_broker_ends_on_time_and_says_that_it_was_not_sent(
    client: Client, proxy: Proxy, verb: str
) -> None:
    proxy.refuse()
    calling = client(amqp_url=proxy.url)
    watch = Stopwatch()

    with pytest.raises(NotSent) as raised:
        outcome(getattr(calling, verb)(timeout=0.5).double(1))

    assert watch.seconds >= 0.5
    watch.check_timeout(0.5)
    assert raised.value.executed is False


@pytest.mark.row('19')
def test_a_server_without_a_broker_waits_until_it_is_told_to_stop(server: Server, proxy: Proxy) -> None:
    proxy.refuse()
    serving = server(abs, amqp_url=proxy.url, serve=False)
    blocked = gevent.spawn(serving.serve, nowait=False)
    assert serving.wait_ready(0.5) is False
    assert not blocked.dead

    watch = Stopwatch()
    serving.stop()

    assert watch.awake <= 1
    proxy.admit()
    serving.serve()
    assert serving.wait_ready(RECONNECT)


def outcome(result: Any) -> Any:
    """What a call, or a deferred call, came to."""
    return result.get(timeout=5) if isinstance(result, AsyncResult) else result
