"""What one says on a channel, grouped by AMQP class: channel.exchange, .queue, .basic, .confirm and .tx.

Each method blocks its greenlet until the broker has answered, unless it has no answer or ``nowait`` is given. Each
raises what `Channel.call` raises: ValueError for what cannot be encoded, and the reply code's exception of
`amphora.amqp.errors` when the broker refuses, which ends the channel.

Source: AMQP 0-9-1 (https://www.rabbitmq.com/amqp-0-9-1-reference); the shape is haigha's.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple

import gevent
from pamqp import commands

from amphora.amqp.confirms import WaitedPublication
from amphora.amqp.consumers import AnyConsumer, Consumer, UnwantedConsumer
from amphora.amqp.errors import Closed
from amphora.amqp.message import Message

if TYPE_CHECKING:
    from amphora.amqp.channel import Channel

Arguments = dict[str, Any]


class DeclaredQueue(NamedTuple):
    """What the broker says of a declared queue."""

    #: the queue's name: the one the broker made up when an empty one was given
    queue: str
    #: messages that are ready for delivery
    message_count: int
    #: active consumers
    consumer_count: int


class _Methods:
    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def _say(self, nowait: bool, method: Any, answer: Any, **fields: Any) -> Any:
        if nowait:
            return self._channel.send(method, nowait=True, **fields)
        return self._channel.call(method, answer, **fields)


class ExchangeMethods(_Methods):
    """Class exchange."""

    def declare(
        self,
        exchange: str,
        type: str = 'direct',
        passive: bool = False,
        durable: bool = False,
        auto_delete: bool = False,
        internal: bool = False,
        nowait: bool = False,
        arguments: Arguments | None = None,
    ) -> None:
        """Make an exchange, or with ``passive`` check that it is there.

        :param type: ``direct``, ``fanout``, ``topic``, ``headers`` or one a plugin brings.
        :raises NotFound: passive, and it does not exist.
        :raises PreconditionFailed: it exists with another type or other arguments.
        """
        self._say(
            nowait,
            commands.Exchange.Declare,
            commands.Exchange.DeclareOk,
            exchange=exchange,
            exchange_type=type,
            passive=passive,
            durable=durable,
            auto_delete=auto_delete,
            internal=internal,
            arguments=arguments,
        )

    def delete(self, exchange: str, if_unused: bool = False, nowait: bool = False) -> None:
        """Delete an exchange and its bindings; RabbitMQ does not mind when it is not there.

        :raises PreconditionFailed: ``if_unused``, and it has bindings.
        """
        self._say(nowait, commands.Exchange.Delete, commands.Exchange.DeleteOk, exchange=exchange, if_unused=if_unused)

    def bind(
        self,
        destination: str,
        source: str,
        routing_key: str = '',
        nowait: bool = False,
        arguments: Arguments | None = None,
    ) -> None:
        """Let messages flow from the exchange `source` to the exchange `destination` (RabbitMQ's extension)."""
        self._say(
            nowait,
            commands.Exchange.Bind,
            commands.Exchange.BindOk,
            destination=destination,
            source=source,
            routing_key=routing_key,
            arguments=arguments,
        )

    def unbind(
        self,
        destination: str,
        source: str,
        routing_key: str = '',
        nowait: bool = False,
        arguments: Arguments | None = None,
    ) -> None:
        """Undo `bind`."""
        self._say(
            nowait,
            commands.Exchange.Unbind,
            commands.Exchange.UnbindOk,
            destination=destination,
            source=source,
            routing_key=routing_key,
            arguments=arguments,
        )


class QueueMethods(_Methods):
    """Class queue."""

    def declare(
        self,
        queue: str = '',
        passive: bool = False,
        durable: bool = False,
        exclusive: bool = False,
        auto_delete: bool = False,
        nowait: bool = False,
        arguments: Arguments | None = None,
    ) -> DeclaredQueue | None:
        """Make a queue, or with ``passive`` check that it is there.

        :param queue: empty: the broker makes up a name.
        :param arguments: such as ``x-expires`` (milliseconds) or ``x-queue-type``.
        :returns: its name and counts; None with ``nowait``.
        :raises NotFound: passive, and it does not exist.
        :raises PreconditionFailed: it exists with other properties or arguments.
        :raises ResourceLocked: another connection has it exclusively.
        """
        answer = self._say(
            nowait,
            commands.Queue.Declare,
            commands.Queue.DeclareOk,
            queue=queue,
            passive=passive,
            durable=durable,
            exclusive=exclusive,
            auto_delete=auto_delete,
            arguments=arguments,
        )
        return None if nowait else DeclaredQueue(answer.queue, answer.message_count, answer.consumer_count)

    def bind(
        self,
        queue: str,
        exchange: str,
        routing_key: str = '',
        nowait: bool = False,
        arguments: Arguments | None = None,
    ) -> None:
        """Let messages of an exchange flow to a queue.

        :raises NotFound: the queue or the exchange does not exist.
        """
        self._say(
            nowait,
            commands.Queue.Bind,
            commands.Queue.BindOk,
            queue=queue,
            exchange=exchange,
            routing_key=routing_key,
            arguments=arguments,
        )

    def unbind(self, queue: str, exchange: str, routing_key: str = '', arguments: Arguments | None = None) -> None:
        """Undo `bind`."""
        self._channel.call(
            commands.Queue.Unbind,
            commands.Queue.UnbindOk,
            queue=queue,
            exchange=exchange,
            routing_key=routing_key,
            arguments=arguments,
        )

    def purge(self, queue: str, nowait: bool = False) -> int | None:
        """Drop the messages of a queue that are ready; gives their number, None with ``nowait``.

        :raises NotFound: the queue does not exist.
        """
        answer = self._say(nowait, commands.Queue.Purge, commands.Queue.PurgeOk, queue=queue)
        return None if nowait else int(answer.message_count)

    def delete(self, queue: str, if_unused: bool = False, if_empty: bool = False, nowait: bool = False) -> int | None:
        """Delete a queue; gives the number of messages in it, None with ``nowait``. RabbitMQ does not mind when it is
        not there.

        :raises PreconditionFailed: ``if_unused`` and it has consumers, or ``if_empty`` and it has messages.
        """
        answer = self._say(
            nowait,
            commands.Queue.Delete,
            commands.Queue.DeleteOk,
            queue=queue,
            if_unused=if_unused,
            if_empty=if_empty,
        )
        return None if nowait else int(answer.message_count)


class BasicMethods(_Methods):
    """Class basic."""

    def __init__(self, channel: Channel) -> None:
        super().__init__(channel)
        self._tags = count(1)

    def qos(self, prefetch_size: int = 0, prefetch_count: int = 0, is_global: bool = False) -> None:
        """Limit how many deliveries may be unacked; 0 is no limit.

        :param prefetch_count: a number of messages.
        :param is_global: False: for each consumer started from now on; True: for all consumers of the channel together
            (https://www.rabbitmq.com/docs/consumer-prefetch).
        """
        self._channel.call(
            commands.Basic.Qos,
            commands.Basic.QosOk,
            prefetch_size=prefetch_size,
            prefetch_count=prefetch_count,
            global_=is_global,
        )

    def consume(
        self,
        queue: str,
        consumer: Callable[[Message], object],
        consumer_tag: str = '',
        no_local: bool = False,
        no_ack: bool = False,
        exclusive: bool = False,
        nowait: bool = False,
        arguments: Arguments | None = None,
        on_cancel: Callable[[str], object] | None = None,
        direct: bool = False,
    ) -> str:
        """Have the messages of a queue handed to a function, in their order.

        :param consumer: called with each `Message`, in a greenlet of this consumer's own: it may block, and what it
            raises is printed and does not end the consumer. Unless `qos` limits them, deliveries that it has not come
            to yet pile up.
        :param consumer_tag: empty: one is made up.
        :param on_cancel: called in the hub with the tag when the broker cancels the consumer.
        :param direct: call `consumer` in gevent's hub, where it must not block: the shortest way.
        :returns: the consumer tag.
        :raises NotFound: the queue does not exist.
        :raises AccessRefused: another consumer has it exclusively.
        """
        tag = consumer_tag or self.new_tag()
        self.start(
            Consumer(tag, consumer, on_cancel, direct),
            nowait,
            queue=queue,
            no_local=no_local,
            no_ack=no_ack,
            exclusive=exclusive,
            arguments=arguments,
        )
        return tag

    def new_tag(self) -> str:
        """A consumer tag that nobody else on this channel has."""
        return 'amphora.%d.%d' % (self._channel.id, next(self._tags))

    def start(self, consumer: AnyConsumer, nowait: bool, **fields: Any) -> None:
        """Have deliveries handed to a consumer.

        :param fields: of ``basic.consume``.
        """
        fields['consumer_tag'] = consumer.tag
        written = False

        def on_written() -> None:
            nonlocal written
            written = True

        # Registered before it is written: the first delivery may come with the answer.
        self._channel.consumers[consumer.raw_tag] = consumer
        try:
            if nowait:
                self._channel.send(commands.Basic.Consume, nowait=True, **fields)
            else:
                self._channel.call(
                    commands.Basic.Consume,
                    commands.Basic.ConsumeOk,
                    on_written=on_written,
                    # Not before: RabbitMQ 3.10 ends the channel with 541 when a cancel overtakes its consume-ok.
                    on_late=lambda _: gevent.spawn(self._cancel_unwanted, consumer.tag),
                    **fields,
                )
        except BaseException:
            self._channel.consumers.pop(consumer.raw_tag, None)
            consumer.stop()
            if written and not self._channel.closed:
                # Given up, but the broker starts it.
                unwanted = UnwantedConsumer(
                    consumer.tag, None if fields.get('no_ack') else self._channel.acks, self._give_back
                )
                self._channel.consumers[consumer.raw_tag] = unwanted
            raise

    def _cancel_unwanted(self, tag: str) -> None:
        with suppress(Closed):
            self.cancel(tag)

    def _give_back(self, delivery_tag: int) -> None:
        self._channel.acks.settled(delivery_tag)
        with suppress(Closed):  # the broker takes it back by itself
            self.nack(delivery_tag)

    def cancel(self, consumer_tag: str, nowait: bool = False) -> None:
        """End a consumer. What was delivered before the broker's answer is still handed over."""
        channel, raw = self._channel, consumer_tag.encode()
        consumer = channel.consumers.get(raw)

        def end(_: object) -> None:
            # RabbitMQ answers at once for one that it cancels already, and may so before it ends that one.
            if consumer is not None and not channel.awaits_cancel(consumer_tag):
                if channel.consumers.get(raw) is consumer:  # not one that was started since
                    del channel.consumers[raw]
                consumer.stop()

        if nowait:
            # The broker does answer: until then it delivers, and what nobody took would stay unacked.
            channel.ask(commands.Basic.Cancel, commands.Basic.CancelOk, on_answer=end, consumer_tag=consumer_tag)
        else:
            end(channel.call(commands.Basic.Cancel, commands.Basic.CancelOk, on_late=end, consumer_tag=consumer_tag))

    def publish(
        self,
        message: Message,
        exchange: str = '',
        routing_key: str = '',
        mandatory: bool = False,
        wait: bool = False,
    ) -> int:
        """Publish a message.

        Blocks while more is unsent than the connection's high-water mark, and while the broker has blocked the
        connection.

        :param mandatory: have the broker return the message when no queue is bound to the routing key; see
            `Channel.return_listeners`.
        :param wait: block until the broker has confirmed it; the channel must be in confirm mode.
        :returns: the delivery tag that the confirm will name; 0 when the channel is not in confirm mode.
        :raises PublishReturned: ``wait``, and the broker returned it.
        :raises PublishNacked: ``wait``, and the broker refused it.
        :raises ValueError: when it is larger than the broker takes, or cannot be encoded; or ``wait`` without confirm
            mode.
        """
        channel = self._channel
        if wait and channel.confirms is None:
            raise ValueError('wait=True needs a channel in confirm mode: call channel.confirm.select() first')
        channel.connection.wait_writable(channel)
        if not wait:
            return channel.publish(exchange, routing_key, message.properties, message.body, mandatory)
        publication = WaitedPublication(exchange, routing_key, message.properties.get('message_id'))
        tag = channel.publish(exchange, routing_key, message.properties, message.body, mandatory, publication)
        publication.wait()
        return tag

    def get(self, queue: str, no_ack: bool = False) -> Message | None:
        """Take one message off a queue; None when it is empty.

        :param no_ack: False: it must be acked (its `delivery_info.delivery_tag`); True: the broker forgets it at once.
        :raises NotFound: the queue does not exist.
        """

        def on_late(answer: Any) -> None:
            if isinstance(answer, tuple) and not no_ack:
                self._give_back(answer[0].delivery_tag)

        answer = self._channel.call(
            commands.Basic.Get,
            commands.Basic.GetOk,
            commands.Basic.GetEmpty,
            on_late=on_late,
            queue=queue,
            no_ack=no_ack,
        )
        if not isinstance(answer, tuple):
            return None
        message: Message = answer[1]
        return message

    def ack(self, delivery_tag: int, multiple: bool = False) -> None:
        """Say that a delivery is done with; with ``multiple`` all up to it."""
        self._channel.connection.check_thread()
        self._channel.ack(delivery_tag, multiple)

    def nack(self, delivery_tag: int, multiple: bool = False, requeue: bool = True) -> None:
        """Refuse a delivery, or with ``multiple`` all up to it (RabbitMQ's extension).

        :param requeue: True: back to the queue; False: drop it, or dead-letter it where the queue says so.
        """
        self._channel.send(commands.Basic.Nack, delivery_tag=delivery_tag, multiple=multiple, requeue=requeue)

    def reject(self, delivery_tag: int, requeue: bool = True) -> None:
        """Refuse one delivery; `requeue` as in `nack`."""
        self._channel.send(commands.Basic.Reject, delivery_tag=delivery_tag, requeue=requeue)

    def recover(self, requeue: bool = True) -> None:
        """Have everything that is unacked on this channel delivered again. RabbitMQ knows only ``requeue=True``."""
        self._channel.call(commands.Basic.Recover, commands.Basic.RecoverOk, requeue=requeue)


class ConfirmMethods(_Methods):
    """Class confirm (RabbitMQ's extension, https://www.rabbitmq.com/docs/confirms)."""

    def select(self, nowait: bool = False) -> None:
        """From now on the broker confirms each publish of this channel."""
        if nowait:
            self._channel.send(commands.Confirm.Select, nowait=True)
            self._channel.start_confirms()
        else:
            self._channel.call(
                commands.Confirm.Select, commands.Confirm.SelectOk, on_written=self._channel.start_confirms
            )


class TxMethods(_Methods):
    """Class tx: publishes and acks that take effect together."""

    def select(self) -> None:
        """Make the channel transactional.

        :raises PreconditionFailed: the channel is in confirm mode.
        """
        self._channel.call(commands.Tx.Select, commands.Tx.SelectOk)

    def commit(self) -> None:
        """Let everything since the last commit or rollback take effect."""
        self._channel.call(commands.Tx.Commit, commands.Tx.CommitOk)

    def rollback(self) -> None:
        """Drop everything since the last commit or rollback."""
        self._channel.call(commands.Tx.Rollback, commands.Tx.RollbackOk)
