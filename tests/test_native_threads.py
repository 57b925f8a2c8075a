"""What a native thread leaves behind when it ends without stopping it."""

from __future__ import annotations

import gc
import sys
import weakref
from pathlib import Path

import gevent
import pytest
from gevent import monkey, subprocess

from amphora import AmqpRpcClient, AmqpRpcServer
from amphora.amqp import Connection
from tests.rabbitmq import RabbitNode
from tests.waiting import eventually

ROOT = Path(__file__).parent.parent

start_new_thread = monkey.get_original('_thread', 'start_new_thread')
sleep = monkey.get_original('time', 'sleep')


def run_in_thread(function) -> None:
    ended = gevent.get_hub().loop.async_()
    waiter = gevent.event.Event()
    ended.start(waiter.set)

    def run() -> None:
        try:
            function()
        finally:
            ended.send()

    start_new_thread(run, ())
    assert waiter.wait(30)
    ended.stop()
    ended.close()


@pytest.fixture
def url(rabbit: RabbitNode, vhost: str) -> str:
    return rabbit.url_of(vhost)


def test_requests_do_not_wait_for_a_server_whose_thread_has_ended(url: str, caplog: pytest.LogCaptureFixture) -> None:
    def serve() -> None:
        server = AmqpRpcServer('left', amqp_url=url)
        server.add_function(len)
        server.serve()
        server.wait_ready()

    run_in_thread(serve)

    with Connection.from_url(url) as connection, connection.channel() as channel:
        eventually(lambda: channel.queue.declare('rpc_left_request', passive=True).consumer_count == 0)
    with AmqpRpcServer('left', amqp_url=url) as server, AmqpRpcClient('left', amqp_url=url) as client:
        server.add_function(len)
        server.serve()
        assert [client.call.len('four') for _ in range(10)] == [4] * 10
    # One that consumes, and one that publishes.
    eventually(lambda: sum('the thread that made the connection has ended' in line for line in caplog.messages) == 2)
    # Also of its hub, which never answers any more, nobody says that something holds it.
    gevent.sleep(1.5)
    assert not [line for line in caplog.messages if 'has held the hub' in line]


def test_a_client_whose_thread_has_ended_is_no_longer_in_memory(url: str) -> None:
    clients: list[weakref.ref[AmqpRpcClient]] = []

    def call() -> None:
        client = AmqpRpcClient('left', amqp_url=url)
        client.serve()
        clients.append(weakref.ref(client))

    run_in_thread(call)

    def is_gone() -> bool:
        gc.collect()
        return clients[0]() is None

    eventually(is_gone)


COLLECTING = """
import gc, sys, weakref
import gevent
from amphora import AmqpRpcClient, AmqpRpcServer
from tests.test_native_threads import run_in_thread

def call():
    client = AmqpRpcClient('left', amqp_url=sys.argv[1])
    client.serve()
    left.append(weakref.ref(client))

def answer():
    server = AmqpRpcServer('left', amqp_url=sys.argv[1])
    server.add_function(len)
    server.serve()
    server.wait_ready()

for _ in range(30):
    left = []
    run_in_thread(answer)
    run_in_thread(call)
    while left[0]() is not None:
        gc.collect()
        gevent.sleep(0.01)
print('none is left')
"""


def test_a_thread_may_end_while_garbage_is_collected(url: str) -> None:
    ran = subprocess.run(
        [sys.executable, '-X', 'faulthandler', '-c', COLLECTING, url],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ran.returncode, ran.stdout) == (0, 'none is left\n'), ran.stderr


def test_what_a_thread_has_sent_before_its_end_is_not_lost(url: str) -> None:
    count = 3000

    def publish() -> None:
        channel = Connection.from_url(url).channel()
        channel.confirm.select()
        for _ in range(count):
            channel.publish('', 'sent', {}, b'x' * 100)
        # Until confirms have come that this thread will not read.
        sleep(0.05)

    with Connection.from_url(url) as connection, connection.channel() as channel:
        channel.queue.declare('sent')
        run_in_thread(publish)
        eventually(lambda: channel.queue.declare('sent', passive=True).message_count == count)


PROGRAM = """
import os, sys
if 'patched' in sys.argv:
    from gevent import monkey
    monkey.patch_all()
import gevent
from gevent import monkey
from amphora.amqp import Connection
from amphora.amqp.heartbeat import sender

# Before the thread's: where gevent has patched the import of modules, two that import at once wait for ever.
gevent.get_hub()
begun = []

def hold():
    connection = Connection.from_url(sys.argv[1])
    with connection.channel() as channel:
        begun.append(connection)
        for _ in range(20):
            gevent.sleep(0.1)
            channel.queue.declare('held', exclusive=True)
    begun.append('still connected')
    gevent.sleep(1000)

monkey.get_original('_thread', 'start_new_thread')(hold, ())
while not begun:
    gevent.sleep(0.01)
with sender._lock:
    child = os.fork()
    if not child:
        os._exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
while len(begun) == 1:
    gevent.sleep(0.01)
print(begun[1])
"""


@pytest.mark.parametrize('how', ['patched', 'plain'])
def test_neither_a_fork_nor_the_end_of_the_program_is_the_end_of_a_thread(url: str, how: str) -> None:
    ran = subprocess.run(
        # Newer Pythons warn of any fork beside another thread.
        [sys.executable, '-W', 'ignore:This process:DeprecationWarning', '-c', PROGRAM, url, how],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ran.stdout.split('\n'), ran.stderr) == (['7', 'still connected', ''], '')
