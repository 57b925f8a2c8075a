"""Greenlets that do not wait for an answer: the answer comes all the same, and leaves nothing behind."""

from __future__ import annotations

import gevent
import pytest
from pamqp import commands

from amphora.amqp import Channel, Connection, Message
from tests.amqp.scripted import Peer, ScriptedBroker, delivery, method
from tests.waiting import eventually

# An answer of RabbitMQ's queue does not always come later than that of its channel.
ATTEMPTS = 20


@pytest.mark.parametrize('what', ['consume', 'cancel'])
def test_an_answer_that_overtakes_one_that_nobody_waits_for_any_more_is_taken(
    connection: Connection, what: str
) -> None:
    for _ in range(ATTEMPTS):
        with connection.channel() as channel:
            queue = channel.queue.declare(exclusive=True).queue
            if what == 'cancel':
                tag = channel.basic.consume(queue, lambda message: None)
            with gevent.Timeout(0, False):
                if what == 'cancel':
                    channel.basic.cancel(tag)
                else:
                    channel.basic.consume(queue, lambda message: None)
                pytest.fail('it did not time out')

            channel.queue.declare(queue, passive=True)
            channel.basic.qos(prefetch_count=1)


def test_a_consumer_that_nobody_waited_for_keeps_no_messages(
    connection: Connection, channel: Channel, queue: str
) -> None:
    for _ in range(10):
        channel.basic.publish(Message('x'), '', queue)
    with gevent.Timeout(0, False):
        channel.basic.consume(queue, lambda message: channel.basic.nack(message.delivery_info.delivery_tag))
        pytest.fail('it did not time out')

    other = connection.channel()
    eventually(lambda: other.queue.declare(queue, passive=True)[1:] == (10, 0))


def test_a_message_that_nobody_waited_for_is_given_back(channel: Channel, queue: str) -> None:
    channel.basic.publish(Message('x'), '', queue)
    channel.sync()
    with gevent.Timeout(0, False):
        channel.basic.get(queue)
        pytest.fail('it did not time out')

    assert eventually(lambda: channel.basic.get(queue)).body == b'x'


class Busy:
    """A consumer that acks, of a queue with thousands of messages; they are on their way when it is cancelled."""

    def __init__(self, channel: Channel, queue: str) -> None:
        self._channel, self._queue = channel, queue
        self._count = 0
        for _ in range(5000):
            channel.basic.publish(Message('x'), '', queue)
        channel.sync()
        self.tag = channel.basic.consume(queue, self._handle)
        eventually(lambda: self._count)

    def _handle(self, message: Message) -> None:
        self._count += 1
        self._channel.basic.ack(message.delivery_info.delivery_tag)

    def leaves_no_message_unacked(self, connection: Connection) -> None:
        eventually(lambda: not self._channel.consumers)
        other = connection.channel()
        eventually(lambda: other.queue.declare(self._queue, passive=True)[1:] == (5000 - self._count, 0))


def test_a_consumer_that_is_cancelled_without_waiting_leaves_no_message_unacked(
    connection: Connection, channel: Channel, queue: str
) -> None:
    consumer = Busy(channel, queue)
    channel.basic.cancel(consumer.tag, nowait=True)
    consumer.leaves_no_message_unacked(connection)


@pytest.mark.parametrize('tag', ['the same', 'unknown'])
def test_the_answer_to_another_cancel_does_not_end_a_consumer_early(
    connection: Connection, channel: Channel, queue: str, tag: str
) -> None:
    consumer = Busy(channel, queue)
    channel.basic.cancel(consumer.tag, nowait=True)
    # RabbitMQ answers at once for one that it does not know, or is cancelling already.
    channel.basic.cancel(consumer.tag if tag == 'the same' else tag)
    consumer.leaves_no_message_unacked(connection)


def test_a_cancel_that_nobody_waited_for_ends_its_consumer() -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        peer.accept_channel()
        peer.expect(commands.Basic.Consume)
        peer.say(commands.Basic.ConsumeOk('tag'), 1)
        peer.expect(commands.Basic.Cancel)
        gevent.sleep(0.3)
        peer.say(commands.Basic.CancelOk('tag'), 1)
        peer.last_words()

    with ScriptedBroker(script) as broker, broker.connect() as connection:
        channel = connection.channel()
        channel.basic.consume('q', lambda message: None, consumer_tag='tag')
        with gevent.Timeout(0.1, False):
            channel.basic.cancel('tag')
            pytest.fail('it did not time out')

        eventually(lambda: not channel.consumers)


def test_what_a_consumer_got_that_nobody_waited_for_goes_back_when_it_has_ended() -> None:
    # Before, it would come again and again, and a quorum queue would drop it for that.
    def script(peer: Peer) -> list[str]:
        peer.accept()
        peer.accept_channel()
        peer.expect(commands.Basic.Consume)
        gevent.sleep(0.2)
        peer.send(method(1, commands.Basic.ConsumeOk('tag')) + delivery(1, 'tag', 1, b'x'))
        said = [peer.read().name]
        peer.say(commands.Basic.CancelOk('tag'), 1)
        said.append(peer.read().name)
        peer.last_words()
        return said

    with ScriptedBroker(script) as broker:
        with broker.connect() as connection:
            channel = connection.channel()
            with gevent.Timeout(0.1, False):
                channel.basic.consume('q', lambda message: None, consumer_tag='tag')
                pytest.fail('it did not time out')
            eventually(lambda: not channel.consumers)
            channel.connection.write(b'')
            gevent.sleep(0.1)
        assert broker.result() == ['Basic.Cancel', 'Basic.Nack']


def test_acks_of_others_do_not_include_what_nobody_wanted() -> None:
    def script(peer: Peer) -> list[tuple[int, bool]]:
        peer.accept()
        peer.accept_channel()
        tag = peer.expect(commands.Basic.Consume).consumer_tag
        peer.say(commands.Basic.ConsumeOk(tag), 1)
        peer.expect(commands.Basic.Consume)
        gevent.sleep(0.2)
        peer.send(method(1, commands.Basic.ConsumeOk('unwanted')) + delivery(1, 'unwanted', 1, b'x'))
        peer.expect(commands.Basic.Cancel)
        peer.send(delivery(1, tag, 2, b'x') + delivery(1, tag, 3, b'x'))
        acks = [peer.expect(commands.Basic.Ack) for _ in range(2)]
        peer.say(commands.Basic.CancelOk('unwanted'), 1)
        peer.last_words()
        return [(ack.delivery_tag, ack.multiple) for ack in acks]

    with ScriptedBroker(script) as broker:
        with broker.connect() as connection:
            channel = connection.channel()
            channel.consume('q', lambda channel, tag, *_: channel.acks.add(tag))
            with gevent.Timeout(0.1, False):
                channel.basic.consume('p', lambda message: None, consumer_tag='unwanted')
                pytest.fail('it did not time out')
            eventually(lambda: b'unwanted' not in channel.consumers)
        assert broker.result() == [(2, False), (3, False)]
