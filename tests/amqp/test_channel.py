"""A channel: its life and end, methods taking turns, content that does not interleave, returns and flow."""

from __future__ import annotations

import hashlib
import random
from collections import OrderedDict
from typing import Any

import gevent
import pytest
from gevent.event import AsyncResult, Event
from pamqp import commands

from amphora.amqp import Channel, ChannelClosed, Connection, Message, NotFound, PreconditionFailed, frames
from amphora.amqp.errors import CommandInvalid, NoConsumers
from amphora.amqp.properties import encode_header
from tests.amqp.conftest import Connect
from tests.amqp.scripted import Peer, ScriptedBroker, content_header, delivery, method, raw_frame
from tests.rabbitmq import RabbitNode
from tests.waiting import eventually


def usable(connection: Connection) -> bool:
    """Whether the connection still does what a connection does."""
    with connection.channel() as channel:
        declared = channel.queue.declare(exclusive=True)
        assert declared is not None
        channel.basic.publish(Message('hello'), routing_key=declared.queue)
        message = channel.basic.get(declared.queue)
        channel.queue.delete(declared.queue)
    return message is not None and message.body == b'hello' and not connection.closed


# -- life and end ------------------------------------------------------------------------------------------------------


def test_a_method_that_fails_raises_the_reply_code_and_ends_its_own_channel_only(
    connection: Connection, channel: Channel, queue: str
) -> None:
    other = connection.channel()

    with pytest.raises(NotFound) as caught:
        channel.queue.declare('no.such.queue', passive=True)

    error = caught.value
    assert (error.code, error.class_id, error.method_id) == (404, 50, 10)
    assert "no queue 'no.such.queue'" in error.text
    assert str(error).startswith('404 NOT_FOUND')
    assert channel.closed
    assert channel.error is error
    assert not other.closed
    assert other.basic.get(queue) is None
    assert usable(connection)


def test_a_channel_that_has_ended_says_why_to_everybody(channel: Channel, queue: str) -> None:
    with pytest.raises(NotFound):
        channel.queue.declare('no.such.queue', passive=True)

    for use in (
        lambda: channel.queue.declare(queue),
        lambda: channel.queue.declare(queue, nowait=True),
        lambda: channel.basic.publish(Message('hello'), routing_key=queue),
        lambda: channel.basic.ack(1),
        lambda: channel.basic.nack(1),
        lambda: channel.basic.get(queue),
        lambda: channel.basic.consume(queue, print),
    ):
        with pytest.raises(NotFound, match='no queue'):
            use()
    assert 'closed: 404' in repr(channel)


def test_everybody_who_waits_on_a_channel_hears_of_its_end(connection: Connection, channel: Channel) -> None:
    waiting = [gevent.spawn(channel.queue.declare, 'no.such.queue', passive=True) for _ in range(20)]
    gevent.joinall(waiting, timeout=5)
    assert {type(each.exception) for each in waiting} == {NotFound}
    assert usable(connection)


def test_close_listeners_hear_the_reason(connection: Connection) -> None:
    heard: list[Exception] = []
    for _ in range(2):
        channel = connection.channel()
        channel.close_listeners.append(heard.append)
    channel.close()

    other = connection.channel()
    other.close_listeners.append(heard.append)
    with pytest.raises(NotFound):
        other.queue.declare('no.such.queue', passive=True)

    assert [type(error) for error in heard] == [ChannelClosed, NotFound]


def test_a_closed_channel_is_closed_at_the_broker_and_its_messages_return(
    connection: Connection, channel: Channel, queue: str
) -> None:
    channel.basic.publish(Message('hello'), routing_key=queue)
    with connection.channel() as other:
        assert eventually(lambda: other.basic.get(queue))
        assert not other.closed

    assert other.closed
    assert eventually(lambda: channel.basic.get(queue))
    other.close()
    with pytest.raises(ChannelClosed, match='closed by this side'):
        other.basic.get(queue)


def test_leaving_a_with_block_by_an_error_closes_the_channel(connection: Connection) -> None:
    with pytest.raises(ZeroDivisionError), connection.channel() as channel:
        _ = 1 / 0
    assert channel.closed


def test_numbers_of_closed_channels_are_used_again(connect: Connect) -> None:
    connection = connect(channel_max=3)
    for _ in range(10):
        with connection.channel() as channel:
            assert 1 <= channel.id <= 3
    assert usable(connection)


def test_publishing_on_a_channel_that_another_greenlet_is_closing_does_not_cost_the_connection(
    connection: Connection, channel: Channel, queue: str
) -> None:
    # given a channel whose close is under way
    closing = connection.channel()
    closer = gevent.spawn(closing.close)
    gevent.sleep(0)
    assert not closing.closed

    # when somebody else still uses it
    with pytest.raises(ChannelClosed):
        closing.basic.publish(Message('hello'), routing_key=queue)

    # then that is their error alone
    closer.join(5)
    assert usable(connection)


def test_acking_on_a_channel_that_another_greenlet_is_closing_does_not_cost_the_connection(
    connection: Connection, channel: Channel, queue: str
) -> None:
    consuming = connection.channel()
    channel.confirm.select()
    for _ in range(2):
        channel.basic.publish(Message('hello'), routing_key=queue, wait=True)
    for _ in range(2):
        assert consuming.basic.get(queue) is not None
    closer = gevent.spawn(consuming.close)
    gevent.sleep(0)

    for settle in (consuming.basic.ack, consuming.basic.nack):
        with pytest.raises(ChannelClosed):
            settle(1)

    closer.join(5)
    assert usable(connection)


def test_closing_a_channel_from_many_greenlets_ends_all_of_them(channel: Channel) -> None:
    closers = [gevent.spawn(channel.close) for _ in range(5)]
    gevent.joinall(closers, timeout=5, raise_error=True)
    assert channel.closed
    assert all(closer.dead for closer in closers)


def test_deliveries_under_way_when_the_broker_closes_their_channel_do_not_cost_the_connection(
    connection: Connection, channel: Channel, queue: str
) -> None:
    for number in range(3000):
        channel.basic.publish(Message(b'%d' % number), routing_key=queue)
    for _ in range(5):
        consuming = connection.channel()
        ended: AsyncResult[Exception] = AsyncResult()
        consuming.close_listeners.append(ended.set)
        first = Event()
        consuming.basic.consume(queue, lambda message, first=first: first.set(), direct=True)
        assert first.wait(5)

        consuming.basic.ack(999_999)

        assert isinstance(ended.get(timeout=5), PreconditionFailed)
        assert usable(connection)


def test_a_stray_delivery_for_a_closed_channel_never_reaches_a_new_ones_consumer() -> None:
    def script(peer: Peer) -> None:
        peer.accept(channel_max=2)
        peer.accept_channel(1)
        peer.expect(commands.Queue.Declare)
        peer.say(commands.Channel.Close(404, 'NOT_FOUND', 50, 10), 1)
        peer.expect(commands.Channel.CloseOk)
        peer.accept_channel(2)
        peer.expect(commands.Basic.Consume)
        peer.send(delivery(1, 'mine', 1, b'stray') + method(2, commands.Basic.ConsumeOk('mine')))
        peer.send(delivery(2, 'mine', 1, b'right'))
        peer.last_words()

    got: AsyncResult[Message] = AsyncResult()
    with ScriptedBroker(script) as broker, broker.connect() as connection:
        with pytest.raises(NotFound):
            connection.channel().queue.declare('a')
        connection.channel().basic.consume('a', got.set, consumer_tag='mine')

        assert got.get(timeout=5).body == b'right'


def test_a_listener_that_raises_does_not_leave_others_waiting(connection: Connection) -> None:
    # given two channels, with somebody waiting on the second, and a listener of the first that raises
    def fail(error: Exception) -> None:
        raise ZeroDivisionError('a listener of the test')

    first, second = connection.channel(), connection.channel()
    first.close_listeners.append(fail)
    heard: AsyncResult[Exception] = AsyncResult()
    second.close_listeners.append(heard.set)

    # when the connection ends
    gevent.spawn(connection.close).join(5)

    # then the second channel has ended as well
    assert heard.get(timeout=1)
    assert second.closed


# -- methods take turns ------------------------------------------------------------------------------------------------


def test_a_thousand_greenlets_share_a_channel_and_nothing_interleaves(channel: Channel, queue: str) -> None:
    # given bodies of all sizes, every fiftieth larger than a frame
    chance = random.Random(1)
    bodies = [chance.randbytes(chance.randrange(1, 3000) if n % 50 else 131072 * 2 + n) for n in range(1000)]
    gathered = channel.queue.declare(queue + '.gathered', exclusive=True)
    assert gathered is not None

    def work(body: bytes) -> Message | None:
        digest = hashlib.sha256(body).hexdigest()
        for address in (queue, gathered.queue):
            channel.basic.publish(Message(body, message_id=digest), routing_key=address)
        assert channel.queue.declare(queue, passive=True).queue == queue
        return channel.basic.get(queue, no_ack=True)

    # when a thousand greenlets publish, call and get at once
    workers = [gevent.spawn(work, body) for body in bodies]
    gevent.joinall(workers, timeout=40, raise_error=True)

    # then every body arrived once and as it was, by either way
    assert all(worker.successful() for worker in workers)
    got = [worker.value for worker in workers]
    while (message := channel.basic.get(gathered.queue, no_ack=True)) is not None:
        got.append(message)
    assert all(hashlib.sha256(message.body).hexdigest() == message.properties['message_id'] for message in got)
    assert sorted(message.body for message in got) == sorted(bodies * 2)


def test_a_greenlet_that_gives_up_waiting_does_not_confuse_the_next_method(
    rabbit: RabbitNode, channel: Channel, service: str
) -> None:
    rabbit.pause()
    try:
        for number in range(3):
            with pytest.raises(gevent.Timeout), gevent.Timeout(0.05):
                channel.queue.declare(f'{service}.{number}', exclusive=True)
    finally:
        rabbit.resume()

    assert channel.queue.declare(service, exclusive=True) == (service, 0, 0)
    assert channel.basic.get(service) is None
    assert channel.queue.declare(f'{service}.2', passive=True) == (f'{service}.2', 0, 0)


def test_a_greenlet_that_gives_up_waiting_for_a_message_does_not_confuse_the_next(
    rabbit: RabbitNode, channel: Channel, queue: str
) -> None:
    for number in range(2):
        channel.basic.publish(Message(b'%d' % number), routing_key=queue)
    eventually(lambda: channel.queue.declare(queue, passive=True).message_count == 2)
    rabbit.pause()
    try:
        with pytest.raises(gevent.Timeout), gevent.Timeout(0.05):
            channel.basic.get(queue)
    finally:
        rabbit.resume()

    message = channel.basic.get(queue)
    assert message is not None
    assert message.body == b'1'


def test_a_greenlet_that_gives_up_opening_a_channel_leaves_its_place_to_the_next(
    rabbit: RabbitNode, connect: Connect
) -> None:
    connection = connect(channel_max=1)
    rabbit.pause()
    try:
        with pytest.raises(gevent.Timeout), gevent.Timeout(0.05):
            connection.channel()
    finally:
        rabbit.resume()

    channel = eventually(lambda: _try_to_open(connection))

    assert channel.queue.declare(exclusive=True) is not None


def _try_to_open(connection: Connection) -> Channel | None:
    try:
        return connection.channel()
    except Exception:
        if connection.closed:
            raise
        return None


def test_what_cannot_be_encoded_is_an_error_and_nothing_is_sent(channel: Channel, queue: str) -> None:
    with pytest.raises(ValueError, match=r'arguments of Queue\.Declare'):
        channel.queue.declare(queue + '.other', arguments={'x-thing': object()})
    with pytest.raises(ValueError, match='headers'):
        channel.basic.publish(Message('hello', headers={'thing': object()}), routing_key=queue)

    assert channel.basic.get(queue) is None


def test_properties_that_do_not_fit_into_a_frame_are_refused_here(channel: Channel, queue: str) -> None:
    with pytest.raises(ValueError, match=r'properties take .* bytes; a frame holds at most'):
        channel.basic.publish(Message('hello', headers={'big': 'x' * 140_000}), routing_key=queue)
    assert channel.basic.get(queue) is None


def test_a_body_over_the_limit_is_refused_before_it_is_sent(connect: Connect, service: str) -> None:
    channel = connect(max_message_size=1000).channel()
    channel.queue.declare(service, exclusive=True)

    with pytest.raises(ValueError, match='a body of 1001 bytes; at most 1000'):
        channel.basic.publish(Message(b'x' * 1001), routing_key=service)
    channel.basic.publish(Message(b'x' * 1000), routing_key=service)

    message = channel.basic.get(service)
    assert message is not None
    assert len(message) == 1000


# -- waiting for what has no answer ------------------------------------------------------------------------------------


def test_all_who_wait_at_once_for_what_was_written_share_an_answer_and_who_comes_later_does_not() -> None:
    answer = Event()

    def script(peer: Peer) -> list[Any]:
        peer.accept()
        peer.accept_channel()
        heard = [peer.expect(commands.Basic.Ack), peer.expect(commands.Channel.Flow)]
        answer.wait()
        peer.say(commands.Channel.FlowOk(True), 1)
        heard += [peer.expect(commands.Basic.Ack), peer.expect(commands.Channel.Flow)]
        return heard

    with ScriptedBroker(script) as broker, broker.connect() as connection:
        channel = connection.channel()
        channel.ack(1)
        early = [gevent.spawn(channel.sync) for _ in range(100)]
        gevent.sleep(0.1)
        channel.ack(2)
        late = [gevent.spawn(channel.sync) for _ in range(100)]
        gevent.sleep(0.1)
        assert not any(each.ready() for each in early)

        answer.set()

        gevent.joinall(early, timeout=5, raise_error=True)
        acked, asked, acked_later, _ = broker.result()
        assert (acked.delivery_tag, asked.active, acked_later.delivery_tag) == (1, True, 2)
        assert not any(each.ready() for each in late)
        channel.end(ChannelClosed('the end'))
        gevent.joinall(late, timeout=5)
        assert {str(each.exception) for each in late} == {'the end'}


def test_one_who_gives_up_waiting_for_what_was_written_takes_nobody_along(channel: Channel, rabbit: RabbitNode) -> None:
    rabbit.pause()
    try:
        waiting = [gevent.spawn(channel.sync) for _ in range(3)]
        gevent.sleep(0.1)
        waiting[0].kill()
        assert not waiting[1].ready()
    finally:
        rabbit.resume()
    gevent.joinall(waiting[1:], timeout=5, raise_error=True)

    channel.sync()
    channel.close()
    with pytest.raises(ChannelClosed):
        channel.sync()


# -- returns -----------------------------------------------------------------------------------------------------------


def test_a_mandatory_message_that_reaches_no_queue_comes_back_whole(channel: Channel) -> None:
    returned: AsyncResult[Message] = AsyncResult()
    channel.return_listeners.append(returned.set)
    body = b'x' * 300_000

    channel.basic.publish(Message(body, message_id='7'), 'amq.direct', 'nowhere', mandatory=True)

    message = returned.get(timeout=5)
    assert (message.body, message.properties) == (body, {'message_id': '7'})
    info = message.return_info
    assert info is not None
    assert (info.code, info.text, info.exchange, info.routing_key) == (312, 'NO_ROUTE', 'amq.direct', 'nowhere')


# -- flow, which no RabbitMQ of today sends ----------------------------------------------------------------------------


def test_a_channel_that_the_broker_has_stopped_publishes_again_when_it_says_so() -> None:
    resume = Event()

    def script(peer: Peer) -> bytes:
        peer.accept()
        peer.accept_channel()
        peer.say(commands.Channel.Flow(False), 1)
        assert peer.expect(commands.Channel.FlowOk).active is False
        resume.wait()
        peer.say(commands.Channel.Flow(True), 1)
        # the answer to flow comes before any message
        assert peer.expect(commands.Channel.FlowOk).active is True
        return peer.expect_publish()

    with ScriptedBroker(script) as broker, broker.connect() as connection:
        channel = connection.channel()
        eventually(lambda: not channel.flowing.is_set())
        publisher = gevent.spawn(channel.basic.publish, Message('hello'), routing_key='somewhere')
        publisher.join(0.1)
        assert not publisher.ready()

        resume.set()

        publisher.get(timeout=5)
        assert broker.result() == b'hello'


def test_a_publisher_that_flow_holds_hears_of_its_channels_end() -> None:
    closing = Event()

    def script(peer: Peer) -> None:
        peer.accept()
        peer.accept_channel()
        peer.say(commands.Channel.Flow(False), 1)
        closing.wait()
        peer.say(commands.Channel.Close(313, 'NO_CONSUMERS', 60, 40), 1)
        peer.last_words()

    with ScriptedBroker(script) as broker, broker.connect() as connection:
        channel = connection.channel()
        eventually(lambda: not channel.flowing.is_set())
        publisher = gevent.spawn(channel.basic.publish, Message('hello'), routing_key='somewhere')
        closing.set()
        with pytest.raises(NoConsumers, match='313'):
            publisher.get(timeout=5)


@pytest.mark.parametrize('name', ['x' + 'é' * 120, '日' * 80], ids=['two bytes', 'three bytes'])
def test_a_text_that_the_broker_has_cut_in_the_middle_of_a_letter_costs_its_channel_only(
    connection: Connection, name: str
) -> None:
    channel = connection.channel()

    with pytest.raises(NotFound):
        channel.queue.declare(name, passive=True)

    assert usable(connection)


@pytest.mark.parametrize('code', [0, 404])
def test_a_broker_that_gives_no_reason_is_told_of_too(code: int) -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        peer.accept_channel()
        peer.expect(commands.Queue.Declare)
        peer.say(commands.Channel.Close(code, '', 0, 0), 1)
        peer.last_words()

    with ScriptedBroker(script) as broker, broker.connect() as connection:
        channel = connection.channel()
        with pytest.raises(ChannelClosed, match='the broker gave no reason'):
            channel.queue.declare('a')


# -- a broker that breaks the rules ------------------------------------------------------------------------------------


def test_an_answer_that_nobody_waits_for_ends_the_connection_and_says_so() -> None:
    def script(peer: Peer) -> list[Any]:
        peer.accept()
        peer.accept_channel()
        peer.expect(commands.Queue.Declare)
        peer.say(commands.Queue.BindOk(), 1)
        return peer.last_words()

    with ScriptedBroker(script) as broker, broker.connect() as connection:
        with pytest.raises(CommandInvalid, match=r'Queue\.BindOk on channel 1, where it answers nothing'):
            connection.channel().queue.declare('a')
        [close] = broker.result()
        assert close.reply_code == 503


def test_a_delivery_for_nobody_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        peer.accept_channel()
        peer.expect(commands.Queue.Purge)
        peer.send(delivery(1, 'stranger', 1, b'hello') + method(1, commands.Queue.PurgeOk(7)))
        peer.last_words()

    with ScriptedBroker(script) as broker, broker.connect() as connection:
        assert connection.channel().queue.purge('a') == 7
    assert "'stranger', which is no consumer" in caplog.text


def test_what_still_comes_while_a_channel_is_being_closed_is_dropped() -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        peer.accept_channel()
        peer.expect(commands.Basic.Consume)
        peer.say(commands.Basic.ConsumeOk('mine'), 1)
        peer.expect(commands.Channel.Close)
        peer.send(delivery(1, 'mine', 1, b'late') + method(1, commands.Queue.PurgeOk(1)))
        peer.say(commands.Channel.CloseOk(), 1)
        peer.last_words()

    got: list[Message] = []
    with ScriptedBroker(script) as broker, broker.connect() as connection:
        channel = connection.channel()
        channel.basic.consume('a', got.append, consumer_tag='mine', direct=True)
        channel.close()
        assert got == []
        assert not connection.closed


def test_a_message_whose_frame_is_longer_than_it_is_never_delivered() -> None:
    # The frame is under way still when the message, by its header, has come.
    body = raw_frame(3, 1, bytes(30_000), end=b'\x00')

    def script(peer: Peer) -> list[Any]:
        peer.accept()
        peer.accept_channel()
        peer.expect(commands.Basic.Consume)
        peer.say(commands.Basic.ConsumeOk('mine'), 1)
        peer.send(method(1, commands.Basic.Deliver('mine', 1, False, '', 'somewhere')) + content_header(1, 20_000))
        peer.send(body[: 7 + 20_000])
        return peer.last_words()

    got: list[Message] = []
    with ScriptedBroker(script) as broker, broker.connect() as connection:
        connection.channel().basic.consume('a', got.append, consumer_tag='mine', direct=True)
        [close] = broker.result()
        assert (close.reply_code, close.reply_text) == (501, 'a body is longer than its header announced')
        assert got == []


def test_a_message_may_arrive_in_many_small_frames_and_empty_ones() -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        peer.accept_channel()
        peer.expect(commands.Basic.Get)
        data = method(1, commands.Basic.GetOk(1, False, '', 'k', 0)) + content_header(1, 5)
        for piece in (b'', b'he', b'', b'l', b'lo'):
            data += raw_frame(3, 1, piece)
        for at in range(len(data)):
            peer.send(data[at : at + 1])
        peer.last_words()

    with ScriptedBroker(script) as broker, broker.connect() as connection:
        message = connection.channel().basic.get('a')
        assert message is not None
        assert message.body == b'hello'


def test_a_body_and_properties_may_be_of_derived_classes(channel: Channel) -> None:
    class Packed(bytes):
        pass

    queue = channel.queue.declare(exclusive=True).queue
    message = Message(Packed(b'packed'))
    message.properties = OrderedDict(type='kind')

    channel.basic.publish(message, '', queue)

    got = channel.basic.get(queue, no_ack=True)
    assert (got.body, got.properties) == (b'packed', {'type': 'kind'})


def test_a_method_larger_than_a_frame_is_refused_before_it_is_sent(connection: Connection, channel: Channel) -> None:
    with pytest.raises(ValueError, match=r'Queue.Declare takes 200\d\d\d bytes; a frame holds at most 131072'):
        channel.queue.declare(exclusive=True, arguments={'x-long': 'a' * 200_000})

    channel.sync()
    assert usable(connection)


def test_a_message_whose_routing_key_is_not_utf8_can_be_got(channel: Channel, queue: str) -> None:
    channel.exchange.declare(queue, 'fanout', auto_delete=True)
    channel.queue.bind(queue, queue)
    key = b'caf\xe9'
    publish = frames.BASIC_PUBLISH + b'\0\0' + bytes((len(queue),)) + queue.encode() + bytes((len(key),)) + key + b'\0'
    channel.connection.write(
        frames.frame(frames.METHOD, channel.id, publish)
        + encode_header(channel.id, 1, {})
        + raw_frame(3, channel.id, b'x')
    )
    channel.sync()

    message = channel.basic.get(queue, no_ack=True)

    assert message.body == b'x'
    assert message.delivery_info.routing_key.encode(errors='surrogateescape') == key


def test_a_number_is_not_used_again_before_the_broker_has_said_that_its_channel_is_closed() -> None:
    def script(peer: Peer) -> int:
        peer.accept(channel_max=2)
        peer.accept_channel(1)
        peer.expect(commands.Channel.Close)
        peer.accept_channel(2)
        peer.expect(commands.Channel.Close)
        peer.say(commands.Channel.CloseOk(), 2)
        number = int.from_bytes(peer.read_raw()[1:3], 'big')
        peer.say(commands.Channel.CloseOk(), 1)
        peer.say(commands.Channel.OpenOk(), number)
        peer.expect(commands.Queue.Declare)
        peer.say(commands.Queue.DeclareOk('q', 0, 0), number)
        peer.accept_channel(1)
        peer.last_words()
        return number

    with ScriptedBroker(script) as broker:
        with broker.connect() as connection:
            connection.channel().close(timeout=0.1)
            connection.channel().close()
            assert connection.channel().queue.declare('q').queue == 'q'
            assert connection.channel().id == 1
        assert broker.result() == 2
