"""Connections that are closed again and again, or slow."""

from __future__ import annotations

import gevent
import pytest

from amphora import NoResult, NotSent
from amphora.amqp.connection import HIGH_WATER
from tests.faults.parties import HEARTBEAT, Ledgers, connected, connections, living_greenlets, open_descriptors
from tests.parties import Client, Server
from tests.proxy import Proxy
from tests.rabbitmq import RabbitNode
from tests.stopwatch import GRACE, Stopwatch
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
    calls, enough, closures = (10_000, 10, 0) if full else (2_500, 1, 0)

    ledger.keep_calling(lambda: ledger.sent >= calls and closures > enough, callers=100)
    while ledger.ended < ledger.sent:
        node.ctl('close_all_connections', 'test')
        closures += 1
        gevent.sleep(2)

    ledger.check()
    assert closures > enough
    eventually(lambda: connected(calling, serving))
    eventually(lambda: living_greenlets() <= greenlets)
    eventually(lambda: open_descriptors() <= descriptors)


@pytest.mark.row('7')
@pytest.mark.limit(60, full=120)
def test_requests_on_a_slow_link_wait_and_the_connection_lives_on(
    server: Server, client: Client, proxy: Proxy, full: bool
) -> None:
    calling = client(amqp_url=proxy.url, heartbeat=HEARTBEAT)
    measured: list[int] = []

    def measure(number: int, text: str) -> int:
        measured.append(number)
        return len(text)

    server(measure)
    assert calling.call.measure(-1, 'x') == 1
    eventually(lambda: connected(calling))
    before = publishing, _ = connections(calling)
    outcomes: dict[int, object] = {}
    late: dict[int, float] = {}
    timeout = 20 if full else 4 * HEARTBEAT
    text = 'x' * 100_000

    def call(number: int) -> None:
        watch = Stopwatch()
        try:
            outcomes[number] = calling.call(timeout=timeout).measure(number, text)
        except NoResult as error:
            outcomes[number] = error
        if watch.awake > timeout + GRACE:
            late[number] = watch.awake

    # What the system's own buffers take has left amphora: there is more than that.
    proxy.rate = 10_000
    calls = [gevent.spawn(call, number) for number in range(1_000 if full else 200)]
    unsent = 0
    while not all(each.ready() for each in calls):
        unsent = max(unsent, publishing.unsent)
        gevent.sleep(0.01)

    assert HIGH_WATER < unsent <= HIGH_WATER + 2 * len(text)
    assert not late
    assert len(outcomes) == len(calls)
    not_sent = {number for number, outcome in outcomes.items() if isinstance(outcome, NotSent)}
    assert {outcomes[number].executed for number in not_sent} == {False}
    for number in outcomes.keys() - not_sent:
        outcome = outcomes[number]
        assert outcome == len(text) or (type(outcome) is NoResult and outcome.executed is None)

    # All that was written arrives, on the same connections, and nothing that was said not to be sent.
    proxy.rate = None
    assert calling.call(timeout=20).measure(-2, 'x') == 1
    assert connections(calling) == before
    assert not not_sent & set(measured)


@pytest.mark.row('7')
@pytest.mark.limit(60, full=120)
def test_results_on_a_slow_link_wait_and_the_connection_lives_on(
    server: Server, client: Client, proxy: Proxy, full: bool
) -> None:
    calling = client()
    made: list[int] = []

    def make(number: int, size: int) -> str:
        made.append(number)
        return '%d %s' % (number, 'x' * size)

    serving = server(make, amqp_url=proxy.url, heartbeat=HEARTBEAT, prefetch=1_000)
    assert calling.call.make(-1, 1) == '-1 x'
    eventually(lambda: connected(serving))
    before = publishing, _ = connections(serving)
    timeout = 20 if full else 4 * HEARTBEAT

    proxy.rate = 10_000
    results = [calling.defer(timeout=timeout).make(number, 100_000) for number in range(1_000 if full else 200)]
    unsent = 0
    while not all(each.ready() for each in results):
        unsent = max(unsent, publishing.unsent)
        gevent.sleep(0.01)

    assert HIGH_WATER < unsent <= HIGH_WATER + 200_000
    for number, each in enumerate(results):
        assert each.exception is None or (type(each.exception) is NoResult and each.exception.executed is None)
        assert each.exception is not None or each.value.startswith('%d x' % number)

    # The replies that waited go first.
    proxy.rate = None
    assert calling.call(timeout=20).make(-2, 1) == '-2 x'
    assert connections(serving) == before
