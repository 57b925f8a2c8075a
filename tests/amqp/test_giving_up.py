"""Greenlets that do not wait for an answer: the answer comes all the same, and leaves nothing behind."""

from __future__ import annotations

import gevent
import pytest

from amphora.amqp import Channel, Connection, Message
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


def test_a_consumer_that_is_cancelled_without_waiting_leaves_no_message_unacked(
    connection: Connection, channel: Channel, queue: str
) -> None:
    for _ in range(5000):
        channel.basic.publish(Message('x'), '', queue)
    channel.sync()
    handled: list[int] = []

    def handle(message: Message) -> None:
        handled.append(message.delivery_info.delivery_tag)
        channel.basic.ack(handled[-1])

    tag = channel.basic.consume(queue, handle)
    eventually(lambda: handled)
    channel.basic.cancel(tag, nowait=True)
    eventually(lambda: not channel.consumers)

    other = connection.channel()
    eventually(lambda: other.queue.declare(queue, passive=True)[1:] == (5000 - len(handled), 0))
