"""Stopping and serving again, under load and while the broker is away: nothing is lost, nothing runs twice."""

from __future__ import annotations

from collections.abc import Callable

import gevent
import gevent.event
import pytest

from tests.faults.parties import Ledgers, ServerProcess
from tests.parties import Client, Server
from tests.proxy import Proxy
from tests.stopwatch import Stopwatch
from tests.waiting import eventually


@pytest.mark.row('shutdown')
@pytest.mark.limit(90, full=240)
def test_servers_that_get_sigterm_under_load_lose_nothing_and_run_nothing_twice(
    ledger_of: Ledgers,
    client: Client,
    server_process: Callable[..., ServerProcess],
    full: bool,
) -> None:
    pause = 0.2
    ledger = ledger_of(client())
    servers = [server_process(ledger, pause) for _ in range(2)]
    ended = []
    stop = []
    # More than both take at once: there is always one more on its way to a server that stops.
    ledger.keep_calling(lambda: bool(stop), callers=700)

    for _ in range(20 if full else 2):
        for at, leaving in enumerate(servers):
            eventually(lambda leaving=leaving: len(leaving.done) > 100, 20)
            # Just when some are done, and the next come.
            done = len(leaving.done)
            eventually(lambda leaving=leaving, done=done: len(leaving.done) > done)
            watch = Stopwatch()
            assert leaving.terminate() == 0
            assert watch.awake <= pause + 1
            ended.append(leaving)
            servers[at] = server_process(ledger, pause)
    eventually(lambda: ledger.ended > (10_000 if full else 1_000), 30)
    stop.append(True)

    ledger.check()
    assert not ledger.duplicated
    assert all(sorted(each.begun) == sorted(each.done) for each in ended)


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
@pytest.mark.limit(60, full=120)
def test_what_is_on_its_way_to_a_server_that_stops_runs_once_at_another(
    ledger_of: Ledgers, server: Server, client: Client, proxy: Proxy, full: bool
) -> None:
    ledger = ledger_of(client())
    # So far away that with each stop a whole prefetch comes too late and goes back.
    proxy.delay = 0.01
    servers = [server(ledger.double(0.01), amqp_url=proxy.url, prefetch=20) for _ in range(2)]
    stop = []
    ledger.keep_calling(lambda: bool(stop), callers=100)

    for _ in range(20 if full else 3):
        for serving in servers:
            ended = ledger.ended
            eventually(lambda ended=ended: ledger.ended > ended + 50)
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
@pytest.mark.parametrize('met', [False, True], ids=['never met', 'met before'])
def test_what_was_deferred_before_stop_is_sent_once_by_serve(
    server: Server, client: Client, proxy: Proxy, met: bool
) -> None:
    ran: list[int] = []
    server(named={'note': ran.append, 'abs': abs})
    if not met:
        proxy.refuse()
    calling = client(amqp_url=proxy.url)
    if met:
        assert calling.call.abs(-1) == 1
        proxy.refuse()
        proxy.reset()
    results = [calling.defer(timeout=30).note(number) for number in range(1000)]

    calling.stop()
    assert not ran
    proxy.admit()
    calling.serve()

    assert [result.get(timeout=20) for result in results] == [None] * 1000
    assert sorted(ran) == list(range(1000))


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
    eventually(lambda: not serving._own_intakes)
    serving.serve()
    stopping.join()
    serving.serve()

    ledger.call([2])
    ledger.check()
