"""The broker is short of memory."""

from __future__ import annotations

from collections.abc import Callable

import gevent
import gevent.event
import pytest

from amphora import NoResult, NotSent
from tests.faults.parties import HEARTBEAT, Ledgers
from tests.parties import Client, Server
from tests.proxy import Proxy
from tests.stopwatch import Stopwatch
from tests.waiting import eventually


@pytest.mark.row('8')
def test_calls_time_out_on_time_during_a_memory_alarm_and_go_on_within_a_second_of_its_end(
    ledger_of: Ledgers, server: Server, client: Client, memory_alarm: Callable[[bool], None], full: bool
) -> None:
    calling = client()
    ledger = ledger_of(calling)
    double = ledger.double()
    server(named={'double': double, 'double_late': double})
    ledger.call(range(10))
    ledger.check()

    memory_alarm(True)
    # The broker takes the first of these and answers after the alarm: it runs then, or has expired by then.
    ledger.expect(-1)
    for _ in range(10 if full else 3):
        watch = Stopwatch()
        with pytest.raises(NoResult):
            calling.call(timeout=0.5).double_late(-1)
        watch.check_timeout(0.5)
    # The broker said that it blocks when the first request came; what came later was not sent.
    with pytest.raises(NotSent, match='not sent in time: the broker takes no messages: low on memory'):
        calling.call(timeout=0.2).double_late(-2)
    ledger.call(range(10, 1010 if full else 110))

    memory_alarm(False)

    eventually(lambda: ledger.ended == ledger.sent, 1)
    ledger.wait()
    assert not ledger.errors
    ledger.check_logs()
    assert ledger.executed[-2] == 0


@pytest.mark.row('8')
def test_requests_are_taken_during_a_memory_alarm(
    ledger_of: Ledgers, server: Server, client: Client, memory_alarm: Callable[[bool], None]
) -> None:
    ledger = ledger_of(client())
    serving = server(ledger.double(), serve=False)
    ledger.call(range(20))
    eventually(lambda: ledger.confirmed == 20)

    memory_alarm(True)
    serving.serve()
    eventually(lambda: len(ledger.executed) == 20)
    assert not ledger.ended
    memory_alarm(False)

    eventually(lambda: ledger.ended == 20, 1)
    ledger.check()
    assert not ledger.duplicated


@pytest.mark.row('8')
def test_a_memory_alarm_of_three_heartbeats_costs_no_connection(
    ledger_of: Ledgers,
    server: Server,
    client: Client,
    proxy: Proxy,
    memory_alarm: Callable[[bool], None],
) -> None:
    through_proxy = {'amqp_url': proxy.url, 'heartbeat': HEARTBEAT}
    calling = client(**through_proxy)
    ledger = ledger_of(calling)
    server(ledger.double(), **through_proxy)
    ledger.call(range(10))
    ledger.check()
    accepted = proxy.accepted

    memory_alarm(True)
    with pytest.raises(NoResult):
        calling.call(timeout=3 * HEARTBEAT).double(-1)
    memory_alarm(False)

    ledger.call(range(10, 20))
    eventually(lambda: ledger.ended == 20)
    assert proxy.accepted == accepted


@pytest.mark.row('8')
def test_making_a_queue_ends_on_time_during_a_memory_alarm(
    client: Client, memory_alarm: Callable[[bool], None], service: str
) -> None:
    calling = client(timeout=1)
    calling.create_new_request_queue(f'{service}_before')
    memory_alarm(True)
    with pytest.raises(NoResult):
        calling.call(timeout=0.3).double(1)
    watch = Stopwatch()

    with gevent.Timeout(5), pytest.raises(NotSent):
        calling.create_new_request_queue(f'{service}_during')

    watch.check_timeout(1)
