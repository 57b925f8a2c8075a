"""Heartbeats: ours leave whatever the hub does, and a peer's silence is noticed."""

from __future__ import annotations

import gc
from collections.abc import Callable
from time import monotonic

import gevent
import pytest
from gevent.event import AsyncResult
from pamqp import commands, heartbeat

from amphora.amqp import Connection, ConnectionClosed, ConnectionFailed, Message
from amphora.amqp.errors import ConnectionForced
from amphora.amqp.heartbeat import sender
from tests.amqp.conftest import Connect
from tests.amqp.scripted import Peer, ScriptedBroker, method
from tests.rabbitmq import RabbitNode
from tests.stopwatch import Stopwatch
from tests.waiting import eventually


def burn(seconds: float) -> None:
    """Keep the hub from doing anything else."""
    end = monotonic() + seconds
    while monotonic() < end:
        pass


def ended(connection: Connection) -> AsyncResult[Exception]:
    reason: AsyncResult[Exception] = AsyncResult()
    connection.close_listeners.append(reason.set)
    return reason


def test_an_idle_connection_sends_heartbeats() -> None:
    def script(peer: Peer) -> float:
        peer.accept(heartbeat=1)
        begin = monotonic()
        for _ in range(3):
            assert isinstance(peer.read(), heartbeat.Heartbeat)
        return monotonic() - begin

    with ScriptedBroker(script) as broker, broker.connect(heartbeat=10):
        # The broker's proposal of 1 s was the smaller; a peer is given up after two of them.
        assert broker.result() < 3


def test_a_busy_hub_does_not_keep_heartbeats_from_leaving(connect: Connect, rabbit: RabbitNode) -> None:
    # given a heartbeat of 1 s: RabbitMQ gives up a client that is silent for 3
    connection = connect(heartbeat=1)
    channel = connection.channel()

    burn(4)

    declared = channel.queue.declare(exclusive=True)
    assert declared is not None
    channel.basic.publish(Message('hello'), routing_key=declared.queue)
    assert channel.basic.get(declared.queue) is not None
    assert not connection.closed


def test_a_silent_broker_is_noticed_within_two_heartbeats(connect: Connect, rabbit: RabbitNode) -> None:
    connection = connect(heartbeat=1)
    channel = connection.channel()
    reason = ended(connection)
    rabbit.pause()
    try:
        watch = Stopwatch()
        waiting = gevent.spawn(channel.queue.declare, exclusive=True)
        error = reason.get(timeout=5)
        assert watch.awake <= 3
    finally:
        rabbit.resume()

    assert isinstance(error, ConnectionClosed)
    assert 'the broker was silent for' in str(error)
    with pytest.raises(ConnectionClosed, match='silent'):
        waiting.get(timeout=1)


def test_a_broker_that_speaks_while_the_hub_is_busy_is_not_given_up() -> None:
    peers: list[Peer] = []

    def script(peer: Peer) -> None:
        peers.append(peer)
        peer.accept(heartbeat=1)
        peer.last_words()

    with ScriptedBroker(script) as broker, broker.connect(heartbeat=1) as connection:
        # given a heartbeat of the broker that waits in the socket while nobody can read it
        peers[0].send(heartbeat.Heartbeat().marshal())
        burn(2.5)
        assert not ended(connection).wait(0.3)
        assert not connection.closed


@pytest.mark.parametrize(
    ('asked', 'proposed', 'agreed'),
    [(10, 60, 10), (60, 10, 10), (None, 60, 60), (10, 0, 10), (0, 60, 0), (None, 0, 0), (0.5, 60, 0.5)],
)
def test_the_smaller_heartbeat_holds_and_the_broker_is_told_two_thirds_of_it(
    asked: float | None, proposed: int, agreed: float
) -> None:
    def script(peer: Peer) -> int:
        peer.greet()
        told = peer.tune(heartbeat=proposed).heartbeat
        peer.expect(commands.Connection.Open)
        peer.say(commands.Connection.OpenOk())
        peer.last_words()
        return told

    with ScriptedBroker(script) as broker:
        connection = broker.connect(heartbeat=asked)
        connection.close()
        assert broker.result() == {60: 40, 10: 6, 0.5: 1, 0: 0}[agreed]
        assert connection.heartbeat == agreed


def test_without_heartbeats_silence_is_no_reason_to_part() -> None:
    def script(peer: Peer) -> list[object]:
        peer.accept(heartbeat=1)
        return peer.last_words()

    with ScriptedBroker(script) as broker:
        connection = broker.connect(heartbeat=0)
        assert not ended(connection).wait(2.6)
        connection.close()
        assert [type(each) for each in broker.result()] != []
        assert not any(isinstance(each, heartbeat.Heartbeat) for each in broker.result())


@pytest.mark.parametrize('interval', [0, 1])
@pytest.mark.parametrize(
    'give_up',
    [
        lambda broker, interval: broker.connect(heartbeat=interval, connect_timeout=0.2),
        lambda broker, interval: gevent.with_timeout(0.2, broker.connect, heartbeat=interval),
    ],
    ids=['connect_timeout', 'timeout of the caller'],
)
def test_a_connection_that_was_given_up_while_opening_leaves_nothing_running(
    give_up: Callable[[ScriptedBroker, int], Connection], interval: int
) -> None:
    def silent_after_tune(peer: Peer) -> list[object]:
        peer.greet()
        peer.tune(heartbeat=interval)
        return peer.last_words()

    with ScriptedBroker(silent_after_tune) as broker:
        with pytest.raises((ConnectionFailed, gevent.Timeout)):
            give_up(broker, interval)

        # the peer sees the socket close, and nobody keeps the connection for its heartbeats
        broker.result(limit=1)
        eventually(lambda: not alive_on(broker.port))


def alive_on(port: int) -> list[str]:
    gc.collect()
    return [repr(each) for each in gc.get_objects() if isinstance(each, Connection) and each.port == port]


def test_a_connection_that_ends_while_it_is_agreed_on_leaves_nothing_that_goes_on() -> None:
    def script(peer: Peer) -> None:
        peer.greet()
        peer.send(
            method(0, commands.Connection.Tune(2047, 131072, 1))
            + method(0, commands.Connection.Close(320, 'CONNECTION_FORCED', 0, 0))
        )
        peer.last_words()

    with ScriptedBroker(script) as broker, pytest.raises(ConnectionForced):
        broker.connect(heartbeat=1)
    gc.collect()
    assert not [each for each in sender._intervals if each.closed]
