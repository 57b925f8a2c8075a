"""The broker restarts, is killed, or loses nodes of its cluster."""

from __future__ import annotations

import pytest

from tests.faults.parties import RECONNECT, Ledgers
from tests.parties import Client, Server
from tests.rabbitmq import RabbitNode
from tests.waiting import eventually


@pytest.mark.row('1')
def test_a_hundred_calls_in_flight_survive_a_restart_of_the_broker(
    ledger_of: Ledgers, server: Server, client: Client, node: RabbitNode
) -> None:
    ledger = ledger_of(client(), timeout=30)
    server(ledger.double(1))
    ledger.call(range(100))
    eventually(lambda: len(ledger.executed) == 100)

    node.restart()

    eventually(lambda: ledger.ended == 100, RECONNECT + 2)
    ledger.check()


@pytest.mark.row('1')
def test_calls_go_on_while_the_broker_is_killed_and_started(
    ledger_of: Ledgers, server: Server, client: Client, node: RabbitNode
) -> None:
    ledger = ledger_of(client(), timeout=30)
    server(ledger.double(0.01))
    stop = []
    ledger.keep_calling(lambda: bool(stop), callers=50)
    eventually(lambda: ledger.ended > 200)

    node.kill()
    node.start()

    ended = ledger.ended
    eventually(lambda: ledger.ended > ended + 200, RECONNECT + 2)
    stop.append(True)
    ledger.check()
