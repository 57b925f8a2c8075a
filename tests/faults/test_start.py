"""No broker at the start, or one that does not let anybody in."""

from __future__ import annotations

import gevent
import gevent.event
import pytest

from amphora import NotSent
from tests.faults.parties import RECONNECT, Ledgers
from tests.ledger import GRACE
from tests.parties import Client, Server, Stopwatch
from tests.proxy import Proxy
from tests.waiting import eventually


@pytest.mark.row('19')
def test_calls_made_while_there_is_no_broker_succeed_when_it_appears(
    ledger_of: Ledgers, server: Server, client: Client, proxy: Proxy
) -> None:
    proxy.refuse()
    ledger = ledger_of(client(amqp_url=proxy.url))
    server(ledger.double(), amqp_url=proxy.url)
    ledger.call(range(100))
    gevent.idle()
    assert not ledger.ended

    proxy.admit()

    eventually(lambda: ledger.ended == 100, RECONNECT)
    ledger.check()
    assert not ledger.duplicated


@pytest.mark.row('19')
def test_a_call_without_a_broker_ends_on_time_and_says_that_it_was_not_sent(
    client: Client, proxy: Proxy, stopwatch: type[Stopwatch]
) -> None:
    proxy.refuse()
    calling = client(amqp_url=proxy.url)
    watch = stopwatch()

    with pytest.raises(NotSent) as raised:
        calling.call(timeout=0.5).double(1)

    assert 0.5 <= watch.seconds <= 0.5 + GRACE
    assert raised.value.executed is False
