"""Confirms: each publish hears what became of it, once, and of the right one."""

from __future__ import annotations

import time

import gevent
import pytest
from gevent.event import Event
from pamqp import commands

from amphora.amqp import (
    Channel,
    ChannelClosed,
    Connection,
    Message,
    NotFound,
    PublishNacked,
    PublishReturned,
    ReturnInfo,
)
from amphora.amqp.confirms import Confirms
from amphora.amqp.errors import CommandInvalid
from tests.amqp.conftest import Connect
from tests.amqp.scripted import Peer, ScriptedBroker, content_header, method
from tests.rabbitmq import RabbitNode
from tests.waiting import eventually


@pytest.fixture
def confirming(channel: Channel) -> Channel:
    channel.confirm.select()
    return channel


@pytest.fixture
def full_queue(confirming: Channel, service: str) -> str:
    """A queue that takes one message and has it."""
    arguments = {'x-max-length': 1, 'x-overflow': 'reject-publish'}
    name = service + '.full'
    confirming.queue.declare(name, exclusive=True, arguments=arguments)
    confirming.basic.publish(Message('first'), routing_key=name, wait=True)
    return name


def test_a_confirmed_message_is_in_its_queue(confirming: Channel, queue: str) -> None:
    assert confirming.basic.publish(Message('one'), routing_key=queue, wait=True) == 1
    message = confirming.basic.get(queue)
    assert message is not None
    assert message.body == b'one'


def test_a_message_that_the_queue_refuses_is_nacked(confirming: Channel, full_queue: str) -> None:
    with pytest.raises(PublishNacked, match='refused'):
        confirming.basic.publish(Message('second'), routing_key=full_queue, wait=True)
    assert not confirming.closed


def test_a_message_that_reaches_no_queue_is_returned_and_not_only_acked(confirming: Channel) -> None:
    with pytest.raises(PublishReturned) as caught:
        confirming.basic.publish(Message('one'), routing_key='nowhere', mandatory=True, wait=True)
    assert (caught.value.code, caught.value.text) == (312, 'NO_ROUTE')
    assert str(caught.value) == '312 NO_ROUTE'
    assert confirming.basic.publish(Message('two'), routing_key='nowhere', wait=True) == 2


def test_each_of_many_waiting_publishers_hears_of_its_own_message(
    confirming: Channel, queue: str, full_queue: str
) -> None:
    addresses = [(queue, None), (full_queue, PublishNacked), ('nowhere', PublishReturned)] * 100

    publishers = [
        gevent.spawn(confirming.basic.publish, Message(key), routing_key=key, mandatory=True, wait=True)
        for key, _ in addresses
    ]
    gevent.joinall(publishers, timeout=20)

    assert all(publisher.ready() for publisher in publishers)
    outcomes = [type(publisher.exception) if publisher.exception else None for publisher in publishers]
    assert outcomes == [expected for _, expected in addresses]


def test_every_publish_of_a_flood_is_settled(confirming: Channel, queue: str) -> None:
    for number in range(5000):
        confirming.basic.publish(Message(b'%d' % number), routing_key=queue)
    eventually(lambda: len(confirming.confirms) == 0, 10)
    assert confirming.basic.publish(Message('last'), routing_key=queue, wait=True) == 5001


def test_publishers_that_wait_hear_of_the_end_of_their_channel(
    connection: Connection, rabbit: RabbitNode, confirming: Channel, queue: str
) -> None:
    rabbit.pause()
    try:
        publisher = gevent.spawn(confirming.basic.publish, Message('one'), 'no.such.exchange', wait=True)
        eventually(lambda: len(confirming.confirms) == 1)
    finally:
        rabbit.resume()

    with pytest.raises(NotFound, match='no exchange'):
        publisher.get(timeout=5)
    assert len(confirming.confirms) == 0
    assert not connection.closed


def test_a_publisher_that_gave_up_waiting_does_not_confuse_the_next(
    rabbit: RabbitNode, confirming: Channel, queue: str
) -> None:
    rabbit.pause()
    try:
        with pytest.raises(gevent.Timeout), gevent.Timeout(0.05):
            confirming.basic.publish(Message('one'), routing_key=queue, wait=True)
    finally:
        rabbit.resume()
    assert confirming.basic.publish(Message('two'), routing_key=queue, wait=True) == 2


def test_confirm_mode_may_be_asked_for_by_many_greenlets_at_once(channel: Channel, queue: str) -> None:
    def work() -> int:
        channel.confirm.select()
        return channel.basic.publish(Message('one'), routing_key=queue, wait=True)

    workers = [gevent.spawn(work) for _ in range(10)]
    gevent.joinall(workers, timeout=5)

    assert sorted(worker.value for worker in workers if worker.successful()) == list(range(1, 11))


def test_publishing_while_another_greenlet_asks_for_confirm_mode_is_counted_rightly(
    connection: Connection, channel: Channel, queue: str
) -> None:
    # given a confirm.select under way
    selecting = gevent.spawn(channel.confirm.select)
    gevent.sleep(0)
    assert not selecting.ready()

    # when somebody else publishes behind it
    for _ in range(20):
        channel.basic.publish(Message('between'), routing_key=queue)
    selecting.get(timeout=5)

    # then those were counted, and the next confirm is for the next message
    with gevent.Timeout(5):
        assert channel.basic.publish(Message('after'), routing_key=queue, wait=True) == 21
    assert not connection.closed


# -- what RabbitMQ does as it likes, said by a script ------------------------------------------------------------------


def confirm(*answers: bytes, publishes: int = 3, settled: int) -> tuple[list[object], list[bytes]]:
    """What `publishes` waiting publishers hear when a broker gives these answers, and the bodies it got.

    :param settled: for how many to wait.
    """

    def script(peer: Peer) -> list[bytes]:
        peer.accept()
        peer.accept_channel()
        peer.expect(commands.Confirm.Select)
        peer.say(commands.Confirm.SelectOk(), 1)
        bodies = [peer.expect_publish() for _ in range(publishes)]
        peer.send(b''.join(answers))
        peer.expect(commands.Connection.Close)
        peer.say(commands.Connection.CloseOk())
        return bodies

    with ScriptedBroker(script) as broker, broker.connect() as connection:
        channel = connection.channel()
        channel.confirm.select()
        waiting = [
            gevent.spawn(channel.basic.publish, Message(b'%d' % n), routing_key='k', wait=True)
            for n in range(1, publishes + 1)
        ]
        gevent.joinall(waiting, timeout=5, count=settled)
        outcomes = [each.exception or each.value for each in waiting]
        connection.close()
        return outcomes, broker.result()


def ack(tag: int, multiple: bool = False) -> bytes:
    return method(1, commands.Basic.Ack(tag, multiple))


def nack(tag: int, multiple: bool = False) -> bytes:
    return method(1, commands.Basic.Nack(tag, multiple, False))


def kinds(outcomes: list[object]) -> list[object]:
    return [outcome if isinstance(outcome, int) or outcome is None else type(outcome) for outcome in outcomes]


@pytest.mark.parametrize(
    ('answers', 'expected'),
    [
        ([ack(3), ack(1), ack(2)], [1, 2, 3]),
        ([ack(3, multiple=True)], [1, 2, 3]),
        ([ack(0, multiple=True)], [1, 2, 3]),
        ([ack(2), ack(3, multiple=True)], [1, 2, 3]),
        ([ack(2, multiple=True)], [1, 2, None]),
        ([ack(2)], [None, 2, None]),
        ([nack(2, multiple=True), ack(3)], [PublishNacked, PublishNacked, 3]),
        ([nack(2), ack(3, multiple=True)], [1, PublishNacked, 3]),
        ([ack(1), ack(1), nack(1), ack(99), ack(2), ack(3)], [1, 2, 3]),
    ],
)
def test_single_and_multiple_confirms_settle_what_they_name(answers: list[bytes], expected: list[object]) -> None:
    outcomes, bodies = confirm(*answers, settled=len(expected) - expected.count(None))
    assert kinds(outcomes) == expected
    assert bodies == [b'1', b'2', b'3']


def test_a_return_before_its_ack_is_for_the_publish_of_the_same_address() -> None:
    returned = method(1, commands.Basic.Return(312, 'NO_ROUTE', '', 'k')) + content_header(1, 0)
    outcomes, _ = confirm(returned, ack(1), ack(2), publishes=2, settled=2)
    assert kinds(outcomes) == [PublishReturned, 2]


def test_a_confirm_on_a_channel_without_confirm_mode_is_an_error_that_says_so() -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        peer.accept_channel()
        peer.send(ack(1))
        peer.last_words()

    with ScriptedBroker(script) as broker, broker.connect() as connection:
        connection.channel()
        eventually(lambda: connection.closed)
        assert isinstance(connection.error, CommandInvalid)
        assert 'not in confirm mode' in str(connection.error)


def test_of_confirms_that_come_together_none_is_heard_of_once_the_connection_is_abandoned() -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        peer.accept_channel()
        peer.expect(commands.Confirm.Select)
        peer.say(commands.Confirm.SelectOk(), 1)
        for _ in range(3):
            peer.expect_publish()
        peer.send(ack(1) + ack(2) + ack(3))

    with ScriptedBroker(script) as broker:
        connection = broker.connect()
        channel = connection.channel()
        channel.confirm.select()

        class Leaving(Note):
            """In a forked child, where all of them are the parent's."""

            def settled(self, acked: bool) -> None:
                super().settled(acked)
                connection.abandon()

        waiting = [Leaving() for _ in range(3)]
        for each in waiting:
            channel.publish('', 'k', {}, b'', publication=each)
        eventually(lambda: connection.closed)
        gevent.sleep(0.1)
        assert [each.heard for each in waiting] == [[True], [], []]


def test_a_lost_connection_is_told_to_every_publisher_that_waits(rabbit: RabbitNode, connect: Connect) -> None:
    connection = connect()
    channel = connection.channel()
    channel.confirm.select()
    rabbit.pause()
    try:
        waiting = [gevent.spawn(channel.basic.publish, Message('x'), routing_key='k', wait=True) for _ in range(3)]
        eventually(lambda: len(channel.confirms) == 3)
        connection.close()
    finally:
        rabbit.resume()
    gevent.joinall(waiting, timeout=5)
    assert all('closed by this side' in str(each.exception) for each in waiting)


# -- the ledger itself -------------------------------------------------------------------------------------------------


class Note:
    """A publication that notes what it is told."""

    def __init__(self, message_id: str | None = None, routing_key: str = 'k', exchange: str = '') -> None:
        self.exchange = exchange
        self.routing_key = routing_key
        self.message_id = message_id
        self.returned: ReturnInfo | None = None
        self.heard: list[object] = []

    def settled(self, acked: bool) -> None:
        self.heard.append(acked)

    def lost(self, error: Exception) -> None:
        self.heard.append(error)


def returned_message(message_id: str | None, routing_key: str = 'k', exchange: str = '') -> Message:
    properties = {} if message_id is None else {'message_id': message_id}
    return Message(return_info=ReturnInfo(312, 'NO_ROUTE', exchange, routing_key), **properties)


@pytest.mark.parametrize(
    'returned',
    [
        returned_message('b'),
        returned_message(None),
        returned_message('a', 'other'),
        returned_message('a', exchange='e'),
    ],
)
def test_a_return_is_for_the_publish_with_the_same_address_and_message_id(returned: Message) -> None:
    confirms = Confirms()
    notes = [Note('a'), Note('b'), Note(None), Note('a', 'other'), Note('a', exchange='e')]
    for note in notes:
        confirms.register(note)

    confirms.mark_returned(returned)

    [marked] = [note for note in notes if note.returned is not None]
    info = returned.return_info
    assert info is not None
    assert (marked.message_id, marked.routing_key, marked.exchange) == (
        returned.properties.get('message_id'),
        info.routing_key,
        info.exchange,
    )


def test_of_publishes_that_look_alike_each_return_marks_another() -> None:
    confirms = Confirms()
    notes = [Note(), Note(), Note()]
    for note in notes:
        confirms.register(note)
    for _ in range(2):
        confirms.mark_returned(returned_message(None))
    assert [note.returned is not None for note in notes] == [True, True, False]


def test_losing_tells_everybody_once_in_their_order_and_leaves_nothing() -> None:
    confirms = Confirms()
    heard: list[int] = []
    notes = [Note() for _ in range(3)]
    for number, note in enumerate(notes):
        note.lost = lambda error, number=number: heard.append(number)  # type: ignore[method-assign,misc]
        confirms.register(note)
    confirms.register(None)
    confirms.settle(2, multiple=False, acked=True)

    confirms.lose(ChannelClosed('gone'))
    confirms.lose(ChannelClosed('gone'))

    assert heard == [0, 2]
    assert len(confirms) == 0


def test_a_publication_may_publish_again_while_it_is_told() -> None:
    confirms = Confirms()
    again = Event()

    class Retry(Note):
        def settled(self, acked: bool) -> None:
            super().settled(acked)
            confirms.register(Note())
            again.set()

    confirms.register(Retry())
    confirms.register(Retry())
    confirms.settle(2, multiple=True, acked=False)

    assert again.is_set()
    assert len(confirms) == 2


def test_what_each_return_takes_does_not_grow_with_how_many_there_are(confirming: Channel) -> None:
    def take(count: int) -> float:
        began = time.process_time()
        for _ in range(count):
            confirming.basic.publish(Message('x'), '', 'nowhere', mandatory=True)
        eventually(lambda: not confirming.confirms, 60)
        return (time.process_time() - began) / count

    few = take(1000)
    assert take(20_000) < 5 * few
