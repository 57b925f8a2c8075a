"""Queues and exchanges that go, are missing, or exist as something else."""

from __future__ import annotations

import pytest

from amphora.amqp import Connection, PreconditionFailed
from tests.faults.parties import Ledgers
from tests.parties import Client, Gate, Server
from tests.rabbitmq import RabbitNode
from tests.waiting import eventually


@pytest.mark.row('9')
def test_a_request_queue_deleted_under_its_consumer_is_back_within_a_second(
    ledger_of: Ledgers, server: Server, client: Client, node: RabbitNode, service: str
) -> None:
    calling = client()
    ledger = ledger_of(calling)
    server(ledger.double())
    ledger.call(range(10))
    ledger.check()

    with Connection.from_url(node.url) as connection, connection.channel() as channel:
        channel.queue.delete(f'rpc_{service}_request')

        def consumed() -> bool:
            with connection.channel() as look:
                return look.queue.declare(f'rpc_{service}_request', durable=True).consumer_count == 1

        eventually(consumed, 1)

    ledger.call(range(10, 20))
    ledger.check()


@pytest.mark.row('9')
def test_a_request_queue_deleted_over_and_over_is_back_within_a_second_each_time(
    ledger_of: Ledgers, server: Server, client: Client, node: RabbitNode, service: str
) -> None:
    calling = client()
    ledger = ledger_of(calling)
    server(ledger.double())
    ledger.call(range(1))
    ledger.check()
    queue = f'rpc_{service}_request'

    with Connection.from_url(node.url) as connection:

        def consumed() -> bool:
            with connection.channel() as look:
                return look.queue.declare(queue, durable=True).consumer_count == 1

        for _ in range(4):
            with connection.channel() as channel:
                channel.queue.delete(queue)
            eventually(consumed, 1)


@pytest.mark.row('10')
def test_replies_still_to_come_arrive_after_the_reply_queue_was_deleted(
    server: Server, client: Client, node: RabbitNode, service: str, gate: Gate
) -> None:
    calling = client()
    server(gate.function())
    results = [calling.defer.wait(number) for number in range(10)]
    eventually(lambda: len(gate.entered) == 10)
    queue = f'rpc_{service}_{calling.uuid}_response'

    with Connection.from_url(node.url) as connection, connection.channel() as channel:
        channel.queue.delete(queue)

        def consumed() -> bool:
            with connection.channel() as look:
                declared = look.queue.declare(queue, durable=True, arguments={'x-expires': 600_000})
                return declared.consumer_count == 1

        eventually(consumed, 1)
    gate.open()

    assert [result.get(timeout=5) for result in results] == list(range(10))


@pytest.mark.row('15')
def test_a_queue_with_other_arguments_is_named_to_the_caller_and_nothing_else_breaks(
    ledger_of: Ledgers, client: Client, server: Server, node: RabbitNode, service: str, caplog: pytest.LogCaptureFixture
) -> None:
    queue = f'rpc_{service}_request'
    with Connection.from_url(node.url) as connection, connection.channel() as channel:
        channel.queue.declare(queue, durable=True, arguments={'x-max-length': 7})
        calling = client()

        for _ in range(2):
            with pytest.raises(PreconditionFailed, match=f'x-max-length.*{queue}'):
                calling.call(timeout=5).double(1)
        connection_then = eventually(lambda: calling._publishing.connection)
        complaints = [record for record in caplog.records if 'x-max-length' in record.getMessage()]
        assert len(complaints) <= 2

        # It mends itself: as soon as nothing is in the way, calls succeed on the same connection.
        channel.queue.delete(queue)
        server(ledger_of(calling).double())

        def answered() -> bool:
            try:
                return bool(calling.call(timeout=5).double(4) == 8)
            except PreconditionFailed:
                return False

        eventually(answered, 5)
        assert calling._publishing.connection is connection_then


@pytest.mark.row('15')
def test_a_refused_queue_of_ones_own_leaves_the_other_calls_alone(
    ledger_of: Ledgers, client: Client, server: Server, node: RabbitNode, service: str
) -> None:
    with Connection.from_url(node.url) as connection, connection.channel() as channel:
        channel.queue.declare(f'rpc_{service}_other_request', durable=True, arguments={'x-max-length': 7})
    calling = client()
    ledger = ledger_of(calling)
    server(ledger.double())

    # At once, while the client is still connecting.
    with pytest.raises(PreconditionFailed):
        calling.create_new_request_queue(f'{service}_other')

    ledger.call(range(10))
    ledger.check()
