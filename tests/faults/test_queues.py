"""Queues and exchanges that go, are missing, or exist as something else."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest
from gevent.event import AsyncResult

from amphora import NoResult, Unroutable
from amphora.amqp import Connection, NotFound, PreconditionFailed
from tests.faults.parties import Ledgers
from tests.parties import Client, Gate, Server
from tests.rabbitmq import RabbitNode
from tests.stopwatch import Stopwatch
from tests.waiting import eventually

# How often at most what the broker refuses is declared again, in seconds.
DECLARED_AGAIN = 2
# A client has two connections, and so has a server.
CONNECTIONS = 4

Consumed = Callable[[str], bool]


@pytest.fixture
def connection(node: RabbitNode) -> Iterator[Connection]:
    """What an administrator works through."""
    with Connection.from_url(node.url) as made:
        yield made


@pytest.fixture
def consumed(connection: Connection) -> Consumed:
    """Whether there is a queue of this name, and it has a consumer."""

    def look(queue: str) -> bool:
        try:
            with connection.channel() as channel:
                return channel.queue.declare(queue, passive=True).consumer_count == 1
        except NotFound:
            return False

    return look


def delete(connection: Connection, queue: str) -> None:
    with connection.channel() as channel:
        channel.queue.delete(queue)


@pytest.mark.row('9')
def test_a_request_queue_deleted_under_its_consumer_is_back_within_a_second(
    ledger_of: Ledgers,
    server: Server,
    client: Client,
    connection: Connection,
    consumed: Consumed,
    service: str,
    full: bool,
) -> None:
    calling = client()
    ledger = ledger_of(calling)
    server(ledger.double())
    queue = f'rpc_{service}_request'
    ledger.call(range(10))
    ledger.check()

    # Over and over: the first times must not use up what is waited between attempts.
    for _ in range(20 if full else 4):
        delete(connection, queue)
        eventually(lambda: consumed(queue), 1)

    ledger.call(range(10, 20))
    ledger.check()


@pytest.mark.row('9')
def test_the_queue_of_a_fanout_server_deleted_under_its_consumer_is_back_within_a_second(
    fanout_server: Server,
    fanout_client: Client,
    connection: Connection,
    consumed: Consumed,
    service: str,
) -> None:
    serving = fanout_server(abs)
    calling = fanout_client()
    queue = f'rpc_{service}_{serving.uuid}_request'
    eventually(lambda: consumed(queue))
    assert calling.call.abs(-1) == 1

    delete(connection, queue)

    eventually(lambda: consumed(queue), 1)
    assert calling.call.abs(-2) == 2


@pytest.mark.row('9')
def test_a_queue_of_ones_own_is_back_when_a_call_finds_it_missing(
    server: Server, client: Client, connection: Connection, consumed: Consumed, service: str
) -> None:
    calling = client()
    label = f'{service}-own'
    calling.create_new_request_queue(label)
    server(abs).receive_from_queue(label, block=False)
    queue = f'rpc_{label}_request'
    eventually(lambda: consumed(queue))

    delete(connection, queue)
    with pytest.raises(Unroutable):
        calling.call(routing_key=label).abs(-1)

    eventually(lambda: consumed(queue))
    assert calling.call(routing_key=label).abs(-2) == 2


@pytest.mark.row('10')
def test_replies_still_to_come_arrive_after_the_reply_queue_was_deleted(
    server: Server,
    client: Client,
    connection: Connection,
    consumed: Consumed,
    service: str,
    gate: Gate,
    full: bool,
) -> None:
    calling = client()
    server(gate.function())
    results = [calling.defer.wait(number) for number in range(10)]
    eventually(lambda: len(gate.entered) == 10)
    queue = f'rpc_{service}_{calling.uuid}_response'

    for _ in range(20 if full else 4):
        delete(connection, queue)
        eventually(lambda: consumed(queue), 1)
    gate.open()

    assert [result.get(timeout=5) for result in results] == list(range(10))


@pytest.mark.row('15')
@pytest.mark.limit(60, full=90)
def test_a_queue_with_other_arguments_is_named_to_the_caller_and_nothing_else_breaks(
    ledger_of: Ledgers,
    client: Client,
    server: Server,
    connection: Connection,
    node: RabbitNode,
    service: str,
    full: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    queue = f'rpc_{service}_request'
    with connection.channel() as channel:
        channel.queue.declare(queue, durable=True, arguments={'x-max-length': 7})
    calling = client()
    ledger = ledger_of(calling)
    serving = server(ledger.double())
    seconds = 10 if full else 3

    watch = Stopwatch()
    while watch.seconds < seconds:
        with pytest.raises(PreconditionFailed, match=f'x-max-length.*{queue}'):
            calling.call(timeout=5).double(-1)
        gevent.sleep(0.01)
    with pytest.raises(PreconditionFailed, match=f'x-max-length.*{queue}'):
        serving.wait_ready(5)

    # No storm: neither of declarations, of which the broker logs each that it refuses, ...
    refused = [line for line in node.log_file.read_text().splitlines() if 'inequivalent arg' in line and queue in line]
    assert refused
    assert len(refused) <= CONNECTIONS * (1 + seconds / DECLARED_AGAIN + 1)
    # ... nor of complaints: once for each connection.
    complaints = [record for record in caplog.records if 'x-max-length' in record.getMessage()]
    assert {record.levelno for record in complaints} == {logging.ERROR}
    assert len(complaints) <= CONNECTIONS

    # It mends itself: as soon as nothing is in the way, calls succeed on the same connections.
    connections = {each: each._publishing.connection for each in (calling, serving)}
    delete(connection, queue)

    def accepted() -> bool:
        try:
            return calling.call(timeout=5).double(0) == 0
        except PreconditionFailed:
            return False

    eventually(accepted)
    ledger.call(range(1, 11))
    ledger.wait()
    assert not ledger.errors
    ledger.check_logs()
    assert all(each._publishing.connection is then for each, then in connections.items())


@pytest.mark.row('15')
def test_a_refused_queue_of_ones_own_leaves_the_other_calls_alone(
    ledger_of: Ledgers, client: Client, server: Server, connection: Connection, service: str
) -> None:
    with connection.channel() as channel:
        channel.queue.declare(f'rpc_{service}_other_request', durable=True, arguments={'x-max-length': 7})
    calling = client()
    ledger = ledger_of(calling)
    server(ledger.double())

    # At once, while the client is still connecting.
    with pytest.raises(PreconditionFailed, match=f'x-max-length.*rpc_{service}_other_request'):
        calling.create_new_request_queue(f'{service}_other')

    ledger.call(range(10))
    ledger.check()


@pytest.mark.row('16')
def test_a_server_told_to_take_calls_from_a_queue_that_is_missing_is_told_so_and_serves_on(
    server: Server, client: Client, service: str
) -> None:
    serving = server(abs)

    for missing in (f'{service}-missing', f'rpc_{service}-missing_request'):
        with pytest.raises(ValueError, match=missing):
            serving.receive_from_queue(missing)

    assert client().call.abs(-1) == 1


@pytest.mark.row('16')
def test_a_request_exchange_that_was_deleted_is_back_for_the_call_that_misses_it(
    ledger_of: Ledgers, server: Server, client: Client, connection: Connection, service: str, full: bool
) -> None:
    ledger = ledger_of(client())
    server(ledger.double())
    ledger.call(range(10))
    ledger.check()

    for _ in range(10 if full else 2):
        with connection.channel() as channel:
            channel.exchange.delete(f'rpc_{service}_request')
        ledger.call(range(ledger.sent, ledger.sent + 10))
        ledger.check()


@pytest.mark.row('16')
def test_a_response_exchange_that_was_deleted_is_back_when_a_call_got_no_result(
    server: Server, client: Client, connection: Connection, service: str
) -> None:
    server(abs)
    calling = client()
    assert calling.call.abs(-1) == 1

    with connection.channel() as channel:
        channel.exchange.delete(f'rpc_{service}_response')
    with pytest.raises(NoResult):
        calling.call(timeout=0.5).abs(-2)

    def answered() -> bool:
        try:
            return bool(calling.call(timeout=0.5).abs(-3) == 3)
        except NoResult:
            return False

    eventually(answered)


def outcome(result: Any) -> Any:
    """What a call, or a deferred call, came to."""
    return result.get(timeout=5) if isinstance(result, AsyncResult) else result


@pytest.mark.row('17')
@pytest.mark.parametrize('verb', ['call', 'defer'])
def test_a_call_that_no_queue_takes_says_so_within_half_a_second(server: Server, client: Client, verb: str) -> None:
    ran: list[int] = []
    server(named={'note': ran.append, 'abs': abs})
    calling = client()
    assert calling.call.abs(-1) == 1

    watch = Stopwatch()
    with pytest.raises(Unroutable, match='nowhere') as raised:
        outcome(getattr(calling, verb)(routing_key='nowhere').note(1))

    assert watch.awake <= 0.5
    assert raised.value.executed is False
    assert not ran


@pytest.mark.row('17')
@pytest.mark.parametrize('verb', ['call', 'defer'])
def test_a_fanout_call_without_servers_says_so_within_half_a_second(
    fanout_server: Server, fanout_client: Client, verb: str
) -> None:
    calling = fanout_client()
    with pytest.raises(Unroutable):
        calling.call.abs(-1)

    watch = Stopwatch()
    with pytest.raises(Unroutable) as raised:
        outcome(getattr(calling, verb)().abs(-1))

    assert watch.awake <= 0.5
    assert raised.value.executed is False
    # With the first server it is over.
    fanout_server(abs).wait_ready(5)
    assert outcome(getattr(calling, verb)().abs(-1)) == 1
