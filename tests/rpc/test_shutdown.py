"""Ends: warm shutdowns, processes that end, and what a process with amphora in it prints."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent import subprocess

from amphora.answering import ALONE_AFTER
from amphora.dead_letters import DELIVERIES
from tests.parties import Client, Gate, Server
from tests.proxy import Proxy
from tests.rabbitmq import RabbitNode
from tests.rpc.peer import Peer
from tests.stopwatch import Stopwatch
from tests.waiting import eventually

ROOT = Path(__file__).parent.parent.parent


def test_a_warm_shutdown_loses_nothing_and_repeats_nothing(server: Server, client: Client, peer: Peer) -> None:
    run: list[int] = []

    def work(number: int) -> int:
        gevent.sleep(0.002)
        run.append(number)
        return number

    first, calling = server(work, prefetch=10), client()
    results = [calling.defer.work(number) for number in range(500)]
    eventually(lambda: len(run) > 20)

    first.prepare_stop()
    first.stop()
    done_by_the_first = len(run)
    assert done_by_the_first < 500
    server(work)

    assert [result.get(timeout=10) for result in results] == list(range(500))
    assert sorted(run) == list(range(500))


def test_a_server_that_is_replaced_over_and_over_answers_every_call(server: Server, client: Client) -> None:
    run: list[int] = []
    calling = client()
    serving = server(named={'work': lambda number: run.append(number) or number})
    results = []

    for generation in range(10):
        results += [calling.defer.work(generation * 50 + number) for number in range(50)]
        successor = server(named={'work': lambda number: run.append(number) or number})
        serving.prepare_stop()
        serving.stop()
        serving = successor

    assert [result.get(timeout=10) for result in results] == list(range(500))
    assert sorted(run) == list(range(500))


def test_requests_that_a_prepared_server_had_not_begun_go_back(
    server: Server, client: Client, peer: Peer, gate: Gate
) -> None:
    serving, calling = server(gate.function(), prefetch=5), client()
    results = [calling.defer(wait_publish=True).wait(number) for number in range(20)]
    eventually(lambda: gate.entered)

    serving.prepare_stop()

    begun = len(gate.entered)
    eventually(lambda: peer.ready() == 20 - begun)
    gate.open()
    serving.stop()
    server(gate.function())
    assert sorted(result.get(timeout=5) for result in results) == list(range(20))
    assert sorted(gate.entered) == list(range(20))


def test_requests_that_came_together_with_one_that_prepares_the_stop_go_back(
    server: Server, client: Client, peer: Peer
) -> None:
    run: list[int] = []

    def once(number: int) -> int:
        run.append(number)
        if len(run) == 1:
            serving.prepare_stop()
        return number

    serving, calling = server(once), client()
    serving.stop()
    results = [calling.defer(wait_publish=True).once(number) for number in range(40)]
    serving.serve()
    eventually(lambda: run)
    serving.stop()

    assert len(run) < 10
    assert peer.ready() == 40 - len(run)
    server(once)
    assert [result.get(timeout=5) for result in results] == list(range(40))
    assert sorted(run) == list(range(40))


def test_requests_that_wait_to_run_alone_do_not_hold_up_a_stop_without_a_broker(
    server: Server, peer: Peer, gate: Gate, gateway: Proxy
) -> None:
    gateway.admit()
    serving = server(gate.function(), amqp_url=gateway.url)
    assert serving.wait_ready(10)
    body = {'func': 'wait', 'args': [], 'kwargs': {}}
    for number in range(5):
        peer.request(body, message_id=str(number), reply_to='nobody', headers={DELIVERIES: ALONE_AFTER})
    assert eventually(lambda: gate.entered)
    assert eventually(lambda: peer.ready() == 0)

    gateway.refuse()
    gateway.reset()
    gate.open()
    watch = Stopwatch()
    serving.stop()

    assert watch.awake < 5
    assert len(gate.entered) == 1


def test_stopping_twice_is_stopping(server: Server, client: Client) -> None:
    serving, calling = server(named={'well': lambda: 'well'}), client()
    assert calling.call.well() == 'well'

    for one in (calling, serving):
        one.stop()
        one.stop()


def test_serving_twice_is_serving(server: Server, client: Client, peer: Peer) -> None:
    serving, calling = server(named={'well': lambda: 'well'}), client()
    serving.serve()
    calling.serve()

    assert calling.call.well() == 'well'
    assert peer.consumers() == 1


def test_stopping_and_serving_again_many_times(server: Server, client: Client) -> None:
    serving, calling = server(named={'well': lambda: 'well'}), client()

    for _ in range(5):
        assert calling.call.well() == 'well'
        for one in (serving, calling):
            one.stop()
            one.serve()

    assert calling.call.well() == 'well'


def test_a_stopped_server_and_client_leave_no_connection(
    rabbit: RabbitNode, vhost: str, server: Server, client: Client
) -> None:
    url = rabbit.url_of(vhost)
    serving, calling = server(named={'well': lambda: 'well'}, amqp_url=url), client(amqp_url=url)
    assert calling.call.well() == 'well'
    assert f'{vhost}\n' in rabbit.ctl('list_connections', 'vhost')

    calling.stop()
    serving.stop()

    eventually(lambda: f'{vhost}\n' not in rabbit.ctl('list_connections', 'vhost'))


# -- processes ---------------------------------------------------------------------------------------------------------


SERVER = """
import sys
import gevent
from amphora import AmqpRpcServer

server = AmqpRpcServer(sys.argv[1])
server.add_function(lambda: 'here', name='where')
server.add_function(lambda seconds: gevent.sleep(seconds) or 'slept', name='sleep')
server.serve(nowait=False)
"""


@pytest.fixture
def process(amqp_url: str, service: str, stopped_at_the_end: list[Any]) -> Any:
    """Starts a Python process that is given the service's name, and the broker's URL in its environment."""
    started: list[subprocess.Popen] = []

    def start(source: str, *arguments: str) -> subprocess.Popen:
        made = subprocess.Popen(
            [sys.executable, '-X', 'dev', '-W', 'error', '-c', source, service, *arguments],
            env={**os.environ, 'AMPHORA_AMQP_URL': amqp_url},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        started.append(made)
        return made

    yield start
    for one in started:
        one.kill()
        one.communicate()


def test_a_request_whose_server_process_is_killed_is_run_by_another(
    process: Any, server: Server, client: Client, peer: Peer
) -> None:
    serving, calling = process(SERVER), client()
    assert calling.call.where() == 'here'
    result = calling.defer.sleep(30)
    eventually(lambda: peer.ready() == 0 and peer.consumers() == 1)

    server(named={'sleep': lambda seconds: 'somebody else'})
    serving.kill()

    assert result.get(timeout=8) == 'somebody else'


def test_an_interrupted_server_process_stops_first(process: Any, client: Client, peer: Peer) -> None:
    serving, calling = process(SERVER), client()
    assert calling.call.where() == 'here'

    serving.send_signal(signal.SIGINT)
    _, errors = serving.communicate(timeout=10)

    assert b'KeyboardInterrupt' in errors
    eventually(lambda: peer.consumers() == 0)


EVENTFUL = """
import sys

patch = sys.argv[2]
if patch != 'nothing':
    from gevent import monkey
    getattr(monkey, 'patch_' + patch)()

import gevent
from amphora import AmqpRpcClient, AmqpRpcServer, NoResult, RemoteException, Unroutable, WrongRequest

server = AmqpRpcServer(sys.argv[1])
server.add_function(lambda x, y: x + y, name='add')
server.add_function(lambda x, y: x / y, name='divide')
server.add_function(object, name='thing')
server.add_function(gevent.sleep, name='sleep')
server.serve()
client = AmqpRpcClient(sys.argv[1])
for function, error in (
    (lambda: client.call.divide(1, 0), RemoteException),
    (lambda: client.call.thing(), RemoteException),
    (lambda: client.call.missing(), WrongRequest),
    (lambda: client.call(timeout=0.1).sleep(0.3), NoResult),
    (lambda: client.call(routing_key='nowhere').add(1, 1), Unroutable),
    (lambda: client.call.add(object(), 1), TypeError),
):
    try:
        function()
    except error:
        pass
    else:
        raise SystemExit('not raised: %s' % error)
client.defer.divide(1, 0)
client.defer(routing_key='nowhere').add(1, 1)
offline = AmqpRpcClient(sys.argv[1], amqp_url='amqp://127.0.0.1:1/', timeout=0.2)
try:
    offline.call.add(1, 1)
except NoResult:
    pass
offline.stop()
print(client.call.add(2, 3))
client.stop()
server.stop()
"""


@pytest.mark.parametrize('patch', ['nothing', 'socket', 'all'])
def test_a_process_patched_or_not_prints_nothing_but_its_own(process: Any, patch: str) -> None:
    running = process(EVENTFUL, patch)
    output, _ = running.communicate(timeout=20)

    assert (running.returncode, output) == (0, b'5\n')


MATH_CLIENT = """
import sys
from gevent import monkey; monkey.patch_socket()
from amphora import AmqpRpcClient

client = AmqpRpcClient(sys.argv[1])
print(client.call.where())
"""


def test_a_client_process_that_comes_first_ends_by_itself_when_it_has_its_answer(process: Any) -> None:
    calling = process(MATH_CLIENT)
    process(SERVER)

    output, errors = calling.communicate(timeout=20)

    assert (output, errors, calling.returncode) == (b'here\n', b'', 0)
