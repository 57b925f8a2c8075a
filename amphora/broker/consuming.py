"""What a channel's client consumes: consumers, deliveries, gets, and what becomes of the deliveries.

Source: AMQP 0-9-1, class basic; https://www.rabbitmq.com/docs/consumers, /docs/confirms, /docs/direct-reply-to.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any

from pamqp import base, commands

from amphora.amqp.errors import NotAllowed, NotImplemented_, PreconditionFailed
from amphora.broker.arguments import integer_fault
from amphora.broker.consumer import Consumer, Credit
from amphora.broker.outstanding import Outstanding, OutstandingDeliveries, by_queue
from amphora.broker.queues import Entry, Queue
from amphora.broker.routing import REPLY_TO
from amphora.broker.stored import StoredMessage
from amphora.broker.wire import deliver_prefix, encode_deliver, encode_get_ok

if TYPE_CHECKING:
    from amphora.broker.channel import Channel

_Settle = Callable[[list[Outstanding]], None]


class Consuming:
    """The consuming half of a channel.

    :ivar transactional: acks wait for `commit`.
    :ivar reply_name: where replies for this channel's direct reply-to consumer are to be sent; empty: it has none.
    """

    def __init__(self, channel: Channel) -> None:
        self.transactional = False
        self.reply_name = self._reply_tag = ''
        self._channel = channel
        self._vhost = channel.vhost
        self._consumers: dict[str, Consumer] = {}
        self._prefixes: dict[Consumer, bytes] = {}
        self._outstanding = OutstandingDeliveries()
        self._delivery_tag = 0
        self._prefetch = 0
        self._credit = Credit()
        # Acks, nacks and rejects that wait for the commit.
        self._held: list[tuple[list[Outstanding], _Settle]] = []

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
        self._channel.say(commands.Basic.QosOk)
        self.wake()

    def _on_consume(self, asked: Any) -> None:
        tag = asked.consumer_tag or 'amq.ctag-' + secrets.token_urlsafe(16)
        if tag in self._consumers or tag == self._reply_tag:
            raise NotAllowed("attempt to reuse consumer tag '%s'" % tag)
        if asked.queue == REPLY_TO:
            self._consume_replies(asked, tag)
            return
        queue = self._vhost.queue(self._channel.queue_name(asked.queue), self._channel.connection)
        where = "queue '%s' in vhost '%s'" % (queue.name, self._vhost.name)
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
            self._channel.connection.gate,
            arguments,
        )
        now = monotonic()
        self._vhost.consume(queue, consumer, now)
        self._consumers[tag] = consumer
        self._prefixes[consumer] = deliver_prefix(tag)
        self._channel.answer(asked, commands.Basic.ConsumeOk, consumer_tag=tag)
        self._vhost.wake(consumer, now)

    def _consume_replies(self, asked: Any, tag: str) -> None:
        if not asked.no_ack:
            raise PreconditionFailed('reply consumer cannot acknowledge')
        if self.reply_name:
            raise PreconditionFailed('reply consumer already set')
        self._reply_tag = tag
        self.reply_name = '%s.%s' % (REPLY_TO, secrets.token_urlsafe(24))
        self._vhost.reply_consumers[self.reply_name] = self._deliver_reply
        self._channel.answer(asked, commands.Basic.ConsumeOk, consumer_tag=tag)

    def _on_cancel(self, asked: Any) -> None:
        consumer = self._consumers.pop(asked.consumer_tag, None)
        if consumer is not None:
            del self._prefixes[consumer]
            self._vhost.cancel(consumer, monotonic())
        elif asked.consumer_tag == self._reply_tag:
            self._forget_replies()
        self._channel.answer(asked, commands.Basic.CancelOk, consumer_tag=asked.consumer_tag)

    def _forget_replies(self) -> None:
        self._vhost.reply_consumers.pop(self.reply_name, None)
        self._reply_tag = self.reply_name = ''

    def _on_queue_gone(self, consumer: Consumer) -> None:
        del self._consumers[consumer.tag]
        del self._prefixes[consumer]
        if self._channel.connection.client_can('consumer_cancel_notify'):
            self._channel.say(commands.Basic.Cancel, consumer_tag=consumer.tag, nowait=True)

    def wake(self) -> None:
        """There may be room again: hand out what waits for this channel's consumers."""
        now = monotonic()
        for consumer in list(self._consumers.values()):
            self._vhost.wake(consumer, now)

    # -- deliveries ----------------------------------------------------------------------------------------------------

    def _deliver(self, consumer: Consumer, entry: Entry) -> None:
        queue = consumer.queue
        assert queue is not None
        self._delivery_tag = tag = self._delivery_tag + 1
        if not consumer.no_ack:
            self._outstanding.add(tag, queue, entry, consumer)
        connection = self._channel.connection
        # RabbitMQ leaves a count of 0 out here, but not where it answers basic.get.
        message = _as_delivered(queue, entry) if entry.returns else entry.message
        connection.deliver(
            encode_deliver(
                self._channel.id, self._prefixes[consumer], tag, entry.redelivered, message, connection.frame_max
            )
        )

    def _deliver_reply(self, message: StoredMessage) -> None:
        connection = self._channel.connection
        if connection.is_deaf:
            return  # no queue holds replies, and what nobody reads must not pile up here either
        self._delivery_tag += 1
        prefix = deliver_prefix(self._reply_tag)
        connection.deliver(
            encode_deliver(self._channel.id, prefix, self._delivery_tag, False, message, connection.frame_max)
        )

    def _on_get(self, asked: Any) -> None:
        queue = self._vhost.queue(self._channel.queue_name(asked.queue), self._channel.connection)
        entry = self._vhost.get(queue, monotonic())
        if entry is None:
            self._channel.say(commands.Basic.GetEmpty)
            return
        self._delivery_tag = tag = self._delivery_tag + 1
        if asked.no_ack:
            queue.settle(entry)
        else:
            self._outstanding.add(tag, queue, entry, None)
        message = _as_delivered(queue, entry)
        self._channel.connection.write(
            encode_get_ok(
                self._channel.id, tag, entry.redelivered, message, queue.ready, self._channel.connection.frame_max
            )
        )

    # -- acks ----------------------------------------------------------------------------------------------------------

    def on_ack(self, tag: int, multiple: bool) -> None:
        """The client acks a delivery, or all up to it.

        :raises PreconditionFailed: there is no such delivery.
        """
        self._settle(tag, multiple, self._ack)

    def _settle(self, tag: int, multiple: bool, how: _Settle) -> None:
        taken = self._outstanding.take(tag, multiple)
        if self.transactional:
            self._held.append((taken, how))
        else:
            how(taken)

    def _ack(self, taken: list[Outstanding]) -> None:
        for delivery in taken:
            delivery.queue.settle(delivery.entry)
        self._give_back(taken)

    def _requeue(self, taken: list[Outstanding], refused: bool = True) -> None:
        now = monotonic()
        for queue, entries in by_queue(taken).items():
            self._vhost.requeue(queue, entries, now, refused)
        self._give_back(taken)

    def _reject(self, taken: list[Outstanding]) -> None:
        now = monotonic()
        for queue, entries in by_queue(taken).items():
            self._vhost.reject(queue, entries, now)
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
            self._vhost.wake(consumer, now)

    def _on_nack(self, asked: Any) -> None:
        self._settle(asked.delivery_tag, asked.multiple, self._requeue if asked.requeue else self._reject)

    def _on_reject(self, asked: Any) -> None:
        self._settle(asked.delivery_tag, False, self._requeue if asked.requeue else self._reject)

    def _on_recover(self, asked: Any) -> None:
        if not asked.requeue:
            raise NotImplemented_('requeue=false')
        self._requeue(self._outstanding.take_all())
        if isinstance(asked, commands.Basic.Recover):
            self._channel.say(commands.Basic.RecoverOk)

    # -- transactions and the end --------------------------------------------------------------------------------------

    def commit(self) -> None:
        """The acks since the last commit take effect."""
        held, self._held = self._held, []
        for taken, how in held:
            how(taken)

    def rollback(self) -> None:
        """The acks since the last commit are forgotten: what they were about is unacked again."""
        for taken, _ in self._held:
            self._outstanding.put_back(taken)
        self._held = []

    def end(self) -> None:
        """Cancel the consumers, and give back what was not acked."""
        now = monotonic()
        consumers, self._consumers, self._prefixes = self._consumers, {}, {}
        self._forget_replies()
        for consumer in consumers.values():
            # Whoever is next must be none of this channel, and gets first what comes back.
            self._vhost.cancel(consumer, now, dispatch=False)
        self.rollback()
        self._requeue(self._outstanding.take_all(), refused=False)
        for consumer in consumers.values():
            assert consumer.queue is not None
            self._vhost.dispatch(consumer.queue, now)


def _as_delivered(queue: Queue, entry: Entry) -> StoredMessage:
    """The message as a client gets it: quorum queues count how often it has come back."""
    message = entry.message
    if not queue.options.quorum:
        return message
    delivered = message.changed(headers={**message.headers, 'x-delivery-count': entry.returns})
    message.forget_properties()
    return delivered


#: method -> what it does on a channel's consuming half
HANDLERS: dict[type[base.Frame], Callable[[Consuming, Any], None]] = {
    commands.Basic.Qos: Consuming._on_qos,
    commands.Basic.Consume: Consuming._on_consume,
    commands.Basic.Cancel: Consuming._on_cancel,
    commands.Basic.Get: Consuming._on_get,
    commands.Basic.Nack: Consuming._on_nack,
    commands.Basic.Reject: Consuming._on_reject,
    commands.Basic.Recover: Consuming._on_recover,
    commands.Basic.RecoverAsync: Consuming._on_recover,
}
