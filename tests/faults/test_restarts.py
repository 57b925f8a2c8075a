"""The broker restarts, or is killed and started."""

from __future__ import annotations

import pytest

from tests.faults.parties import RECONNECT, Ledgers
from tests.parties import Client, Server
from tests.rabbitmq import RabbitNode
from tests.waiting import eventually


@pytest.mark.row('1')
@pytest.mark.limit(60, full=120)
def test_a_hundred_calls_in_flight_survive_a_restart_of_the_broker(
    ledger_of: Ledgers, server: Server, client: Client, node: RabbitNode, full: bool
) -> None:
    ledger = ledger_of(client(), timeout=30)
    server(ledger.double(1))

    for end in [RabbitNode.stop, RabbitNode.kill] * 2 if full else [RabbitNode.stop]:
        ledger.call(range(ledger.sent, ledger.sent + 100))
        eventually(lambda: len(ledger.executed) == ledger.sent)

        end(node)
        node.start()

        eventually(lambda: ledger.ended == ledger.sent, RECONNECT + 2)
    ledger.check()


@pytest.mark.row('1')
@pytest.mark.limit(60, full=120)
def test_calls_go_on_while_the_broker_is_killed_and_started(
    ledger_of: Ledgers, server: Server, client: Client, node: RabbitNode, full: bool
) -> None:
    ledger = ledger_of(client(), timeout=30)
    server(ledger.double(0.01))
    stop = []
    ledger.keep_calling(lambda: bool(stop), callers=100)
    eventually(lambda: ledger.ended > 200)

    for end in [RabbitNode.kill, RabbitNode.stop] * 2 if full else [RabbitNode.kill]:
        end(node)
        node.start()

        ended = ledger.ended
        eventually(lambda ended=ended: ledger.ended > ended + 200, RECONNECT + 2)
    stop.append(True)
    ledger.check()
