"""Servers and clients that die, fork, burn the CPU, or meet a request that kills them."""

from __future__ import annotations

from collections.abc import Callable

import gevent
import gevent.event
import pytest

from tests.faults.parties import Ledgers, ServerProcess
from tests.parties import Client, Server
from tests.waiting import eventually


@pytest.mark.row('11')
def test_what_a_killed_server_was_at_is_done_by_another(
    ledger_of: Ledgers, client: Client, server_process: Callable[..., ServerProcess]
) -> None:
    ledger = ledger_of(client())
    doomed, other = server_process(ledger, 1), server_process(ledger, 0.05)
    ledger.call(range(40))
    eventually(lambda: len(doomed.begun) + len(other.begun) >= 40)

    doomed.kill()

    ledger.check()
    assert doomed.begun
    assert not doomed.done
    assert set(doomed.begun) <= set(other.done)


@pytest.mark.row('11')
def test_the_only_server_is_killed_and_the_next_one_answers(
    ledger_of: Ledgers, client: Client, server_process: Callable[..., ServerProcess]
) -> None:
    ledger = ledger_of(client())
    doomed = server_process(ledger, 5)
    ledger.call(range(10))
    eventually(lambda: len(doomed.begun) == 10)

    doomed.kill()
    server_process(ledger, 0)

    ledger.check()


def test_a_timeout_that_a_function_leaves_behind_harms_no_later_request(
    ledger_of: Ledgers, server: Server, client: Client
) -> None:
    calling = client()
    ledger = ledger_of(calling, timeout=2)

    def careless() -> str:
        gevent.Timeout(0.05).start()
        return 'done'

    serving = server(ledger.double(), careless)
    assert calling.call.careless() == 'done'
    expired = gevent.event.Event()
    gevent.spawn_later(0.1, expired.set)
    assert expired.wait(2)

    ledger.call(range(20))
    ledger.check()
    with gevent.Timeout(3):
        serving.stop()
