"""Servers and clients that die, fork, burn the CPU, or meet a request that kills them."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable

import gevent
import gevent.event
import pytest
from gevent import subprocess
from gevent.event import Event

from amphora import IgnoreRequest, RemoteException
from amphora.amqp import Connection
from tests.faults.parties import HEARTBEAT, Ledgers, ServerProcess
from tests.parties import Client, Gate, Server
from tests.proxy import TO_BROKER, Proxy
from tests.rabbitmq import RabbitNode
from tests.waiting import eventually


@pytest.mark.row('11')
def test_what_a_killed_server_was_at_is_done_by_another(
    ledger_of: Ledgers, client: Client, server_process: Callable[..., ServerProcess]
) -> None:
    ledger = ledger_of(client())
    doomed, other = server_process(ledger, 1), server_process(ledger, 0.05)
    ledger.call(range(40))
    eventually(lambda: len(doomed.begun) + len(other.begun) >= 40)

    doomed.kill()

    ledger.check()
    assert doomed.begun
    assert not doomed.done
    assert set(doomed.begun) <= set(other.done)


@pytest.mark.row('11')
def test_the_only_server_is_killed_and_the_next_one_answers(
    ledger_of: Ledgers, client: Client, server_process: Callable[..., ServerProcess]
) -> None:
    ledger = ledger_of(client())
    doomed = server_process(ledger, 5)
    ledger.call(range(10))
    eventually(lambda: len(doomed.begun) == 10)

    doomed.kill()
    server_process(ledger, 0)

    ledger.check()


def test_a_timeout_that_a_function_leaves_behind_harms_no_later_request(
    ledger_of: Ledgers, server: Server, client: Client
) -> None:
    calling = client()
    ledger = ledger_of(calling, timeout=2)

    def careless() -> str:
        gevent.Timeout(0.05).start()
        return 'done'

    serving = server(ledger.double(), careless)
    assert calling.call.careless() == 'done'
    expired = gevent.event.Event()
    gevent.spawn_later(0.1, expired.set)
    assert expired.wait(2)

    ledger.call(range(20))
    ledger.check()
    with gevent.Timeout(3):
        serving.stop()


@pytest.mark.row('20')
@pytest.mark.parametrize('queue_type', ['classic', 'quorum'])
def test_a_request_that_kills_its_server_each_time_is_set_aside_after_five_deliveries(
    queue_type: str,
    ledger_of: Ledgers,
    client: Client,
    server_process: Callable[..., ServerProcess],
    node: RabbitNode,
    service: str,
) -> None:
    def live() -> None:
        # Whatever kills the server, it is started again, as by a supervisor.
        while True:
            lives.append(server_process(ledger, 0, queue_type=queue_type))
            lives[-1].wait()

    calling = client(queue_type=queue_type)
    ledger = ledger_of(calling, timeout=40)
    lives: list[ServerProcess] = []
    supervisor = gevent.spawn(live)
    stop: list[bool] = []
    ledger.keep_calling(lambda: bool(stop), callers=5)

    with pytest.raises(RemoteException) as raised:
        calling.call(timeout=40).die()

    # Others go on, and their server dies no more.
    deaths, ended = len(lives), ledger.ended
    eventually(lambda: ledger.ended > ended + 100, 20)
    stop.append(True)
    ledger.check()
    supervisor.kill()
    assert raised.value.error_type == 'DeadLetter'
    assert '5 times' in str(raised.value)
    assert deaths == len(lives) == 6
    with Connection.from_url(node.url) as connection, connection.channel() as channel:
        dead = channel.basic.get(f'rpc_{service}_dead', no_ack=True)
    assert b'"die"' in dead.body
    assert dead.properties['headers']['x-amphora-queue'] == f'rpc_{service}_request'
    assert dead.properties['headers']['x-amphora-deliveries'] == 5
    assert 'delivered 5 times' in dead.properties['headers']['x-amphora-reason']


@pytest.mark.row('20')
@pytest.mark.parametrize('grief', [0, 3], ids=['among others', 'alone'])
def test_a_request_that_came_to_grief_begins_when_the_broker_has_dealt_with_the_ack_of_the_delivery_before(
    grief: int, server: Server, client: Client, service: str, node: RabbitNode, proxy: Proxy
) -> None:
    begun = Event()

    def end() -> None:
        # Nobody hears what this server says from here on, nor what it has said and is still on its way.
        proxy.drop(TO_BROKER)
        begun.set()

    queue = f'rpc_{service}_request'
    client().defer(wait_publish=True).end()
    with Connection.from_url(node.url) as connection, connection.channel() as channel:
        request = channel.basic.get(queue)
        if grief:
            request.properties['headers'] = {'x-amphora-deliveries': grief}
        server(end, amqp_url=proxy.url).wait_ready()
        proxy.delay = 0.2
        if grief:
            channel.basic.publish(request, '', queue)
        else:
            channel.basic.reject(request.delivery_info.delivery_tag, requeue=True)
        assert begun.wait(10)
        proxy.refuse()
        proxy.reset()

        eventually(lambda: channel.queue.declare(queue, passive=True).message_count > 0)
        assert channel.basic.get(queue).properties.get('headers', {}).get('x-amphora-deliveries') == grief + 1
        assert channel.basic.get(queue) is None
    proxy.delay = 0
    proxy.admit()


@pytest.mark.row('20')
def test_requests_that_servers_give_back_or_ignore_are_never_set_aside(
    ledger_of: Ledgers, server: Server, client: Client, service: str, node: RabbitNode
) -> None:
    refusals = []

    def double(number: int) -> int:
        refusals.append(number)
        raise IgnoreRequest

    servers = [server(double) for _ in range(7)]
    ledger = ledger_of(client(), timeout=30)
    ledger.call([1])

    eventually(lambda: len(refusals) > 6, 20)
    for each in servers:
        each.add_function(ledger.double())

    ledger.check()
    assert f'rpc_{service}_dead' not in node.list_queues()


@pytest.mark.row('25')
def test_a_function_that_burns_the_cpu_costs_no_connection_and_is_named_in_the_log(
    ledger_of: Ledgers, client: Client, server_process: Callable[..., ServerProcess]
) -> None:
    calling = client()
    ledger = ledger_of(calling)
    burning = server_process(ledger, 0, heartbeat=HEARTBEAT)
    ledger.call(range(10))
    ledger.wait()

    calling.call(timeout=20).burn(4 * HEARTBEAT)

    ledger.call(range(10, 20))
    ledger.check()
    assert not ledger.duplicated
    eventually(lambda: any('free again' in line for line in burning.stderr))
    [said, *_] = burning.stderr
    assert "function 'burn'" in said
    assert 'held the hub' in said
    assert not [line for line in burning.stderr if 'session' in line or 'lost' in line or 'closed' in line]


@pytest.mark.row('25')
def test_what_expires_while_a_function_holds_its_server_is_not_run(
    ledger_of: Ledgers, client: Client, server_process: Callable[..., ServerProcess]
) -> None:
    calling = client()
    ledger = ledger_of(calling, timeout=0.5)
    ledger.reported = False
    burning = server_process(ledger, 0)
    calling.call.burn(0)

    burnt = calling.defer(timeout=20).burn(3)
    ledger.call(range(20))
    ledger.wait()
    burnt.get(timeout=20)
    calling.call.burn(0)

    assert len(ledger.errors) == 20
    assert not ledger.executed
    assert not burning.done


FORKING = """
import os
import sys
{patch}
from amphora import AmqpRpcClient, AmqpRpcServer

server = AmqpRpcServer(sys.argv[1])
server.add_function(lambda x, y: x + y, name='add')
server.add_function(os.getpid, name='pid')
server.serve()
client = AmqpRpcClient(sys.argv[1])
assert client.call.add(2, 3) == 5
uuid = client.uuid
under_way = client.defer.add(1, 1)

child = os.fork()
if not child:
    # Of the same names, and nothing that is shared; the server is not one until it is told to serve.
    assert client.call.pid() == os.getppid()
    assert client.uuid != uuid
    print('child', [client.call.add(n, n) for n in range(3)], flush=True)
    server.serve()
    assert server.wait_ready(5)
    # Not every other call: the parent calls too, and the broker takes turns.
    assert any(client.call.pid() == os.getpid() for _ in range(1000))
    print('child serves', flush=True)
    client.stop()
    server.stop()
    os._exit(0)
print('parent', [client.call.add(n, 1) for n in range(3)], under_way.get(), flush=True)
{wait}
assert client.call.pid() == os.getpid()
print('parent', client.call.add(2, 3), client.ignored_replies, flush=True)
client.stop()
server.stop()
"""


FORKING_WHILE_STOPPING = """
import os, sys, gevent
from amphora import AmqpRpcClient, AmqpRpcServer

server = AmqpRpcServer(sys.argv[1])
running = gevent.event.Event()
go_on = gevent.event.Event()


@server.add_function
def wait():
    running.set()
    go_on.wait()


server.serve()
client = AmqpRpcClient(sys.argv[1])
result = client.defer.wait()
running.wait()
stopping = gevent.spawn(server.stop)
gevent.sleep(0.1)
child = os.fork()
if not child:
    gevent.reinit()
    with gevent.Timeout(5):
        server.{method}()
    os._exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
go_on.set()
stopping.get()
result.get()
client.stop()
"""


@pytest.mark.row('24')
@pytest.mark.parametrize('method', ['stop', 'stop_consumer', 'stop_publisher', 'prepare_stop'])
def test_a_child_that_is_forked_while_its_parent_stops_a_server_does_not_wait_for_that(
    method: str, node: RabbitNode, service: str
) -> None:
    process = subprocess.Popen(
        [sys.executable, '-c', FORKING_WHILE_STOPPING.format(method=method), service],
        env={**os.environ, 'AMPHORA_AMQP_URL': node.url},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        universal_newlines=True,
    )
    output, errors = process.communicate(timeout=30)

    assert (process.returncode, output, errors) == (0, '', '')


@pytest.mark.row('24')
@pytest.mark.parametrize(
    'patch', ['', 'from gevent import monkey; monkey.patch_all()'], ids=['nothing patched', 'everything patched']
)
def test_a_forked_child_has_connections_of_its_own_and_the_parents_go_on(
    patch: str, node: RabbitNode, service: str
) -> None:
    # Whoever waits for a child without gevent stops the parent's server.
    wait = 'os.waitpid(child, 0)' if patch else 'while not os.waitpid(child, os.WNOHANG)[0]: client.call.add(0, 0)'
    process = subprocess.Popen(
        [sys.executable, '-c', FORKING.format(patch=patch, wait=wait), service],
        env={**os.environ, 'AMPHORA_AMQP_URL': node.url},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        universal_newlines=True,
    )
    output, errors = process.communicate(timeout=30)

    assert (process.returncode, errors) == (0, '')
    assert sorted(output.splitlines()) == [
        'child [0, 2, 4]',
        'child serves',
        'parent 5 0',
        'parent [1, 2, 3] 2',
    ]


@pytest.mark.row('24')
def test_a_child_that_forks_inside_a_function_leaves_its_parents_server_alone(
    ledger_of: Ledgers, server: Server, client: Client
) -> None:
    def fork() -> int:
        child = os.fork()
        if not child:
            os._exit(7)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    calling = client()
    ledger = ledger_of(calling)
    server(ledger.double(), fork)

    assert [calling.call.fork() for _ in range(3)] == [7, 7, 7]

    ledger.call(range(20))
    ledger.check()
    assert not ledger.duplicated


CALLING = """
import sys

import gevent

from amphora import AmqpRpcClient

client = AmqpRpcClient(sys.argv[1], timeout=60)
print('calling', flush=True)
gevent.joinall([gevent.spawn(client.call.wait, number) for number in range(int(sys.argv[2]))])
"""


@pytest.mark.row('12')
def test_a_client_that_is_killed_during_its_calls_is_one_line_in_the_servers_log(
    ledger_of: Ledgers,
    server: Server,
    client: Client,
    gate: Gate,
    node: RabbitNode,
    service: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    calling = client()
    ledger = ledger_of(calling)
    serving = server(ledger.double(), gate.function())
    ledger.call(range(10))
    ledger.check()
    doomed = subprocess.Popen(
        [sys.executable, '-c', CALLING, service, '50'], env={**os.environ, 'AMPHORA_AMQP_URL': node.url}
    )
    eventually(lambda: len(gate.entered) == 50, 20)
    caplog.set_level('INFO', 'amphora')
    caplog.clear()

    doomed.kill()
    doomed.wait()
    # Its reply queue waits for it to come back; somebody has to clear up for the replies to come back instead.
    replies = re.compile(f'rpc_{service}_(?!{calling.uuid}).*_response')
    [queue] = filter(replies.fullmatch, node.list_queues())
    with Connection.from_url(node.url) as connection, connection.channel() as channel:
        channel.queue.delete(queue)
    gate.open()
    eventually(lambda: not serving._native._in_hand)

    ledger.call(range(10, 20))
    ledger.check()
    said = [record.getMessage() for record in caplog.records if record.name.startswith('amphora')]
    assert len(said) == 1
    assert 'is gone' in said[0]
