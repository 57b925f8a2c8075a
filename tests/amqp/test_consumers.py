"""Consumers: where their callbacks run, what they may do there, and how they end."""

from __future__ import annotations

from collections.abc import Callable

import gevent
import pytest
from gevent.event import AsyncResult, Event
from gevent.queue import SimpleQueue

from amphora.amqp import Channel, Connection, Message, NotFound
from amphora.amqp.errors import Closed, NotAllowed
from tests.waiting import eventually


def publish(channel: Channel, queue: str, *bodies: str) -> None:
    for body in bodies:
        channel.basic.publish(Message(body), routing_key=queue)


@pytest.mark.parametrize('direct', [False, True])
def test_deliveries_come_in_their_order_and_say_how_they_came(channel: Channel, queue: str, direct: bool) -> None:
    got: SimpleQueue[Message] = SimpleQueue()
    tag = channel.basic.consume(queue, got.put, direct=direct)

    publish(channel, queue, *map(str, range(200)))

    messages = [got.get(timeout=5) for _ in range(200)]
    assert [message.body for message in messages] == [b'%d' % number for number in range(200)]
    info = messages[7].delivery_info
    assert info is not None
    assert (info.consumer_tag, info.delivery_tag, info.redelivered) == (tag, 8, False)
    assert (info.exchange, info.routing_key, info.message_count) == ('', queue, None)


def test_consumers_of_one_channel_get_tags_of_their_own_and_the_given_one_otherwise(
    channel: Channel, queue: str
) -> None:
    tags = [channel.basic.consume(queue, lambda message: None) for _ in range(3)]
    assert len(set(tags)) == 3
    assert channel.basic.consume(queue, lambda message: None, consumer_tag='mïne') == 'mïne'
    channel.basic.cancel('mïne')
    assert channel.queue.declare(queue, passive=True).consumer_count == 3


def test_a_callback_may_block_on_the_channel_it_consumes_from(channel: Channel, queue: str) -> None:
    answered: SimpleQueue[int] = SimpleQueue()

    def work(message: Message) -> None:
        gevent.sleep(0.01)
        assert message.delivery_info is not None
        channel.queue.declare(queue, passive=True)
        channel.basic.ack(message.delivery_info.delivery_tag)
        answered.put(message.delivery_info.delivery_tag)

    channel.basic.consume(queue, work)
    publish(channel, queue, *'abc')

    assert [answered.get(timeout=5) for _ in range(3)] == [1, 2, 3]


def test_a_callback_that_blocks_holds_up_nobody_else(channel: Channel, queue: str) -> None:
    stuck, got = Event(), Event()
    channel.basic.qos(prefetch_count=1)
    channel.basic.consume(queue, lambda message: (stuck.set(), Event().wait()), arguments={'x-priority': 1})
    publish(channel, queue, 'one')
    assert stuck.wait(5)

    channel.basic.consume(queue, lambda message: got.set())
    publish(channel, queue, 'two')

    assert got.wait(5)
    assert channel.queue.declare(queue, passive=True).queue == queue


def test_a_callback_may_end_its_own_consumer(channel: Channel, queue: str) -> None:
    done = Event()

    def work(message: Message) -> None:
        assert message.delivery_info is not None
        channel.basic.cancel(message.delivery_info.consumer_tag)
        done.set()

    channel.basic.consume(queue, work, no_ack=True)
    publish(channel, queue, 'one')

    assert done.wait(5)
    assert channel.queue.declare(queue, passive=True).consumer_count == 0


def fail_with_an_error(message: Message) -> None:
    raise ZeroDivisionError(message.body.decode())


def fail_with_a_timeout(message: Message) -> None:
    with gevent.Timeout(0.01):
        Event().wait()


@pytest.mark.parametrize('fail', [fail_with_an_error, fail_with_a_timeout])
@pytest.mark.parametrize('direct', [False, True])
def test_a_callback_that_raises_does_not_end_its_consumer(
    channel: Channel, queue: str, fail: Callable[[Message], None], direct: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    if direct and fail is fail_with_a_timeout:
        fail = raise_a_timeout
    got: SimpleQueue[bytes] = SimpleQueue()

    def work(message: Message) -> None:
        got.put(message.body)
        if message.body == b'bad':
            fail(message)

    channel.basic.consume(queue, work, direct=direct)
    publish(channel, queue, 'bad', 'good', 'bad', 'last')

    assert [got.get(timeout=3) for _ in range(4)] == [b'bad', b'good', b'bad', b'last']
    assert channel.queue.declare(queue, passive=True).queue == queue
    assert ('Timeout' if 'timeout' in fail.__name__ else 'ZeroDivisionError: bad') in capfd.readouterr().err


def raise_a_timeout(message: Message) -> None:
    """In the hub nothing may block, so this is as near as one gets."""
    raise gevent.Timeout(0.01)


def test_a_consumer_that_is_cancelled_gets_no_more_and_keeps_what_it_had(channel: Channel, queue: str) -> None:
    go_on = Event()
    got: SimpleQueue[bytes] = SimpleQueue()

    def work(message: Message) -> None:
        go_on.wait()
        got.put(message.body)

    channel.basic.qos(prefetch_count=3)
    tag = channel.basic.consume(queue, work)
    publish(channel, queue, *'abcde')
    eventually(lambda: channel.queue.declare(queue, passive=True).message_count == 2)

    channel.basic.cancel(tag)
    go_on.set()

    assert [got.get(timeout=5) for _ in range(3)] == [b'a', b'b', b'c']
    channel.basic.ack(3, multiple=True)
    left = [channel.basic.get(queue, no_ack=True) for _ in range(3)]
    assert [message and message.body for message in left] == [b'd', b'e', None]
    assert got.empty()


def test_a_queue_deleted_under_a_consumer_cancels_it(connection: Connection, channel: Channel, queue: str) -> None:
    cancelled: AsyncResult[str] = AsyncResult()
    heard_by_the_other: list[str] = []
    tag = channel.basic.consume(queue, lambda message: None, on_cancel=cancelled.set)
    other = channel.queue.declare(exclusive=True)
    assert other is not None
    got: AsyncResult[Message] = AsyncResult()
    channel.basic.consume(other.queue, got.set, on_cancel=heard_by_the_other.append)

    connection.channel().queue.delete(queue)

    assert cancelled.get(timeout=5) == tag
    # the channel and its other consumer go on
    publish(channel, other.queue, 'hello')
    assert got.get(timeout=5).body == b'hello'
    assert heard_by_the_other == []


@pytest.mark.limit(5)
def test_an_on_cancel_that_raises_does_not_cost_the_connection(
    connection: Connection, channel: Channel, queue: str
) -> None:
    called = Event()

    def fail(tag: str) -> None:
        called.set()
        raise ZeroDivisionError(tag)

    channel.basic.consume(queue, lambda message: None, on_cancel=fail)
    connection.channel().queue.delete(queue)
    assert called.wait(5)

    assert channel.queue.declare(exclusive=True) is not None


def test_the_greenlet_of_a_consumer_ends_with_it(channel: Channel, queue: str) -> None:
    ran_in: AsyncResult[gevent.Greenlet] = AsyncResult()
    tag = channel.basic.consume(queue, lambda message: ran_in.set(gevent.getcurrent()))
    publish(channel, queue, 'one')
    greenlet = ran_in.get(timeout=5)
    assert not greenlet.dead

    channel.basic.cancel(tag)

    greenlet.join(5)
    assert greenlet.dead


def test_the_greenlet_of_a_consumer_ends_with_its_channel(channel: Channel, queue: str) -> None:
    ran_in: AsyncResult[gevent.Greenlet] = AsyncResult()
    channel.basic.consume(queue, lambda message: ran_in.set(gevent.getcurrent()))
    publish(channel, queue, 'one')
    greenlet = ran_in.get(timeout=5)

    channel.close()

    greenlet.join(5)
    assert greenlet.dead


def test_a_consumer_that_was_refused_leaves_nothing_behind(connection: Connection) -> None:
    channel = connection.channel()
    with pytest.raises(NotFound):
        channel.basic.consume('no.such.queue', lambda message: None)
    assert channel.consumers == {}


def test_a_tag_in_use_is_refused_by_the_broker(connection: Connection, channel: Channel, queue: str) -> None:
    channel.basic.consume(queue, lambda message: None, consumer_tag='mine')
    with pytest.raises(NotAllowed, match='reuse consumer tag'):
        channel.basic.consume(queue, lambda message: None, consumer_tag='mine')
    # RabbitMQ counts that as an error of the connection.
    assert connection.closed
    assert isinstance(channel.error, Closed)
