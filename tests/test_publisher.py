"""A publisher that sends again: nothing that it holds waits for something that does not come."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import gevent
import pytest
from pamqp import body, commands, frame, header

from amphora import publisher
from amphora.publisher import Publication, Publisher
from amphora.session import Session
from amphora.settings import make_settings
from amphora.topology import Topology
from tests.amqp.scripted import Peer, ScriptedBroker
from tests.rabbitmq import HOST
from tests.waiting import eventually

# Longer than it is waited before what was refused is sent again, and before a channel is replaced again; in seconds.
PAUSE = 0.4

Publish = Callable[[bytes], list[bool]]
Begin = Callable[[Callable[[Peer], Any]], tuple[Publish, ScriptedBroker]]


@pytest.fixture
def begin() -> Iterator[Begin]:
    """Connects a publisher to a broker with a script; what it then publishes tells what it was settled with."""

    def make(script: Callable[[Peer], Any]) -> tuple[Publish, ScriptedBroker]:
        broker = stack.enter_context(ScriptedBroker(script))
        session = Session(make_settings(amqp_host=HOST, amqp_port=broker.port, heartbeat=0), Topology(), 'test')
        made = Publisher(session, True, lambda message: None, patience=5)
        stack.callback(session.stop)
        session.start()
        eventually(lambda: session.connection is not None)
        gevent.sleep(PAUSE)  # a channel that is younger is not replaced

        def publish(content: bytes) -> list[bool]:
            outcome: list[bool] = []
            made.publish(
                Publication('', 'queue', {}, content, None, lambda _, acked: outcome.append(acked), waits=True)
            )
            return outcome

        return publish, broker

    with ExitStack() as stack:
        yield make


def take(peer: Peer) -> tuple[bytes, int]:
    """The next message, and the channel that it comes on."""
    _, channel = peer.serve_until(commands.Basic.Publish)
    peer.expect(header.ContentHeader)
    return peer.expect(body.ContentBody).value, channel


def taken_until_later(
    publish: Callable[[bytes], list[bool]], broker: ScriptedBroker, outcomes: list[list[bool]]
) -> tuple[tuple[bytes, ...], tuple[int, ...]]:
    """What the broker took until a message that comes when these have been confirmed; bodies and channels."""
    eventually(lambda: outcomes == [[True]] * len(outcomes))
    publish(b'later')
    bodies, channels = zip(*broker.result(), strict=True)
    return bodies, channels


def test_what_a_replaced_channel_got_no_answer_for_is_sent_on_the_new_one(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher, '_LINGER', PAUSE)

    def script(peer: Peer) -> list[tuple[bytes, int]]:
        peer.accept()
        taken = [take(peer), take(peer)]
        peer.say(commands.Basic.Nack(1), taken[0][1])
        for tag in (1, 2, 3):
            taken.append(take(peer))
            peer.say(commands.Basic.Ack(tag), taken[-1][1])
        return taken

    publish, broker = begin(script)
    outcomes = [publish(b'refused'), publish(b'not answered')]

    bodies, channels = taken_until_later(publish, broker, outcomes)
    assert bodies == (b'refused', b'not answered', b'refused', b'not answered', b'later')
    assert channels[0] == channels[1] != channels[2] == channels[3] == channels[4]


def test_one_that_is_to_go_alone_goes_when_those_before_it_are_settled(begin: Begin) -> None:
    def script(peer: Peer) -> list[tuple[bytes, int]]:
        peer.accept()
        taken = [take(peer)]
        peer.say(commands.Basic.Nack(1), taken[0][1])
        taken.append(take(peer))
        peer.say(commands.Channel.Close(406, 'PRECONDITION_FAILED', 60, 40), taken[1][1])
        # Until the one that was refused waits for a channel, too.
        gevent.sleep(PAUSE)
        for tag in (1, 2, 3):
            taken.append(take(peer))
            peer.say(commands.Basic.Ack(tag), taken[-1][1])
        return taken

    publish, broker = begin(script)
    outcomes = [publish(b'refused')]
    gevent.sleep(0.1)  # it has been, and the channel was replaced
    outcomes.append(publish(b'suspect'))

    bodies, channels = taken_until_later(publish, broker, outcomes)
    assert bodies == (b'refused', b'suspect', b'refused', b'suspect', b'later')
    assert channels[1] != channels[2] == channels[3] == channels[4]


def test_of_two_that_are_to_go_alone_one_without_an_answer_keeps_nobody_waiting(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher, '_LINGER', PAUSE)

    def script(peer: Peer) -> list[tuple[bytes, int]]:
        peer.accept()
        taken = [take(peer), take(peer)]
        peer.say(commands.Channel.Close(406, 'PRECONDITION_FAILED', 60, 40), taken[0][1])
        taken.append(take(peer))
        # So that its channel is old enough to be replaced.
        gevent.sleep(PAUSE)
        peer.say(commands.Basic.Nack(1), taken[2][1])
        # On the same channel, which is given up without an answer.
        taken.append(take(peer))
        for tag in (1, 2, 3):
            taken.append(take(peer))
            peer.say(commands.Basic.Ack(tag), taken[-1][1])
        return taken

    publish, broker = begin(script)
    outcomes = [publish(b'one'), publish(b'other')]

    bodies, channels = taken_until_later(publish, broker, outcomes)
    assert bodies[:4] == (b'one', b'other', b'one', b'other')
    assert sorted(bodies[4:]) == [b'later', b'one', b'other']
    assert channels[2] == channels[3] != channels[4] == channels[5] == channels[6]


def test_while_a_channel_is_being_replaced_no_other_is_opened(begin: Begin) -> None:
    opened: list[int] = []

    def script(peer: Peer) -> None:
        peer.accept()
        tags: Counter[int] = Counter()
        while True:
            raw = peer.read_raw()
            number, said = int.from_bytes(raw[1:3], 'big'), frame.unmarshal(raw)[2]
            if isinstance(said, commands.Channel.Open):
                opened.append(number)
                # Longer than it is waited before a channel is replaced again.
                gevent.spawn_later(3 if len(opened) == 3 else 0, peer.say, commands.Channel.OpenOk(), number)
            elif isinstance(said, commands.Confirm.Select):
                peer.say(commands.Confirm.SelectOk(), number)
            elif isinstance(said, commands.Channel.Close):
                peer.say(commands.Channel.CloseOk(), number)
            elif isinstance(said, commands.Basic.Publish):
                tags[number] += 1
                peer.say(commands.Basic.Nack(tags[number]), number)

    publish, _ = begin(script)
    for _ in range(6):
        publish(b'refused')
        gevent.sleep(0.3)

    # That of the session's own declarations, the first, and the one in its place.
    assert len(opened) == 3
