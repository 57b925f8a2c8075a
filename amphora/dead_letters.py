"""Dead letters: requests that were set aside, because each delivery came to grief or because a function rejected them.

Knows what a request looks like in the queue of dead letters, and how it becomes a request again; sends nothing.
Properties are those of AMQP.
"""

from __future__ import annotations

from collections.abc import Mapping
from time import time
from typing import Any

from amphora.amqp.fields import field_table
from amphora.amqp.message import headers_of
from amphora.queue_arguments import QueueArguments

#: how many deliveries a request may have before it is set aside
MAX_DELIVERIES = 5

#: header: how many deliveries have come to grief: their server ended, or lost the broker, before it had answered
DELIVERIES = 'x-amphora-deliveries'
#: header: the queue that a dead letter was taken from
QUEUE = 'x-amphora-queue'
#: header: why it was set aside
REASON = 'x-amphora-reason'
#: header: when it was set aside, in seconds since 1970
TIME = 'x-amphora-time'
#: what all headers of amphora's own begin with
PREFIX = 'x-amphora-'
#: header of a quorum queue, which counts what was given back as well
#: (https://www.rabbitmq.com/docs/quorum-queues#poison-message-handling)
DELIVERY_COUNT = 'x-delivery-count'

# RabbitMQ sends a message, and so each copy of it, to the queues that these name as well
# (https://www.rabbitmq.com/docs/sender-selected).
_CARBON_COPIES = ('CC', 'BCC')
# A delivery limit that nobody reaches. RabbitMQ 4 has -1 for that, at which others drop at once.
_NEVER = 2**31 - 1

Properties = Mapping[str, Any]


def dead_queue(service: str) -> str:
    """Name of the queue that holds a service's dead letters."""
    return 'rpc_%s_dead' % service


def dead_queue_arguments(queue_arguments: QueueArguments) -> QueueArguments:
    """What that queue is declared with, for a service whose request queues are declared with certain arguments.

    Whoever looks at dead letters takes them and gives them back. A quorum queue counts that, and RabbitMQ 4 drops what
    has come back 20 times, so its limit must be out of reach; and a queue must not be a quorum queue unnoticed, because
    that is what the virtual host has by default.
    """
    if ('x-queue-type', 'quorum') in queue_arguments:
        return (*queue_arguments, ('x-delivery-limit', _NEVER))
    return (('x-queue-type', 'classic'),)


def bury(properties: Properties, queue: str, deliveries: int, reason: str) -> dict[str, Any]:
    """The properties of a dead letter. It does not expire.

    :param queue: where the request was taken from.
    :param deliveries: how many times it was delivered.
    :param reason: for whoever looks at it.
    """
    # The broker takes a user_id from that user only.
    buried = {name: value for name, value in properties.items() if name not in ('expiration', 'user_id')}
    buried['headers'] = {
        **_senders_headers(properties),
        QUEUE: queue,
        DELIVERIES: deliveries,
        REASON: reason,
        TIME: int(time()),
    }
    return buried


def revive(properties: Properties) -> tuple[str | None, dict[str, Any]]:
    """The queue that a dead letter came from (None: it does not say), and the properties of the request as it was."""
    queue = headers_of(properties).get(QUEUE)
    headers = _senders_headers(properties)
    revived = {name: value for name, value in properties.items() if name != 'headers'}
    if headers:
        revived['headers'] = headers
    return queue if isinstance(queue, str) else None, revived


def headers_to_copy(properties: Properties) -> dict[str, Any]:
    """The headers of a message that its copies may have."""
    return {
        name: value
        for name, value in headers_of(properties).items()
        if name != DELIVERY_COUNT and name not in _CARBON_COPIES and _can_be_sent(name, value)
    }


def _senders_headers(properties: Properties) -> dict[str, Any]:
    return {name: value for name, value in headers_to_copy(properties).items() if not name.startswith(PREFIX)}


def _can_be_sent(name: str, value: Any) -> bool:
    # RabbitMQ passes on what AMQP does not allow, such as a name of 255 bytes.
    try:
        field_table({name: value}, 'the headers')
    except ValueError:
        return False
    return True
