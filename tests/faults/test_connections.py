"""Connections that are closed, reset, half open, frozen or slow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import gevent
import pytest

from amphora.amqp import Connection
from tests.faults.parties import HEARTBEAT, RECONNECT, Ledgers, connected, living_greenlets, open_descriptors
from tests.ledger import GRACE
from tests.parties import Client, Server, Stopwatch
from tests.proxy import FROM_BROKER, TO_BROKER, Proxy
from tests.rabbitmq import RabbitNode
from tests.waiting import eventually


@pytest.mark.row('2')
@pytest.mark.limit(60, full=150)
def test_calls_go_on_while_the_broker_closes_all_connections_every_two_seconds(
    ledger_of: Ledgers, server: Server, client: Client, node: RabbitNode, full: bool
) -> None:
    calling = client()
    ledger = ledger_of(calling)
    serving = server(ledger.double(0.2))
    # As many at once as the server takes: from here on it has all the greenlets that it will ever need.
    ledger.call(range(-200, 0))
    ledger.wait()
    node.ctl('list_connections')
    greenlets, descriptors = living_greenlets(), open_descriptors()
    calls, closures = (10_000, 0) if full else (1_000, 0)

    ledger.keep_calling(lambda: ledger.sent >= calls, callers=100)
    while ledger.ended < ledger.sent:
        node.ctl('close_all_connections', 'test')
        closures += 1
        gevent.sleep(2)

    ledger.check()
    assert closures > (10 if full else 1)
    eventually(lambda: connected(calling, serving))
    eventually(lambda: living_greenlets() <= greenlets)
    eventually(lambda: open_descriptors() <= descriptors)


@pytest.mark.parametrize(
    ('directions', 'heartbeat'),
    [
        pytest.param([FROM_BROKER], HEARTBEAT, marks=pytest.mark.row('4'), id=FROM_BROKER),
        # It is the broker that notices, and it counts in whole seconds.
        pytest.param([TO_BROKER], 2 * HEARTBEAT, marks=pytest.mark.row('5'), id=TO_BROKER),
        pytest.param([FROM_BROKER, TO_BROKER], HEARTBEAT, marks=pytest.mark.row('4', '5'), id='both ways'),
    ],
)
@pytest.mark.parametrize('side', ['client', 'server'])
def test_a_half_open_connection_is_noticed_and_replaced(
    ledger_of: Ledgers, side: str, directions: list[str], heartbeat: int, server: Server, client: Client, proxy: Proxy
) -> None:
    through_proxy = {'amqp_url': proxy.url, 'heartbeat': heartbeat}
    calling = client(**(through_proxy if side == 'client' else {}))
    ledger = ledger_of(calling)
    serving = server(ledger.double(), **(through_proxy if side == 'server' else {}))
    ledger.call(range(10))
    ledger.wait()
    eventually(lambda: connected(calling, serving))
    affected = calling if side == 'client' else serving
    half_open = [affected._publishing.connection, affected._consuming.connection]

    proxy.drop(*directions)
    ledger.call(range(10, 60))

    eventually(lambda: all(each.closed for each in half_open), 2 * heartbeat + 1)
    eventually(lambda: ledger.ended == 60, RECONNECT)
    ledger.check()


@pytest.mark.row('5')
def test_a_client_comes_back_although_the_broker_still_believes_in_the_old_connections(
    ledger_of: Ledgers, server: Server, client: Client, proxy: Proxy
) -> None:
    # The broker gives up a connection with the default heartbeat after twelve seconds at the earliest.
    calling = client(amqp_url=proxy.url)
    ledger = ledger_of(calling, timeout=5)
    server(ledger.double())
    ledger.call(range(10))
    ledger.wait()
    eventually(lambda: connected(calling))
    old = calling._publishing.connection, calling._consuming.connection

    proxy.reset_towards_client()
    eventually(lambda: all(each.closed for each in old) and connected(calling), RECONNECT)
    ledger.call(range(10, 60))

    ledger.check()
    assert proxy.open_links == 4


@pytest.mark.row('4', '5')
@pytest.mark.parametrize('direction', [FROM_BROKER, TO_BROKER])
def test_a_close_waits_no_longer_than_a_second_for_its_answer(
    direction: str, proxy: Proxy, stopwatch: type[Stopwatch]
) -> None:
    connection = Connection.from_url(proxy.url)
    channel, other = connection.channel(), connection.channel()
    proxy.drop(direction)

    watch = stopwatch()
    channel.close()
    assert watch.seconds < 1 + GRACE

    watch = stopwatch()
    connection.close()
    assert watch.seconds < 1 + GRACE
    assert other.closed


@pytest.mark.row('4', '5')
def test_stopping_does_not_wait_for_the_heartbeat_to_notice_that_a_connection_is_half_open(
    ledger_of: Ledgers, server: Server, client: Client, proxy: Proxy, stopwatch: type[Stopwatch]
) -> None:
    calling, serving = client(amqp_url=proxy.url), server(amqp_url=proxy.url)
    ledger = ledger_of(calling)
    serving.add_function(ledger.double())
    ledger.call(range(10))
    ledger.check()
    eventually(lambda: connected(calling, serving))

    proxy.drop(FROM_BROKER, TO_BROKER)
    watch = stopwatch()
    gevent.joinall([gevent.spawn(calling.stop), gevent.spawn(serving.stop)], raise_error=True)

    # Five seconds for the broker to say that it delivers no more; one for each thing after that.
    assert watch.seconds < 12


@pytest.mark.row('6')
def test_a_broker_that_freezes_for_three_heartbeats_is_waited_for(
    ledger_of: Ledgers, server: Server, client: Client, node: RabbitNode
) -> None:
    calling = client(heartbeat=HEARTBEAT)
    ledger = ledger_of(calling)
    serving = server(ledger.double(0.1), heartbeat=HEARTBEAT)
    ledger.call(range(10))
    ledger.wait()
    eventually(lambda: connected(calling, serving))
    before = {
        each for party in (calling, serving) for each in (party._publishing.connection, party._consuming.connection)
    }
    resolved: Counter[int] = Counter()

    def defer(numbers: Iterable[int]) -> None:
        for number in numbers:
            ledger.expect(number)
            calling.defer(timeout=20).double(number).rawlink(lambda _, number=number: resolved.update([number]))

    # Some are under way when it freezes, some come while it is frozen.
    ledger.call(range(10, 40))
    defer(range(100, 130))
    eventually(lambda: len(ledger.executed) > 20)
    node.pause()
    try:
        frozen = gevent.spawn(gevent.sleep, 3 * HEARTBEAT)
        ledger.call(range(40, 70))
        defer(range(130, 160))
        eventually(lambda: all(each.closed for each in before), 2 * HEARTBEAT + 1)
        frozen.join()
    finally:
        node.resume()

    # Connecting to a frozen broker is given up after ten seconds; it thaws before.
    eventually(lambda: ledger.ended == 70 and len(resolved) == 60, 10)
    ledger.wait()
    ledger.check_logs()
    assert not ledger.errors
    # Replies that come again arrive before those to later requests.
    ledger.call(range(200, 210))
    ledger.wait()
    assert resolved == Counter([*range(100, 160)])
