"""What happens to clients in passing: Ctrl-C, forks, threads that cannot be had."""

import os
import sys

import pytest
from gevent import subprocess

from amphora.amqp import heartbeat
from amphora.amqp.frames import HEARTBEAT_FRAME
from tests.waiting import eventually


def test_a_ctrl_c_while_the_hub_reads_does_not_leave_the_client_deaf(serving, client):
    serving(named={'echo': lambda value: value})
    calling = client()
    assert calling.call.echo(1) == 1
    transport = eventually(lambda: calling._consuming.connection)._transport
    on_data = transport._on_data

    def interrupted(data):
        transport._on_data = on_data
        raise KeyboardInterrupt

    transport._on_data = interrupted
    with pytest.raises(KeyboardInterrupt):
        calling.call.echo(2)

    assert calling.call(timeout=10).echo(3) == 3


def test_heartbeats_leave_although_their_thread_could_not_be_started_at_first(monkeypatch):
    start, tries = heartbeat._start_new_thread, []

    def fail_once(*arguments):
        tries.append(arguments)
        if len(tries) == 1:
            raise RuntimeError("can't start new thread")
        return start(*arguments)

    monkeypatch.setattr(heartbeat, '_start_new_thread', fail_once)
    sender = heartbeat.HeartbeatSender()
    kept = []

    class Silent:
        """A transport that has not said anything for long."""

        last_sent = 0.0

        def keep_alive(self, frame):
            kept.append(frame)

    transport = Silent()
    with pytest.raises(RuntimeError, match='start new thread'):
        sender.add(transport, 1)
    sender.add(transport, 1)
    eventually(lambda: kept)
    sender.remove(transport)

    assert kept[0] == HEARTBEAT_FRAME


def output_of(program, *arguments, **environ):
    command = [sys.executable, '-c', program, *arguments]
    return subprocess.check_output(command, env={**os.environ, **environ}, timeout=30)


LOSING = """
import threading, time
from amphora import AmqpRpcClient

# Nobody is there.
where = {'amqp_url': 'amqp://127.0.0.1:1'}

def defer_when_stopped():
    with AmqpRpcClient('lost', **where) as client:
        pass
    client.defer.note(1)
    return client

def defer_when_not_started():
    client = AmqpRpcClient('lost', autostart=False, **where)
    client.defer.note(1)
    return client

def defer_in_a_thread():
    client = AmqpRpcClient('lost', **where)
    client.defer.note(1)

"""


@pytest.mark.parametrize(
    ('program', 'says'),
    [
        ('client = defer_when_stopped()', 'the program ends with 1 requests not sent'),
        ('client = defer_when_not_started()', 'the program ends with 1 requests not sent'),
        (
            'thread = threading.Thread(target=defer_in_a_thread); thread.start(); thread.join(); time.sleep(2)',
            'its thread ends with 1 requests not sent',
        ),
    ],
)
def test_the_log_tells_of_requests_that_are_lost_at_the_end(program, says):
    command = [sys.executable, '-c', LOSING + program]
    errors = subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=30, check=True).stderr
    assert errors.count('requests not sent') == 1
    assert says in errors


FORKING = """
import os, sys
from amphora import AmqpRpcClient

client = AmqpRpcClient(sys.argv[1], amqp_url=sys.argv[2], timeout=5)
client.call.echo(1)
child = os.fork()
if not child:
    os._exit(0)
os.waitpid(child, 0)
print(client.call.echo(2))
"""


@pytest.mark.parametrize('loop', ['libev-cext', 'libuv'])
def test_a_fork_does_not_leave_the_parents_connections_deaf(serving, service, amqp_url, loop):
    serving(named={'echo': lambda value: value})

    assert output_of(FORKING, service, amqp_url, GEVENT_LOOP=loop) == b'2\n'


DEFERRING = """
import multiprocessing, sys
from amphora import AmqpRpcClient

def work():
    client = AmqpRpcClient(sys.argv[1], amqp_url=sys.argv[2])
    client.defer.note('from the child')

child = multiprocessing.get_context('fork').Process(target=work)
child.start()
child.join()
print(child.exitcode)
"""


def test_what_a_process_of_multiprocessing_deferred_is_sent_when_it_ends(serving, service, amqp_url):
    noted = []
    serving(named={'note': noted.append})

    assert output_of(DEFERRING, service, amqp_url) == b'0\n'
    eventually(lambda: noted == ['from the child'])
