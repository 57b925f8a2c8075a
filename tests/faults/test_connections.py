"""Connections that are closed, reset, half open, frozen or slow."""

from __future__ import annotations

import os

import pytest

from tests.faults.parties import HEARTBEAT, RECONNECT, Ledgers, connected
from tests.parties import Client, Server, Stopwatch
from tests.proxy import FROM_BROKER, TO_BROKER, Proxy
from tests.rabbitmq import RabbitNode
from tests.waiting import eventually


@pytest.mark.row('2')
def test_calls_go_on_while_the_broker_closes_all_connections_again_and_again(
    ledger_of: Ledgers, server: Server, client: Client, node: RabbitNode
) -> None:
    calling = client()
    ledger = ledger_of(calling)
    serving = server(ledger.double())
    stop = []
    ledger.keep_calling(lambda: bool(stop), callers=50)
    eventually(lambda: ledger.ended > 100)
    descriptors = len(os.listdir('/proc/self/fd'))

    for _ in range(3):
        node.ctl('close_all_connections', 'test')
        ended = ledger.ended
        eventually(lambda ended=ended: ledger.ended > ended + 100)
    stop.append(True)

    ledger.check()
    eventually(lambda: connected(calling, serving))
    eventually(lambda: len(os.listdir('/proc/self/fd')) <= descriptors)


@pytest.mark.parametrize(
    'direction',
    [pytest.param(FROM_BROKER, marks=pytest.mark.row('4')), pytest.param(TO_BROKER, marks=pytest.mark.row('5'))],
)
@pytest.mark.parametrize('side', ['client', 'server'])
def test_a_half_open_connection_is_noticed_and_replaced(
    ledger_of: Ledgers, side: str, direction: str, server: Server, client: Client, proxy: Proxy
) -> None:
    through_proxy = {'amqp_url': proxy.url, 'heartbeat': HEARTBEAT}
    calling = client(**(through_proxy if side == 'client' else {}))
    ledger = ledger_of(calling)
    serving = server(ledger.double(), **(through_proxy if side == 'server' else {}))
    ledger.call(range(10))
    ledger.wait()
    eventually(lambda: connected(calling, serving))

    proxy.drop(direction)
    ledger.call(range(10, 60))

    # The broker itself takes somewhat longer than two heartbeats to notice.
    eventually(lambda: ledger.ended == 60, 2 * HEARTBEAT + 1 + RECONNECT)
    ledger.check()


@pytest.mark.row('4')
def test_a_client_stops_in_little_time_although_its_connections_are_half_open(
    ledger_of: Ledgers, server: Server, client: Client, proxy: Proxy, stopwatch: type[Stopwatch]
) -> None:
    calling = client(amqp_url=proxy.url, heartbeat=HEARTBEAT)
    ledger = ledger_of(calling)
    server(ledger.double())
    ledger.call(range(10))
    ledger.check()

    proxy.drop(FROM_BROKER)
    watch = stopwatch()
    calling.stop()

    assert watch.seconds < 2 * HEARTBEAT + 2


@pytest.mark.row('6')
def test_a_broker_that_freezes_for_three_heartbeats_is_waited_for(
    ledger_of: Ledgers, server: Server, client: Client, node: RabbitNode
) -> None:
    calling = client(heartbeat=HEARTBEAT)
    ledger = ledger_of(calling)
    serving = server(ledger.double(), heartbeat=HEARTBEAT)
    ledger.call(range(10))
    ledger.wait()
    before = {each._publishing.connection for each in (calling, serving)}

    node.pause()
    try:
        ledger.call(range(10, 60))
        eventually(lambda: not any(each._publishing.connection in before for each in (calling, serving)), 4)
    finally:
        node.resume()

    # Connecting to a frozen broker is given up after ten seconds; it thaws before.
    eventually(lambda: ledger.ended == 60, 10)
    ledger.check()
