"""Messages that come twice, come late, are too large, or belong to nobody."""

from __future__ import annotations

import os
import sys
import time
from itertools import pairwise

import gevent
import pytest
from gevent import subprocess
from gevent.event import Event

from amphora import AmphoraError, IgnoreRequest, NotSent
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
    double, both_are_here = ledger.double(), Event()
    both_are_here.set()

    def double_when_both_are_here(number: int) -> int:
        both_are_here.wait()
        return double(number)

    serving = server(named={'double': double_when_both_are_here})
    ledger.call([1])
    ledger.check()
    ignored = calling.ignored_replies
    ledger.expect(21)
    both_are_here.clear()

    with Connection.from_url(node.url) as connection, connection.channel() as channel:
        request = Message(b'{"func": "double", "args": [21], "kwargs": {}}', message_id='twice', reply_to=calling.uuid)
        # The first two come while one of them runs, and get one answer; those after them come when it has run.
        for copies in (2, 1, 1):
            for _ in range(copies):
                channel.basic.publish(request, f'rpc_{service}_request', '')
            if copies == 2:
                eventually(lambda: [len(jobs) for jobs in serving._native._in_hand.values()] == [2])
                both_are_here.set()
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


@pytest.mark.row('21')
def test_the_only_server_may_ignore_a_request_for_long_without_being_kept_busy(
    ledger_of: Ledgers, client: Client, server: Server
) -> None:
    refused: list[float] = []

    def double(number: int) -> int:
        refused.append(time.monotonic())
        raise IgnoreRequest

    serving = server(double)
    ledger = ledger_of(client(), timeout=30)
    ledger.call([1])
    eventually(lambda: len(refused) >= 2, 10)
    began, used = time.monotonic(), time.process_time()
    eventually(lambda: len(refused) >= 6, 10)
    took, used = time.monotonic() - began, time.process_time() - used
    serving.add_function(ledger.double())

    ledger.check()
    # The first time it goes back at once: another server may want it.
    assert min(later - earlier for earlier, later in pairwise(refused[1:])) >= 0.95
    # Of one processor; the client and this test are in it, too.
    assert used / took < 0.05 + 0.05


@pytest.mark.row('22', '23')
def test_replies_that_nobody_waits_for_are_counted_and_leave_nothing_behind(
    ledger_of: Ledgers, server: Server, client: Client, node: RabbitNode, service: str
) -> None:
    calling = client()
    ledger = ledger_of(calling)
    server(ledger.double())
    ledger.call(range(10))
    ledger.check()
    answered = next(iter(ledger._numbers))

    with Connection.from_url(node.url) as connection, connection.channel() as channel:
        for number in range(1000):
            reply = Message(b'{"result": 1}', message_id=[answered, 'unknown', '', 'x' * 255][number % 4])
            channel.basic.publish(reply, f'rpc_{service}_response', calling.uuid)
        channel.basic.publish(Message(b'{"result": 1}'), f'rpc_{service}_response', calling.uuid)
        eventually(lambda: calling.ignored_replies == 1001)

    ledger.call(range(10, 20))
    ledger.check()
    assert not len(calling._pending)
    assert eventually(lambda: node.list_queues()[f'rpc_{service}_{calling.uuid}_response'] == (0, 1))


@pytest.mark.row('26')
@pytest.mark.limit(90)
def test_a_function_that_outlives_the_brokers_consumer_timeout_is_answered_all_the_same(
    ledger_of: Ledgers, server: Server, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    with RabbitNode(config={'consumer_timeout': 1000}) as impatient:
        # How often it looks at each channel's oldest delivery, in milliseconds; the default is a minute.
        impatient.ctl('eval', 'application:set_env(rabbit, channel_tick_interval, 500).')
        calling = client(amqp_url=impatient.url)
        ledger = ledger_of(calling, timeout=30)
        serving = server(ledger.double(5), amqp_url=impatient.url)
        eventually(lambda: serving._consuming.connection)
        connection = serving._consuming.connection
        ledger.call([1])
        eventually(lambda: any('timed out' in record.getMessage() for record in caplog.records), 20)

        ledger.check()

        # The ack of a delivery of the channel that was closed would have ended the connection.
        assert serving._consuming.connection is connection
        assert not ledger.duplicated
        ended = [record for record in caplog.records if 'timed out' in record.getMessage()]
        assert {record.levelname for record in ended} == {'WARNING'}
        serving.add_function(ledger.double())
        ledger.call(range(10, 20))
        ledger.check()
        calling.stop()
        serving.stop()


PATCHING = """
import sys
{before}
from amphora import AmqpRpcClient, AmqpRpcServer, WrongThread
{after}
import gevent
from gevent import monkey

server = AmqpRpcServer(sys.argv[1])
server.add_function(lambda x, y: x + y, name='add')
server.serve()
client = AmqpRpcClient(sys.argv[1])
print([client.call.add(n, 1) for n in range(3)])
print([call.get() for call in [gevent.spawn(client.call.add, n, 2) for n in range(3)]])

def elsewhere():
    for use in (lambda: client.call.add(1, 1), lambda: client.defer.add(1, 1), client.serve, client.stop, server.stop):
        try:
            said.append(use())
        except WrongThread as error:
            said.append('make a' in str(error))

said = []
thread = monkey.get_original('_thread', 'start_new_thread')(elsewhere, ())
while len(said) < 5:
    gevent.sleep(0.01)
print(said)
print(client.call.add(2, 3))
client.stop()
server.stop()
"""
PATCH = 'from gevent import monkey; monkey.patch_all()'


@pytest.mark.row('29')
@pytest.mark.parametrize(
    ('before', 'after'),
    [(PATCH, ''), ('', PATCH), ('', ''), ('from gevent import monkey; monkey.patch_socket()', '')],
    ids=['before', 'after', 'never', 'sockets only'],
)
def test_imported_before_patching_or_after_it_works_and_other_threads_are_told(
    before: str, after: str, node: RabbitNode, service: str
) -> None:
    process = subprocess.Popen(
        [sys.executable, '-c', PATCHING.format(before=before, after=after), service],
        env={**os.environ, 'AMPHORA_AMQP_URL': node.url},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        universal_newlines=True,
    )
    output, errors = process.communicate(timeout=30)

    assert process.returncode == 0, errors
    assert output.splitlines() == ['[1, 2, 3]', '[2, 3, 4]', str([True] * 5), '5']
    assert 'LoopExit' not in errors
