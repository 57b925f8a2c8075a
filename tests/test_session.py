"""A session: what it waits for, what it says of its troubles, and what it does in time."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from time import monotonic
from typing import Any

import gevent
import pytest
from pamqp import commands

from amphora.amqp import Connection, NotAllowed
from amphora.session import Session
from amphora.settings import make_settings
from amphora.timing import Deadline
from amphora.topology import Queue, Record, Topology
from tests.amqp.scripted import Peer, ScriptedBroker, method
from tests.rabbitmq import HOST, RabbitNode
from tests.stopwatch import Stopwatch

Begin = Callable[..., Session]


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
