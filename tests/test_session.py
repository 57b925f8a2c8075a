"""A session: what it waits for, what it says of its troubles, and what it does in time."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from time import monotonic
from typing import Any

import gevent
import pytest
from gevent import subprocess
from pamqp import commands

from amphora.amqp import Connection, NotAllowed
from amphora.session import Session
from amphora.settings import make_settings
from amphora.timing import Deadline
from amphora.topology import Queue, Record, Topology
from tests.amqp.scripted import Peer, ScriptedBroker, method
from tests.rabbitmq import HOST, RabbitNode, free_ports
from tests.stopwatch import Stopwatch
from tests.waiting import eventually

Begin = Callable[..., Session]

ROOT = Path(__file__).parent.parent


def wait_ready(session: Session, seconds: float) -> Connection | None:
    return session.wait_ready(Deadline.after(seconds, monotonic()))


@pytest.fixture
def begin() -> Iterator[Begin]:
    """Starts a session, with a broker that has a script."""

    def make(script: Callable[[Peer], Any], *records: Record) -> Session:
        broker = stack.enter_context(ScriptedBroker(script))
        session = Session(make_settings(amqp_url=f'amqp://{HOST}:{broker.port}'), Topology(records), 'test')
        stack.callback(session.stop)
        session.start()
        return session

    with ExitStack() as stack:
        yield make


def test_where_there_are_too_many_connections_it_waits_for_one_to_end(rabbit: RabbitNode, vhost: str) -> None:
    rabbit.ctl('set_vhost_limits', '-p', vhost, '{"max-connections": 1}')
    occupant = Connection(rabbit.host, rabbit.port, vhost=vhost)
    with pytest.raises(NotAllowed, match=r'connection limit \(1\) is reached'):
        Connection(rabbit.host, rabbit.port, vhost=vhost)

    session = Session(make_settings(amqp_url=rabbit.url_of(vhost)), Topology(), 'limited')
    session.start()
    gevent.spawn_later(1, occupant.close)
    try:
        assert wait_ready(session, 10) is not None
    finally:
        session.stop()


def test_it_says_once_what_keeps_it_from_declaring(begin: Begin, caplog: pytest.LogCaptureFixture) -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        peer.accept_channel()
        peer.expect(commands.Queue.Declare)
        peer.say(commands.Connection.Close(541, 'INTERNAL_ERROR - Cannot declare a queue: no majority', 50, 10))
        peer.expect(commands.Connection.CloseOk)

    with caplog.at_level(logging.WARNING):
        session = begin(script, Queue('q'))
        assert wait_ready(session, 3) is None

    assert 'no majority' in session.obstacle()
    assert len([record for record in caplog.records if 'no majority' in record.getMessage()]) == 1


def test_it_says_what_came_together_with_the_last_words_of_the_handshake(
    begin: Begin, caplog: pytest.LogCaptureFixture
) -> None:
    def script(peer: Peer) -> None:
        peer.greet()
        peer.tune()
        peer.expect(commands.Connection.Open)
        bye = commands.Connection.Close(541, 'INTERNAL_ERROR - not now', 0, 0)
        peer.send(method(0, commands.Connection.OpenOk()) + method(0, bye))
        peer.expect(commands.Connection.CloseOk)

    with caplog.at_level(logging.WARNING):
        session = begin(script)
        assert wait_ready(session, 1) is None

    assert 'not now' in session.obstacle()
    assert 'not now' in caplog.text


def test_work_on_a_channel_of_its_own_ends_in_its_time_although_the_broker_says_nothing(begin: Begin) -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        peer.serve_until(commands.Queue.Declare)
        peer.last_words()

    session = begin(script)
    assert wait_ready(session, 5) is not None

    watch = Stopwatch()
    assert not session.with_channel(lambda channel: channel.queue.declare('q'), 0.5)
    watch.check_timeout(0.5)


def test_a_session_that_is_started_again_says_again_that_there_is_no_broker(
    caplog: pytest.LogCaptureFixture,
) -> None:
    [port] = free_ports(1)
    session = Session(make_settings(amqp_url=f'amqp://{HOST}:{port}'), Topology(), 'test')
    with caplog.at_level(logging.WARNING):
        for count in (1, 2):
            session.start()
            eventually(lambda count=count: len(caplog.records) == count)
            gevent.sleep(0.3)
            session.stop()

    assert len(caplog.records) == 2


# A handler that waits holds its lock meanwhile, and in the hub nothing may wait for that.
WAITING_HANDLER = """
from gevent import monkey
monkey.patch_all()

import logging, os
import gevent

class Waiting(logging.Handler):
    def emit(self, record):
        gevent.sleep(0.2)

logging.getLogger().addHandler(Waiting())

from pamqp import commands
from amphora.session import Session
from amphora.settings import make_settings
from amphora.topology import Topology
from tests.amqp.scripted import ScriptedBroker

peers = []

def script(peer):
    peers.append(peer)
    peer.accept()
    _, number = peer.serve_until(commands.Channel.Close)
    peer.say(commands.Channel.CloseOk(), number)
    gevent.sleep(1)

def chat():
    while len(peers) < 2:
        logging.warning('mine')
        gevent.sleep(0.01)  # others want the lock, too

with ScriptedBroker(script) as broker:
    session = Session(make_settings(amqp_url='amqp://127.0.0.1:%d' % broker.port), Topology(), 'test')
    session.start()
    session.wait_ready()
    gevent.spawn(chat)
    with gevent.Timeout(20):
        while len(peers) < 2:
            gevent.sleep(0.05)
    print('connected again', flush=True)
    os._exit(0)
"""


def test_it_comes_back_although_a_handler_of_the_log_waits() -> None:
    command = [sys.executable, '-c', WAITING_HANDLER]

    assert subprocess.check_output(command, cwd=ROOT, timeout=40) == b'connected again\n'
