"""Buffers, tables and caches at their limits: what was accepted is kept, what is too much is told."""

from __future__ import annotations

import gevent
import pytest

from amphora import BufferFull, NotSent
from tests.faults.parties import Ledgers, connected
from tests.parties import Client, Server
from tests.proxy import Proxy
from tests.rabbitmq import RabbitNode
from tests.stopwatch import Stopwatch
from tests.waiting import eventually

pytestmark = pytest.mark.row('bounds')


def test_defer_raises_when_as_many_requests_wait_as_may_and_none_of_those_is_lost(
    server: Server, client: Client, proxy: Proxy
) -> None:
    ran: list[int] = []
    server(named={'note': ran.append})
    proxy.refuse()
    calling = client(amqp_url=proxy.url, buffer_count=100)
    results = [calling.defer(timeout=30).note(number) for number in range(100)]

    for _ in range(3):
        with pytest.raises(BufferFull, match='100 requests wait for the broker'):
            calling.defer.note(-1)
    proxy.admit()

    assert [result.get(timeout=20) for result in results] == [None] * 100
    assert sorted(ran) == list(range(100))
    assert calling.defer.note(100).get(timeout=10) is None


def test_defer_raises_when_as_many_bytes_wait_as_may(client: Client, proxy: Proxy) -> None:
    proxy.refuse()
    calling = client(amqp_url=proxy.url, buffer_bytes=100_000)

    kept = [calling.defer.note('x' * 10_000) for _ in range(10)]
    with pytest.raises(BufferFull):
        calling.defer.note('x')

    assert len(kept) == 10


def test_defer_waits_for_room_when_told_to(server: Server, client: Client, proxy: Proxy) -> None:
    ran: list[int] = []
    server(named={'note': ran.append})
    proxy.refuse()
    calling = client(amqp_url=proxy.url, buffer_count=10, buffer_full='wait')

    results = gevent.spawn(lambda: [calling.defer(timeout=30).note(number) for number in range(100)])
    eventually(lambda: calling._publisher.held == 10)
    assert not results.ready()
    proxy.admit()

    assert [result.get(timeout=20) for result in results.get(timeout=20)] == [None] * 100
    assert sorted(ran) == list(range(100))


def test_waiting_for_room_ends_with_the_timeout(client: Client, proxy: Proxy) -> None:
    proxy.refuse()
    calling = client(amqp_url=proxy.url, buffer_count=1, buffer_full='wait')
    kept = calling.defer(timeout=30).note(1)

    for attempt, error in ((calling.defer(timeout=0.5).note, BufferFull), (calling.call(timeout=0.5).note, NotSent)):
        watch = Stopwatch()
        with pytest.raises(error):
            attempt(2)
        assert watch.seconds >= 0.5
        watch.check_timeout(0.5)

    assert not kept.ready()


def test_requests_whose_time_is_over_make_room(client: Client, proxy: Proxy) -> None:
    proxy.refuse()
    calling = client(amqp_url=proxy.url, buffer_count=5)
    old = [calling.defer(timeout=0.1).note(number) for number in range(5)]
    for each in old:
        with pytest.raises(NotSent):
            each.get(timeout=5)

    assert [calling.defer.note(number) for number in range(5)]


@pytest.mark.parametrize(
    ('option', 'value', 'said'),
    [
        ('buffer_count', 0, 'buffer_count'),
        ('buffer_bytes', -1, 'buffer_bytes'),
        ('buffer_full', 'drop', 'raise, wait'),
    ],
)
def test_a_limit_that_makes_no_sense_is_an_error_at_once(client: Client, option: str, value: object, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        client(**{option: value})


def test_replies_that_are_held_are_no_more_than_the_prefetch_however_often_their_requests_come_again(
    ledger_of: Ledgers, server: Server, client: Client, node: RabbitNode
) -> None:
    calling = client()
    ledger = ledger_of(calling, timeout=40)
    serving = server(ledger.double(), prefetch=10)
    ledger.call(range(10))
    ledger.wait()
    eventually(lambda: connected(calling, serving))

    # The server can send no reply from here on.
    serving.stop_publisher()
    ledger.call(range(10, 110))
    eventually(lambda: serving._publisher.held == 10)
    for _ in range(3):
        before = serving._consuming.connection
        node.ctl('close_all_connections', 'test')
        eventually(lambda before=before: serving._consuming.connection not in (None, before))
        eventually(lambda: connected(calling) and len(serving._native._in_hand) == 10)
        assert serving._publisher.held == 10
    serving.serve()

    ledger.check()
    assert not ledger.duplicated
