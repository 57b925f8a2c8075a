"""Very many calls at the same time, and very large ones."""

from __future__ import annotations

import re
import sys

import gevent.event
import pytest
from gevent import subprocess

from amphora import RemoteException
from amphora.amqp.content import MAX_MESSAGE_SIZE
from tests.faults import in_flight
from tests.faults.parties import HEARTBEAT, Ledgers, connected, connections
from tests.parties import Client, Server
from tests.rabbitmq import RabbitNode
from tests.waiting import eventually


@pytest.mark.row('27')
def test_ten_thousand_calls_are_under_way_at_the_same_time(
    ledger_of: Ledgers, server: Server, client: Client, full: bool
) -> None:
    count = 10_000 if full else 2_000
    calling = client()
    ledger = ledger_of(calling, timeout=40)
    entered, opened = [], gevent.event.Event()
    run = ledger.double()

    def double(number: int) -> int:
        entered.append(number)
        opened.wait(30)
        return run(number)

    server(double, prefetch=count)
    ledger.call(range(count))
    eventually(lambda: len(entered) == count, 30)
    assert len(calling._pending) == count

    opened.set()

    ledger.check()
    assert not ledger.duplicated
    assert not len(calling._pending)


@pytest.mark.row('27')
def test_ten_thousand_calls_go_to_a_server_that_takes_a_few_at_a_time(
    ledger_of: Ledgers, server: Server, client: Client, full: bool
) -> None:
    ledger = ledger_of(client(), timeout=40)
    server(ledger.double(), prefetch=10)

    ledger.call(range(10_000 if full else 2_000))

    ledger.check()
    assert not ledger.duplicated


@pytest.mark.row('27')
def test_a_call_under_way_takes_as_little_memory_as_the_documentation_says(
    node: RabbitNode, service: str, full: bool
) -> None:
    count = str(10_000 if full else 2_000)

    def bytes_of(what: str) -> list[int]:
        command = [sys.executable, '-m', in_flight.__name__, what, node.url, f'{service}-{what}', count]
        return list(map(int, subprocess.check_output(command, timeout=60).split()))

    [defer, call] = bytes_of('client')
    [request] = bytes_of('server')

    # With a half more for other versions of Python and gevent.
    assert defer < 1.5 * 2_500
    assert call < 1.5 * 10_000
    assert request < 1.5 * 11_000


@pytest.mark.row('28')
@pytest.mark.limit(60, full=90)
def test_an_argument_and_a_result_of_a_hundred_megabytes_pass_and_the_heartbeats_with_them(
    rabbit: RabbitNode, ledger_of: Ledgers, server: Server, client: Client, full: bool
) -> None:
    size = 100_000_000 if full else 20_000_000
    options = {'amqp_url': rabbit.url, 'heartbeat': HEARTBEAT}
    calling = client(timeout=60, **options)
    ledger = ledger_of(calling, timeout=60)
    serving = server(ledger.double(), len, named={'repeat': lambda text, times: text * times}, **options)
    assert calling.call.len('x') == 1
    eventually(lambda: connected(calling, serving))
    before = connections(calling, serving)
    stop: list[bool] = []
    ledger.keep_calling(lambda: bool(stop), callers=5)

    assert calling.call.len('x' * size) == size
    result = calling.call.repeat('x', size)

    assert (len(result), result.count('x')) == (size, size)
    stop.append(True)
    ledger.check()
    assert not ledger.duplicated
    assert before == connections(calling, serving)


@pytest.mark.row('28')
@pytest.mark.limit(60, full=90)
def test_a_body_above_the_limit_is_an_error_before_anything_is_sent(
    rabbit: RabbitNode, server: Server, client: Client, full: bool
) -> None:
    calling = client(amqp_url=rabbit.url, timeout=60)
    serving = server(len, named={'repeat': lambda text, times: text * times}, amqp_url=rabbit.url)
    assert calling.call.len('x') == 1
    eventually(lambda: connected(calling, serving))
    before = connections(calling, serving)

    with pytest.raises(ValueError, match=f'at most {MAX_MESSAGE_SIZE}') as raised:
        calling.call.len('x' * MAX_MESSAGE_SIZE)
    with pytest.raises(RemoteException, match=f'at most {MAX_MESSAGE_SIZE}') as remote:
        calling.call.repeat('x', MAX_MESSAGE_SIZE)

    assert remote.value.error_type == 'ValueError'
    assert not len(calling._pending)
    if full:
        # What just fits goes through.
        around = int(re.search(r'a body of (\d+) bytes', str(raised.value))[1]) - MAX_MESSAGE_SIZE
        assert calling.call.len('x' * (MAX_MESSAGE_SIZE - around)) == MAX_MESSAGE_SIZE - around
    assert calling.call.len('x') == 1
    assert before == connections(calling, serving)
