"""Stopping and serving again, under load and while the broker is away: nothing is lost, nothing runs twice."""

from __future__ import annotations

from collections.abc import Callable

import gevent
import gevent.event
import pytest

from tests.faults.parties import Ledgers, ServerProcess
from tests.parties import Client, Server
from tests.proxy import Proxy
from tests.waiting import eventually


@pytest.mark.row('shutdown')
def test_a_server_that_gets_sigterm_under_load_loses_nothing_and_runs_nothing_twice(
    ledger_of: Ledgers, client: Client, server_process: Callable[..., ServerProcess]
) -> None:
    ledger = ledger_of(client())
    leaving, staying = server_process(ledger, 0.05), server_process(ledger, 0.05)
    stop = []
    ledger.keep_calling(lambda: bool(stop), callers=50)
    eventually(lambda: len(leaving.done) > 100)

    status = leaving.terminate()
    at_the_end = len(staying.done)
    eventually(lambda: len(staying.done) > at_the_end + 100)
    stop.append(True)

    ledger.check()
    assert status == 0
    assert sorted(leaving.begun) == sorted(leaving.done)
    assert sorted(leaving.done + staying.done) == sorted(ledger.answers)


@pytest.mark.row('shutdown')
def test_a_server_stops_and_serves_again_in_the_middle_of_calls(
    ledger_of: Ledgers, server: Server, client: Client
) -> None:
    ledger = ledger_of(client())
    serving = server(ledger.double(0.02))
    stop = []
    ledger.keep_calling(lambda: bool(stop), callers=30)

    for _ in range(3):
        ended = ledger.ended
        eventually(lambda ended=ended: ledger.ended > ended + 100)
        serving.stop()
        serving.serve()
    stop.append(True)

    ledger.check()
    assert not ledger.duplicated


@pytest.mark.row('shutdown')
def test_a_client_stops_and_serves_again_in_the_middle_of_calls(
    ledger_of: Ledgers, server: Server, client: Client
) -> None:
    calling = client()
    ledger = ledger_of(calling)
    server(ledger.double(0.02))
    stop = []
    ledger.keep_calling(lambda: bool(stop), callers=30)

    for _ in range(3):
        ended = ledger.ended
        eventually(lambda ended=ended: ledger.ended > ended + 100)
        calling.stop()
        calling.serve()
    stop.append(True)

    ledger.check()


@pytest.mark.row('deferred')
def test_what_was_deferred_before_stop_is_sent_once_by_serve(server: Server, client: Client, proxy: Proxy) -> None:
    proxy.refuse()
    calling = client(amqp_url=proxy.url)
    ran = []
    server(ran.append, named={'note': ran.append})
    results = [calling.defer(timeout=20).note(number) for number in range(100)]

    calling.stop()
    proxy.admit()
    calling.serve()

    assert [result.get(timeout=10) for result in results] == [None] * 100
    assert sorted(ran) == list(range(100))


@pytest.mark.row('shutdown')
def test_a_server_that_is_told_to_serve_while_it_stops_serves(
    ledger_of: Ledgers, server: Server, client: Client
) -> None:
    calling = client()
    ledger = ledger_of(calling, timeout=5)
    serving = server(ledger.double(0.5))
    ledger.call([1])
    eventually(lambda: ledger.executed)

    stopping = gevent.spawn(serving.stop)
    eventually(lambda: serving._own_intake is None)
    serving.serve()
    stopping.join()
    serving.serve()

    ledger.call([2])
    ledger.check()
