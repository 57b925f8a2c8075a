"""Messages that come twice, come late, are too large, or belong to nobody."""

from __future__ import annotations

import gevent
import gevent.event
import pytest

from amphora import AmphoraError, NotSent
from amphora.amqp import Connection, Message
from tests.faults.parties import BROKER_LIMIT, Ledgers
from tests.parties import Client, Server
from tests.rabbitmq import RabbitNode
from tests.waiting import eventually


@pytest.mark.row('22')
def test_a_request_that_is_delivered_twice_runs_once_and_is_answered_twice(
    ledger_of: Ledgers, server: Server, client: Client, node: RabbitNode, service: str
) -> None:
    calling = client()
    ledger = ledger_of(calling)
    server(ledger.double(0.1))
    ledger.call([1])
    ledger.check()
    ignored = calling.ignored_replies
    ledger.expect(21)

    with Connection.from_url(node.url) as connection, connection.channel() as channel:
        request = Message(b'{"func": "double", "args": [21], "kwargs": {}}', message_id='twice', reply_to=calling.uuid)
        # The first two come while one of them runs, and get one answer; those after them come when it has run.
        for copies in (2, 1, 1):
            for _ in range(copies):
                channel.basic.publish(request, f'rpc_{service}_request', '')
            ignored += 1
            eventually(lambda expected=ignored: calling.ignored_replies == expected)

    assert ledger.executed[21] == 1
    assert not len(calling._pending)


@pytest.mark.row('28')
def test_a_reply_that_the_broker_does_not_take_holds_up_no_other(
    ledger_of: Ledgers, server: Server, client: Client
) -> None:
    calling = client()
    ledger = ledger_of(calling, timeout=5)

    def huge() -> str:
        return 'x' * 2 * BROKER_LIMIT

    server(ledger.double(), huge)
    result = calling.defer(timeout=5).huge()
    ledger.call(range(20))

    ledger.check()
    with pytest.raises(AmphoraError):
        result.get(timeout=6)


@pytest.mark.row('28')
def test_a_request_that_the_broker_does_not_take_holds_up_no_other(
    ledger_of: Ledgers, server: Server, client: Client
) -> None:
    calling = client()
    ledger = ledger_of(calling, timeout=5)
    server(ledger.double(), len)
    result = calling.defer(timeout=20).len('x' * 2 * BROKER_LIMIT)
    ledger.call(range(20))

    ledger.check()
    with pytest.raises(AmphoraError):
        result.get(timeout=21)


def test_a_call_whose_arguments_take_longer_to_encode_than_its_timeout_ends(client: Client) -> None:
    calling = client()
    calling.create_new_request_queue(f'{calling.service_name}_connected')
    arguments = [['x'] * 1_000_000] * 10

    with gevent.Timeout(5), pytest.raises(NotSent):
        calling.call(timeout=0.01).double(arguments)
