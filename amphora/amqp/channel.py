"""A channel: its life, one outstanding method at a time, consumers, confirms and returns.

Knows one channel of one connection. What the methods mean is in `amphora.amqp.methods`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from time import monotonic
from typing import TYPE_CHECKING, Any

import gevent
from gevent.event import AsyncResult, Event
from gevent.lock import BoundedSemaphore
from pamqp import base, commands

from amphora.amqp import frames
from amphora.amqp.acks import Acks
from amphora.amqp.confirms import Confirms, Publication
from amphora.amqp.consumers import AnyConsumer, DeliveryListener, DirectConsumer
from amphora.amqp.content import ContentAssembler, encode_message
from amphora.amqp.deliveries import Delivery
from amphora.amqp.errors import ChannelClosed, Closed, CommandInvalid, UnexpectedFrame, channel_error
from amphora.amqp.listeners import tell
from amphora.amqp.message import DeliveryInfo, Message, ReturnInfo
from amphora.amqp.methods import BasicMethods, ConfirmMethods, ExchangeMethods, QueueMethods, TxMethods
from amphora.logs import get_logger
from amphora.timing import Throttle

if TYPE_CHECKING:
    from amphora.amqp.connection import Connection

logger = get_logger('amphora.amqp')

#: seconds that closing waits for the broker's answer
CLOSE_TIMEOUT = 1.0
#: seconds before the log tells again what the broker can do any number of times
TELLING = 1.0

#: called in the hub with a returned message; its `return_info` says why
ReturnListener = Callable[[Message], None]
#: called in the hub with the reason once the channel has ended
CloseListener = Callable[[Exception], None]

Method = type[base.Frame]


class Channel:
    """A channel of a connection; made by `Connection.channel`.

    The methods are grouped by AMQP class: `exchange`, `queue`, `basic`, `confirm` and `tx`. Many greenlets may use one
    channel at the same time: their messages do not interleave and their methods take turns. A method that fails closes
    this channel and nothing else.

    :ivar id: the channel's number.
    :ivar error: why the channel has ended; None while it is open.
    :ivar close_listeners: called in the hub, each with the reason, once the channel has ended.
    :ivar return_listeners: called in the hub with each returned message.
    """

    def __init__(self, connection: Connection, number: int, max_message_size: int) -> None:
        self.connection = connection
        self.id = number
        self._frame_max, self._max_message_size = connection.frame_max, connection.max_message_size
        self.error: Exception | None = None
        self.close_listeners: list[CloseListener] = []
        self.return_listeners: list[ReturnListener] = []
        self.exchange = ExchangeMethods(self)
        self.queue = QueueMethods(self)
        self.basic = BasicMethods(self)
        self.confirm = ConfirmMethods(self)
        self.tx = TxMethods(self)
        self.confirms: Confirms | None = None
        self.acks = Acks(self._ack_gathered)
        self.consumers: dict[bytes, AnyConsumer] = {}
        #: cleared while the broker has stopped this channel's publishing with channel.flow
        self.flowing = Event()
        self.flowing.set()
        self._content = ContentAssembler(max_message_size)
        self._turn = BoundedSemaphore(1)
        # The answer owed to each method sent, oldest first. A greenlet that gave up waiting leaves its entry: it takes
        # the late answer, which would otherwise be taken for the answer to the next method.
        self._outstanding: deque[tuple[tuple[Method, ...], AsyncResult[Any], str | None]] = deque()
        # Waits for its turn to ask for the answer that all who `sync` until then wait for.
        self._sync_to_come: gevent.Greenlet[[], None] | None = None
        self._closing = False
        self._telling = Throttle(TELLING)

    def __repr__(self) -> str:
        return '<Channel %d of %r%s>' % (
            self.id,
            self.connection,
            '' if self.error is None else ' closed: %s' % self.error,
        )

    def __enter__(self) -> Channel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def closed(self) -> bool:
        """Whether the channel has ended."""
        return self.error is not None

    # -- methods and their answers -------------------------------------------------------------------------------------

    def call(
        self,
        method: Method,
        *answers: Method,
        on_written: Callable[[], None] | None = None,
        on_late: Callable[[Any], object] | None = None,
        **fields: Any,
    ) -> Any:
        """Send a method and wait for one of its answers; waits its turn when another greenlet is waiting for one.

        :param on_written: called as soon as the method is written, when what follows it is already under its effect.
        :param on_late: called in the hub with the answer when the greenlet has given up waiting for it.
        :returns: the answer as an object of `pamqp.commands`; for ``basic.get-ok`` the pair of it and the message.
        :raises ValueError: when a field cannot be encoded; nothing was sent then.
        :raises Closed: when the channel or the connection ends before the answer, or has ended already.
        """
        data = self._encode(method, fields)
        self.connection.check_thread()
        with self._turn:
            self.check_open()
            answer = self._send_for(answers, method, data, fields)
            if on_written is not None:
                on_written()
            try:
                return answer.get()
            except BaseException:
                if on_late is not None:
                    _tell_when_answered(answer, on_late)
                raise

    def ask(self, method: Method, answer: Method, on_answer: Callable[[Any], object], **fields: Any) -> None:
        """Send a method and go on; unlike for `call` this greenlet need not wait its turn.

        :param on_answer: called in the hub with the answer.
        :raises ValueError, Closed: as for `send`.
        """
        data = self._encode(method, fields)
        self.connection.check_thread()
        self.check_open()
        _tell_when_answered(self._send_for((answer,), method, data, fields), on_answer)

    def send(self, method: Method, **fields: Any) -> None:
        """Send a method that has no answer, or whose answer was declined with ``nowait``.

        :raises ValueError: when a field cannot be encoded; nothing was sent then.
        :raises Closed: when the channel has ended.
        """
        data = self._encode(method, fields)
        self.connection.check_thread()
        self.check_open()
        self.connection.log_method('>', self.id, method)
        self.connection.write(data)

    def _send_for(
        self, answers: tuple[Method, ...], method: Method, data: bytes, fields: dict[str, Any]
    ) -> AsyncResult[Any]:
        answer: AsyncResult[Any] = AsyncResult()
        self._outstanding.append((answers, answer, fields.get('consumer_tag')))
        self.connection.log_method('>', self.id, method)
        self.connection.write(data)
        return answer

    def _encode(self, method: Method, fields: dict[str, Any]) -> bytes:
        data = frames.encode_method(self.id, method, **fields)
        if len(data) > self._frame_max:  # RabbitMQ would end the connection for it
            text = '%s takes %d bytes; a frame holds at most %d'
            raise ValueError(text % (method.name, len(data), self._frame_max))
        return data

    def sync(self) -> None:
        """Block until the broker has dealt with all that was written on this channel before, such as acks.

        Acks are not answered; but a channel's methods are dealt with in their order, and ``channel.flow``, which asks
        here for what is so anyway, is answered. All who wait share as few answers as possible.

        :raises Closed: the channel has ended before.
        """
        self.connection.check_thread()
        self.check_open()
        if self._sync_to_come is None:
            # A greenlet of its own: it must not end with one of those who wait.
            self._sync_to_come = gevent.spawn(self._sync)
        self._sync_to_come.join()
        self.check_open()

    def _sync(self) -> None:
        def on_written() -> None:
            # It covers nothing that is written from here on.
            self._sync_to_come = None

        try:
            self.call(commands.Channel.Flow, commands.Channel.FlowOk, on_written=on_written, active=True)
        except Closed:
            pass  # those who wait find that out themselves
        finally:
            if self._sync_to_come is gevent.getcurrent():
                self._sync_to_come = None

    def check_open(self) -> None:
        """Raise the reason when the channel has ended."""
        if self.error is not None:
            # Without the traceback of the last time: one error is raised for many callers.
            raise self.error.with_traceback(None)
        if self._closing:
            raise ChannelClosed('the channel is being closed by this side')

    # -- the hot paths -------------------------------------------------------------------------------------------------

    def publish(
        self,
        exchange: str,
        routing_key: str,
        properties: dict[str, Any],
        body: bytes,
        mandatory: bool = False,
        publication: Publication | None = None,
    ) -> int:
        """Write a message without waiting for anything; `basic.publish` is the one for everyday use.

        :param publication: is told what becomes of the message; only on a channel in confirm mode.
        :returns: the publish's delivery tag, 0 on a channel that is not in confirm mode.
        :raises ValueError: when something cannot be encoded or is larger than the broker takes; nothing was sent then.
        :raises Closed: when the channel has ended.
        """
        if self.error is not None or self._closing:
            self.check_open()
        data = encode_message(
            self.id,
            exchange,
            routing_key,
            mandatory,
            properties,
            body,
            self._frame_max,
            self._max_message_size,
        )
        tag = 0 if self.confirms is None else self.confirms.register(publication)
        self.connection.write(data)
        return tag

    def ack(self, delivery_tag: int, multiple: bool = False) -> None:
        """Write a ``basic.ack``.

        :raises Closed: when the channel has ended: the broker has taken the delivery back, or will.
        """
        self.check_open()
        self.connection.write(frames.encode_ack(self.id, delivery_tag, multiple))

    def consume(
        self,
        queue: str,
        listener: DeliveryListener,
        no_ack: bool = False,
        arguments: Mapping[str, Any] | None = None,
        on_cancel: Callable[[str], object] | None = None,
    ) -> str:
        """Have deliveries handed to a function in the hub as they are; `basic.consume` is the one for everyday use.

        They are to be acked by way of `acks`.

        :param listener: must not block.
        :returns: the consumer tag.
        :raises NotFound: the queue does not exist.
        :raises AccessRefused: another consumer has it exclusively.
        """
        acks = None if no_ack else self.acks
        consumer = DirectConsumer(self.basic.new_tag(), self, listener, acks, on_cancel)
        self.basic.start(consumer, False, queue=queue, no_ack=no_ack, arguments=arguments)
        return consumer.tag

    def _ack_gathered(self, delivery_tag: int, multiple: bool) -> None:
        # Where the channel has ended, nobody wants them any more.
        if not self.closed and not self._closing:
            self.connection.write(frames.encode_ack(self.id, delivery_tag, multiple))

    # -- what the broker says, in the hub ------------------------------------------------------------------------------

    def handle(self, kind: int, payload: Any) -> None:
        """Take a frame of this channel from the connection.

        :raises Closed: a connection error, when the frame breaks the protocol.
        """
        content = self._content
        if kind == frames.METHOD:
            name = payload[:4]
            if name == frames.BASIC_ACK:
                self.settle(*frames.decode_ack(payload), True)
            elif name in _WITH_CONTENT:
                content.begin(payload)
            elif content.method is not None:
                raise UnexpectedFrame('a method frame in the middle of a message')
            elif name == frames.BASIC_NACK:
                self.settle(*frames.decode_ack(payload), False)
            else:
                self._on_method(frames.decode_method(payload))
        elif kind == frames.BODY:
            if content.body(payload):
                self._on_content(*content.take())
        elif kind == frames.PART:
            content.part(payload)
        elif kind == frames.HEADER:
            if content.header(payload):
                self._on_content(*content.take())
        else:
            raise UnexpectedFrame('a frame of type %d on channel %d' % (kind, self.id))

    def handle_delivery(self, delivery: Delivery) -> None:
        """Take a ``basic.deliver`` of this channel whose message has come in one piece.

        :raises Closed: a connection error, when it breaks the protocol.
        """
        _, _, method, consumer_tag, delivery_tag, redelivered, names, properties, body = delivery
        self._content.check_whole(body)
        self._on_delivery(method, consumer_tag, delivery_tag, redelivered, names, properties, body)

    def settle(self, delivery_tag: int, bits: int, acked: bool) -> None:
        """Take a ``basic.ack`` or ``basic.nack`` of this channel: what was published there was confirmed, or refused.

        :raises Closed: a connection error, when nothing was to be confirmed.
        """
        if self.confirms is None:
            raise CommandInvalid('a confirm on channel %d, which is not in confirm mode' % self.id)
        self.confirms.settle(delivery_tag, bits & 1 == 1, acked)

    def _on_delivery(
        self,
        method: bytes,
        consumer_tag: bytes,
        delivery_tag: int,
        redelivered: bool,
        names: int,
        properties: dict[str, Any],
        body: bytes,
    ) -> None:
        if self._closing:
            return
        consumer: AnyConsumer | None = self.consumers.get(consumer_tag)
        if consumer is not None:
            consumer.deliver(method, delivery_tag, redelivered, names, properties, body)
            return
        self.acks.stray()
        if self._telling.admits(monotonic()):
            logger.warning('a delivery for %r, which is no consumer of channel %d', consumer_tag, self.id)

    def _on_content(self, method: bytes, properties: dict[str, Any], body: bytes) -> None:
        name = method[:4]
        if name == frames.BASIC_DELIVER:
            self._on_delivery(method, *frames.decode_deliver(method), properties, body)
        elif self._closing:
            return
        elif name == frames.BASIC_GET_OK:
            got: Any = frames.decode_method(method)
            # The remaining bytes look as in a deliver: delivery tag, redelivered, exchange, routing key.
            info = DeliveryInfo(method, b'', got.delivery_tag, got.redelivered, 13, got.message_count)
            self._answer(got, (got, Message.received(body, properties, info)))
        else:
            returned: Any = frames.decode_method(method)
            message = Message.received(body, properties, None)
            message.return_info = ReturnInfo(
                returned.reply_code, returned.reply_text, returned.exchange, returned.routing_key
            )
            if self.confirms is not None:
                self.confirms.mark_returned(message)
            tell(self.return_listeners, message)

    def _on_method(self, method: Any) -> None:
        kind = type(method)
        self.connection.log_method('<', self.id, kind)
        if kind is commands.Channel.Close:
            error = channel_error(method.reply_code, method.reply_text, method.class_id, method.method_id)
            self.connection.write(frames.encode_method(self.id, commands.Channel.CloseOk))
            self.end(error)
        elif kind is commands.Channel.CloseOk:
            self.end(ChannelClosed('the channel was closed by this side'))
        elif kind is commands.Channel.Flow:
            self.connection.write(frames.encode_method(self.id, commands.Channel.FlowOk, active=method.active))
            if method.active:
                self.flowing.set()
            else:
                self.flowing.clear()
        elif kind is commands.Basic.Cancel:
            # No cancel-ok: RabbitMQ sends its own cancels with no-wait.
            consumer = self.consumers.pop(method.consumer_tag.encode(), None)
            if consumer is not None:
                consumer.cancelled_by_broker()
        else:
            self._answer(method, method)

    def awaits_cancel(self, consumer_tag: str) -> bool:
        """Whether the broker has yet to say that it has cancelled a consumer."""
        return any(
            tag == consumer_tag and answers[0] is commands.Basic.CancelOk for answers, _, tag in self._outstanding
        )

    def _answer(self, method: base.Frame, value: Any) -> None:
        if self._closing:
            return
        for at, (answers, answer, tag) in enumerate(self._outstanding):
            # Nor do they come in the order of the methods: one that RabbitMQ does not know, it cancels at once.
            if isinstance(method, answers) and tag in (None, getattr(method, 'consumer_tag', None)):
                del self._outstanding[at]
                answer.set(value)
                return
            if answers[0] not in _OVERTAKEN:
                break
        raise CommandInvalid('%s on channel %d, where it answers nothing' % (method.name, self.id))

    # -- the end -------------------------------------------------------------------------------------------------------

    def close(self, timeout: float = CLOSE_TIMEOUT) -> None:
        """Close the channel and wait until the broker has said so, but not for long; nothing happens when it has ended.

        Deliveries that were not acked go back to their queue.

        :param timeout: seconds to wait for the broker.
        """
        if self.closed or self._closing:
            return
        self.connection.check_thread()
        ended: AsyncResult[None] = AsyncResult()
        self.close_listeners.append(lambda _: ended.set(None))
        self.abandon()
        ended.wait(timeout)
        self.end(ChannelClosed('the channel was closed by this side'), answered=False)

    def abandon(self) -> None:
        """Close the channel without waiting: whoever wanted it has given up."""
        if not self.closed and not self._closing:
            self.acks.flush()
            self._closing = True
            self.connection.write(
                frames.encode_method(self.id, commands.Channel.Close, reply_code=200, reply_text='OK')
            )

    def start_confirms(self) -> None:
        """The channel is in confirm mode from here on: the broker counts the publishes that are written from now on."""
        if self.confirms is None:
            self.confirms = Confirms()

    def end(self, error: Exception, answered: bool = True) -> None:
        """The channel has ended: tell everybody who waits for something, once.

        :param answered: False: the broker's word on it is still to come, and must not be taken for one on the next
            channel of this number.
        """
        self.connection.forget(self, answered)
        if self.error is not None:
            return
        self.error = error
        self.flowing.set()
        consumers, self.consumers = self.consumers, {}
        for consumer in consumers.values():
            consumer.stop()
        outstanding, self._outstanding = self._outstanding, deque()
        for _, answer, _ in outstanding:
            answer.set_exception(error)
        if self.confirms is not None:
            self.confirms.lose(error)
        tell(self.close_listeners, error)


def _tell_when_answered(answer: AsyncResult[Any], listener: Callable[[Any], object]) -> None:
    answer.rawlink(lambda answered: listener(answered.value) if answered.successful() else None)


# The queue gives them, not RabbitMQ's channel, which may answer what was sent later before. Who gave up waiting for one
# does not wait for it before he goes on.
_OVERTAKEN = frozenset((commands.Basic.ConsumeOk, commands.Basic.CancelOk))

_WITH_CONTENT = frozenset((frames.BASIC_DELIVER, frames.BASIC_GET_OK, frames.BASIC_RETURN))
