"""A channel of a client's connection: publishing, consuming, acks, confirms and transactions.

Reads from top to bottom as a channel is used. Exchanges and queues are declared in `amphora.broker.declarations`; where
messages go and wait is `amphora.broker.vhost`'s business.

Source: AMQP 0-9-1, classes channel, basic, confirm and tx; https://www.rabbitmq.com/docs/specification for the
extensions.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from enum import Enum
from time import monotonic
from typing import TYPE_CHECKING, Any

from pamqp import base, commands

from amphora.amqp import frames
from amphora.amqp.errors import (
    ChannelClosed,
    ChannelNumberError,
    CommandInvalid,
    NotAllowed,
    NotFound,
    NotImplemented_,
    PreconditionFailed,
    UnexpectedFrame,
)
from amphora.broker.arguments import integer_fault
from amphora.broker.assembly import Assembly
from amphora.broker.consumer import Consumer, Credit
from amphora.broker.declarations import HANDLERS as DECLARATIONS
from amphora.broker.outstanding import Outstanding, OutstandingDeliveries, by_queue
from amphora.broker.queues import Entry, Queue
from amphora.broker.routing import REPLY_TO
from amphora.broker.stored import StoredMessage
from amphora.broker.wire import decode_publish, deliver_prefix, encode_deliver, encode_get_ok, encode_return, reply_text

if TYPE_CHECKING:
    from amphora.broker.connection import Connection

# Old clients ask for access before anything else; RabbitMQ says yes to all of them. pamqp does not know the class.
_ACCESS_REQUEST, _ACCESS_REQUEST_OK = b'\x00\x1e\x00\x0a', b'\x00\x1e\x00\x0b\x00\x01'

_NO_ROUTE = 312


class Mode(Enum):
    """What publishing and acking mean on a channel; once it is not plain it stays as it is."""

    PLAIN = 'plain'
    CONFIRM = 'confirm'
    TX = 'tx'


class Channel:
    """A channel, from ``channel.open`` until it is closed by either side.

    :param connection: its connection.
    :param number: its number there.
    """

    def __init__(self, connection: Connection, number: int) -> None:
        self.connection = connection
        self.vhost = connection.vhost
        self.id = number
        #: the queue declared last: an empty name stands for it
        self.last_queue = ''
        # Closed by this side: until the client has said so too, what it sends is ignored.
        self._closing = False
        self._assembly = Assembly(connection.limits.max_message_size)
        self._consumers: dict[str, Consumer] = {}
        self._prefixes: dict[Consumer, bytes] = {}
        self._outstanding = OutstandingDeliveries()
        self._delivery_tag = 0
        self._prefetch = 0
        self._credit = Credit()
        self._mode = Mode.PLAIN
        # Confirms: publishes seen, and up to which one the client knows.
        self._published = self._confirmed = 0
        # Transactions: what waits for the commit.
        self._held_messages: list[tuple[StoredMessage, bool]] = []
        self._held_acks: list[tuple[list[Outstanding], _Settle]] = []
        # Direct reply-to: consumer tag, and where replies are to be sent.
        self._reply_tag = self._reply_name = ''

    # -- frames in -----------------------------------------------------------------------------------------------------

    def handle(self, kind: int, payload: bytes) -> None:
        """Take a frame of this channel.

        :raises Closed: what the client did wrong; a `ChannelClosed` is for this channel only.
        """
        if self._closing:
            self._handle_closing(kind, payload)
        elif kind == frames.METHOD:
            name = payload[:4]
            if name == frames.BASIC_PUBLISH:
                self._assembly.begin(payload)
            else:
                self._assembly.check_method()
                if name == frames.BASIC_ACK:
                    tag, bits = frames.decode_ack(payload)
                    self._settle(tag, bits & 1 == 1, self._ack)
                elif name == _ACCESS_REQUEST:
                    self.connection.write(frames.frame(frames.METHOD, self.id, _ACCESS_REQUEST_OK))
                else:
                    self._on_method(frames.decode_method(payload))
        elif kind == frames.HEADER:
            if self._assembly.header(payload):
                self._on_message()
        elif kind == frames.BODY:
            if self._assembly.body(payload):
                self._on_message()
        else:
            raise UnexpectedFrame('a frame of type %d on channel %d' % (kind, self.id))

    def _handle_closing(self, kind: int, payload: bytes) -> None:
        if kind == frames.METHOD and payload[:4] in (_CLOSE, _CLOSE_OK):
            if payload[:4] == _CLOSE:  # both sides closed at the same time
                self.say(commands.Channel.CloseOk)
            else:
                self.connection.forget(self)

    def _on_method(self, method: Any) -> None:
        handler = _HANDLERS.get(type(method))
        if handler is not None:
            handler(self, method)
            return
        declare = DECLARATIONS.get(type(method))
        if declare is None:
            raise CommandInvalid('unimplemented method %s' % method.name)
        declare(self, method)

    def say(self, method: type[base.Frame], **fields: Any) -> None:
        """Send a method to the client."""
        self.connection.write(frames.encode_method(self.id, method, **fields))

    def answer(self, asked: Any, method: type[base.Frame], **fields: Any) -> None:
        """Send the answer to a method, unless it asked for none."""
        if not getattr(asked, 'nowait', False):
            self.say(method, **fields)

    def queue_name(self, name: str) -> str:
        """The name, or that of the queue declared last.

        :raises NotFound: it is empty and none was.
        """
        if not name and not self.last_queue:
            raise NotFound('no previously declared queue')
        return name or self.last_queue

    # -- publishing ----------------------------------------------------------------------------------------------------

    def _on_message(self) -> None:
        method, header, body = self._assembly.take()
        exchange, routing_key, mandatory, immediate, address = decode_publish(method)
        if immediate:
            raise NotImplemented_('immediate=true')
        connection = self.connection
        connection.has_published()
        message = StoredMessage(exchange, routing_key, header, body, address)
        message.check(connection.user)
        if message.is_answered_at(REPLY_TO):
            if not self._reply_name:
                raise PreconditionFailed('fast reply consumer does not exist')
            message = message.changed(reply_to=self._reply_name)
        if self._mode is Mode.TX:
            self.vhost.exchange(exchange)
            self._held_messages.append((message, mandatory))
            return
        if self._mode is Mode.CONFIRM:
            self._published += 1
        self._confirm(self._route(message, mandatory))

    def _route(self, message: StoredMessage, mandatory: bool) -> bool:
        routed, taken = self.vhost.publish(message, monotonic())
        if mandatory and not routed:
            self.connection.write(encode_return(self.id, _NO_ROUTE, message, self.connection.frame_max))
        return taken

    def _confirm(self, taken: bool) -> None:
        if self._mode is not Mode.CONFIRM:
            return
        if taken:
            # Acked together with those that come in the same piece of the stream.
            self.connection.flush_later(self)
        else:
            self._published -= 1
            self.flush_confirms()
            self._published = self._confirmed = self._published + 1
            self.say(commands.Basic.Nack, delivery_tag=self._published)

    def flush_confirms(self) -> None:
        """Tell the client of the publishes that nobody has told it of yet."""
        count = self._published - self._confirmed
        if count > 0 and not self._closing:
            self._confirmed = self._published
            self.connection.write(frames.encode_ack(self.id, self._published, multiple=count > 1))

    # -- consuming -----------------------------------------------------------------------------------------------------

    def _on_qos(self, asked: Any) -> None:
        if asked.prefetch_size:
            raise NotImplemented_('prefetch_size!=0 (%d)' % asked.prefetch_size)
        if asked.global_:
            self._credit.limit = asked.prefetch_count
        else:
            self._prefetch = asked.prefetch_count
            # As with RabbitMQ, whoever limits consumers lifts the limit of their channel.
            self._credit.limit = 0
        self.say(commands.Basic.QosOk)
        self.wake()

    def _on_consume(self, asked: Any) -> None:
        tag = asked.consumer_tag or 'amq.ctag-' + secrets.token_urlsafe(16)
        if tag in self._consumers or tag == self._reply_tag:
            raise NotAllowed("attempt to reuse consumer tag '%s'" % tag)
        if asked.queue == REPLY_TO:
            self._consume_replies(asked, tag)
            return
        queue = self.vhost.queue(self.queue_name(asked.queue), self.connection)
        where = "queue '%s' in vhost '%s'" % (queue.name, self.vhost.name)
        arguments = asked.arguments or {}
        fault = integer_fault(arguments.get('x-priority', 0))
        if fault is not None:
            raise PreconditionFailed("invalid arg 'x-priority' for %s: %s" % (where, fault))
        if queue.options.quorum and self._credit.limit:
            raise NotImplemented_('%s does not support global qos' % where)
        consumer = Consumer(
            tag,
            self._deliver,
            self._on_queue_gone,
            asked.no_ack,
            asked.exclusive,
            self._prefetch,
            self._credit,
            self.connection.gate,
            arguments,
        )
        now = monotonic()
        self.vhost.consume(queue, consumer, now)
        self._consumers[tag] = consumer
        self._prefixes[consumer] = deliver_prefix(tag)
        self.answer(asked, commands.Basic.ConsumeOk, consumer_tag=tag)
        self.vhost.wake(consumer, now)

    def _consume_replies(self, asked: Any, tag: str) -> None:
        if not asked.no_ack:
            raise PreconditionFailed('reply consumer cannot acknowledge')
        if self._reply_name:
            raise PreconditionFailed('reply consumer already set')
        self._reply_tag = tag
        self._reply_name = '%s.%s' % (REPLY_TO, secrets.token_urlsafe(24))
        self.vhost.reply_consumers[self._reply_name] = self._deliver_reply
        self.answer(asked, commands.Basic.ConsumeOk, consumer_tag=tag)

    def _on_cancel(self, asked: Any) -> None:
        consumer = self._consumers.pop(asked.consumer_tag, None)
        if consumer is not None:
            del self._prefixes[consumer]
            self.vhost.cancel(consumer, monotonic())
        elif asked.consumer_tag == self._reply_tag:
            self._forget_replies()
        self.answer(asked, commands.Basic.CancelOk, consumer_tag=asked.consumer_tag)

    def _forget_replies(self) -> None:
        self.vhost.reply_consumers.pop(self._reply_name, None)
        self._reply_tag = self._reply_name = ''

    def _on_queue_gone(self, consumer: Consumer) -> None:
        del self._consumers[consumer.tag]
        del self._prefixes[consumer]
        if self.connection.client_can('consumer_cancel_notify'):
            self.say(commands.Basic.Cancel, consumer_tag=consumer.tag, nowait=True)

    def wake(self) -> None:
        """There may be room again: hand out what waits for this channel's consumers."""
        now = monotonic()
        for consumer in list(self._consumers.values()):
            self.vhost.wake(consumer, now)

    # -- deliveries ----------------------------------------------------------------------------------------------------

    def _deliver(self, consumer: Consumer, entry: Entry) -> None:
        queue = consumer.queue
        assert queue is not None
        self._delivery_tag = tag = self._delivery_tag + 1
        if not consumer.no_ack:
            self._outstanding.add(tag, queue, entry, consumer)
        connection = self.connection
        message = _as_delivered(queue, entry)
        connection.deliver(
            encode_deliver(self.id, self._prefixes[consumer], tag, entry.redelivered, message, connection.frame_max)
        )

    def _deliver_reply(self, message: StoredMessage) -> None:
        self._delivery_tag += 1
        prefix = deliver_prefix(self._reply_tag)
        connection = self.connection
        connection.deliver(encode_deliver(self.id, prefix, self._delivery_tag, False, message, connection.frame_max))

    def _on_get(self, asked: Any) -> None:
        queue = self.vhost.queue(self.queue_name(asked.queue), self.connection)
        entry = self.vhost.get(queue, monotonic())
        if entry is None:
            self.say(commands.Basic.GetEmpty)
            return
        self._delivery_tag = tag = self._delivery_tag + 1
        if asked.no_ack:
            queue.settle(entry)
        else:
            self._outstanding.add(tag, queue, entry, None)
        message = _as_delivered(queue, entry)
        self.connection.write(
            encode_get_ok(self.id, tag, entry.redelivered, message, queue.ready, self.connection.frame_max)
        )

    # -- acks ----------------------------------------------------------------------------------------------------------

    def _settle(self, tag: int, multiple: bool, how: _Settle) -> None:
        taken = self._outstanding.take(tag, multiple)
        if self._mode is Mode.TX:
            self._held_acks.append((taken, how))
        else:
            how(taken)

    def _ack(self, taken: list[Outstanding]) -> None:
        for delivery in taken:
            delivery.queue.settle(delivery.entry)
        self._give_back(taken)

    def _requeue(self, taken: list[Outstanding]) -> None:
        now = monotonic()
        for queue, entries in by_queue(taken).items():
            self.vhost.requeue(queue, entries, now)
        self._give_back(taken)

    def _reject(self, taken: list[Outstanding]) -> None:
        now = monotonic()
        for queue, entries in by_queue(taken).items():
            self.vhost.reject(queue, entries, now)
        self._give_back(taken)

    def _give_back(self, taken: list[Outstanding]) -> None:
        """Consumers have room again."""
        now = monotonic()
        if len(taken) == 1 and not self._credit.limit:
            consumer = taken[0].consumer
            if consumer is not None:
                consumer.give_back()
                self._wake_one(consumer, now)
            return
        consumers: dict[Consumer, None] = {}
        for delivery in taken:
            if delivery.consumer is not None:
                delivery.consumer.give_back()
                consumers[delivery.consumer] = None
        for consumer in list(self._consumers.values()) if self._credit.limit else consumers:
            self._wake_one(consumer, now)

    def _wake_one(self, consumer: Consumer, now: float) -> None:
        queue = consumer.queue
        if queue is not None and (consumer.waiting or queue.ready) and consumer in self._prefixes:
            self.vhost.wake(consumer, now)

    def _on_nack(self, asked: Any) -> None:
        self._settle(asked.delivery_tag, asked.multiple, self._requeue if asked.requeue else self._reject)

    def _on_reject(self, asked: Any) -> None:
        self._settle(asked.delivery_tag, False, self._requeue if asked.requeue else self._reject)

    def _on_recover(self, asked: Any) -> None:
        if not asked.requeue:
            raise NotImplemented_('requeue=false')
        self._requeue(self._outstanding.take_all())
        if isinstance(asked, commands.Basic.Recover):
            self.say(commands.Basic.RecoverOk)

    # -- confirms and transactions -------------------------------------------------------------------------------------

    def _on_confirm(self, asked: Any) -> None:
        self._enter(Mode.CONFIRM)
        self.answer(asked, commands.Confirm.SelectOk)

    def _on_tx_select(self, asked: Any) -> None:
        self._enter(Mode.TX)
        self.say(commands.Tx.SelectOk)

    def _enter(self, mode: Mode) -> None:
        if self._mode not in (Mode.PLAIN, mode):
            raise PreconditionFailed('cannot switch from %s to %s mode' % (self._mode.value, mode.value))
        self._mode = mode

    def _on_commit(self, asked: Any) -> None:
        self._check_tx()
        messages, self._held_messages = self._held_messages, []
        acks, self._held_acks = self._held_acks, []
        for message, mandatory in messages:
            self._route(message, mandatory)
        for taken, how in acks:
            how(taken)
        self.say(commands.Tx.CommitOk)

    def _on_rollback(self, asked: Any) -> None:
        self._check_tx()
        self._held_messages = []
        self._put_back_acks()
        self.say(commands.Tx.RollbackOk)

    def _put_back_acks(self) -> None:
        for taken, _ in self._held_acks:
            self._outstanding.put_back(taken)
        self._held_acks = []

    def _check_tx(self) -> None:
        if self._mode is not Mode.TX:
            raise PreconditionFailed('channel is not transactional')

    # -- the end -------------------------------------------------------------------------------------------------------

    def _on_open(self, asked: Any) -> None:
        raise ChannelNumberError("second 'channel.open' seen")

    def _on_flow(self, asked: Any) -> None:
        if not asked.active:
            raise NotImplemented_('active=false')
        self.say(commands.Channel.FlowOk, active=True)

    def _on_close(self, asked: Any) -> None:
        self.end()
        self.say(commands.Channel.CloseOk)
        self.connection.forget(self)

    def refuse(self, error: ChannelClosed, class_id: int, method_id: int) -> None:
        """Close the channel because of what the client did; it is gone when the client has said close-ok."""
        self.end()
        self._closing = True
        self.say(
            commands.Channel.Close,
            reply_code=error.code,
            reply_text=reply_text(error),
            class_id=class_id,
            method_id=method_id,
        )

    def end(self) -> None:
        """Cancel the consumers, and give back what was not acked."""
        self.flush_confirms()
        now = monotonic()
        consumers, self._consumers, self._prefixes = self._consumers, {}, {}
        self._forget_replies()
        for consumer in consumers.values():
            self.vhost.cancel(consumer, now)
        self._held_messages = []
        self._put_back_acks()
        self._requeue(self._outstanding.take_all())


_Settle = Callable[[list[Outstanding]], None]

_CLOSE, _CLOSE_OK = b'\x00\x14\x00\x28', b'\x00\x14\x00\x29'

_HANDLERS: dict[type[base.Frame], Callable[[Channel, Any], None]] = {
    commands.Channel.Open: Channel._on_open,
    commands.Channel.Close: Channel._on_close,
    commands.Channel.Flow: Channel._on_flow,
    commands.Basic.Qos: Channel._on_qos,
    commands.Basic.Consume: Channel._on_consume,
    commands.Basic.Cancel: Channel._on_cancel,
    commands.Basic.CancelOk: lambda channel, method: None,
    commands.Basic.Get: Channel._on_get,
    commands.Basic.Nack: Channel._on_nack,
    commands.Basic.Reject: Channel._on_reject,
    commands.Basic.Recover: Channel._on_recover,
    commands.Basic.RecoverAsync: Channel._on_recover,
    commands.Confirm.Select: Channel._on_confirm,
    commands.Tx.Select: Channel._on_tx_select,
    commands.Tx.Commit: Channel._on_commit,
    commands.Tx.Rollback: Channel._on_rollback,
    commands.Channel.FlowOk: lambda channel, method: None,
}


def _as_delivered(queue: Queue, entry: Entry) -> StoredMessage:
    """The message as a client gets it: quorum queues count how often it has come back."""
    if not queue.options.quorum:
        return entry.message
    return entry.message.changed(headers={**entry.message.headers, 'x-delivery-count': entry.returns})
