"""Classes exchange and queue on the broker's side: from a method to the virtual host, and its answer.

Source: AMQP 0-9-1, classes exchange and queue; https://www.rabbitmq.com/docs/e2e
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any

from pamqp import base, commands

from amphora.broker.routing import REPLY_TO

if TYPE_CHECKING:
    from amphora.broker.channel import Channel


def _declare_exchange(channel: Channel, asked: Any) -> None:
    channel.vhost.declare_exchange(
        asked.exchange,
        asked.exchange_type,
        asked.passive,
        asked.durable,
        asked.auto_delete,
        asked.internal,
        asked.arguments,
    )
    channel.answer(asked, commands.Exchange.DeclareOk)


def _delete_exchange(channel: Channel, asked: Any) -> None:
    channel.vhost.delete_exchange(asked.exchange, asked.if_unused)
    channel.answer(asked, commands.Exchange.DeleteOk)


def _bind_exchange(channel: Channel, asked: Any) -> None:
    channel.vhost.bind_exchange(asked.destination, asked.source, asked.routing_key, asked.arguments or {})
    channel.answer(asked, commands.Exchange.BindOk)


def _unbind_exchange(channel: Channel, asked: Any) -> None:
    channel.vhost.unbind_exchange(asked.destination, asked.source, asked.routing_key, asked.arguments or {})
    channel.answer(asked, commands.Exchange.UnbindOk)


def _declare_queue(channel: Channel, asked: Any) -> None:
    if asked.queue == REPLY_TO or asked.queue in channel.vhost.reply_consumers:
        # Not a queue, but a client may look whether somebody still waits for its reply.
        channel.answer(asked, commands.Queue.DeclareOk, queue=asked.queue, message_count=0, consumer_count=1)
        return
    queue = channel.vhost.declare_queue(
        asked.queue,
        channel.connection,
        monotonic(),
        asked.passive,
        asked.durable,
        asked.exclusive,
        asked.auto_delete,
        asked.arguments,
    )
    channel.last_queue = queue.name
    channel.answer(
        asked,
        commands.Queue.DeclareOk,
        queue=queue.name,
        message_count=queue.ready,
        consumer_count=len(queue.consumers),
    )


def _bind_queue(channel: Channel, asked: Any) -> None:
    name = channel.queue_name(asked.queue)
    # Both empty: the queue's own name is meant (AMQP 0-9-1, queue.bind).
    routing_key = asked.routing_key if asked.routing_key or asked.queue else name
    channel.vhost.bind_queue(name, asked.exchange, routing_key, asked.arguments or {}, channel.connection)
    channel.answer(asked, commands.Queue.BindOk)


def _unbind_queue(channel: Channel, asked: Any) -> None:
    name = channel.queue_name(asked.queue)
    routing_key = asked.routing_key if asked.routing_key or asked.queue else name
    channel.vhost.unbind_queue(name, asked.exchange, routing_key, asked.arguments or {}, channel.connection)
    channel.answer(asked, commands.Queue.UnbindOk)


def _purge_queue(channel: Channel, asked: Any) -> None:
    queue = channel.vhost.queue(channel.queue_name(asked.queue), channel.connection)
    channel.answer(asked, commands.Queue.PurgeOk, message_count=queue.purge())


def _delete_queue(channel: Channel, asked: Any) -> None:
    name = channel.queue_name(asked.queue)
    count = channel.vhost.delete_queue(name, channel.connection, asked.if_unused, asked.if_empty)
    channel.answer(asked, commands.Queue.DeleteOk, message_count=count)


#: method -> what it does on a channel
HANDLERS: dict[type[base.Frame], Callable[[Channel, Any], None]] = {
    commands.Exchange.Declare: _declare_exchange,
    commands.Exchange.Delete: _delete_exchange,
    commands.Exchange.Bind: _bind_exchange,
    commands.Exchange.Unbind: _unbind_exchange,
    commands.Queue.Declare: _declare_queue,
    commands.Queue.Bind: _bind_queue,
    commands.Queue.Unbind: _unbind_queue,
    commands.Queue.Purge: _purge_queue,
    commands.Queue.Delete: _delete_queue,
}
