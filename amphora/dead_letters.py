"""Dead letters: requests that were set aside because each delivery of them ended without an answer.

Knows what a request says of itself when it is sent on, to its own queue or to the queue of dead letters; sends nothing.
Each function takes the AMQP properties of a message and gives new ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from time import time
from typing import Any

#: header: how many deliveries have ended without an answer
DELIVERIES = 'x-amphora-deliveries'
#: header: the queue that a dead letter was taken from
QUEUE = 'x-amphora-queue'
#: header: why it was set aside
REASON = 'x-amphora-reason'
#: header: when it was set aside, in seconds since 1970
TIME = 'x-amphora-time'

# Said by a broker of one delivery, not by the sender of the message.
_DELIVERY_COUNT = 'x-delivery-count'
_OWN = frozenset((DELIVERIES, QUEUE, REASON, TIME, _DELIVERY_COUNT))

Properties = Mapping[str, Any]


def dead_queue(service: str) -> str:
    """Name of the queue that holds a service's dead letters."""
    return 'rpc_%s_dead' % service


def count_deliveries(properties: Properties) -> int:
    """How many deliveries before this one have ended without an answer, as far as the message itself knows.

    A quorum queue counts by itself, in ``x-delivery-count``
    (https://www.rabbitmq.com/docs/quorum-queues#poison-message-handling).
    """
    headers = properties.get('headers') or {}
    counts = (headers.get(name) for name in (DELIVERIES, _DELIVERY_COUNT))
    return sum(count for count in counts if isinstance(count, int) and count > 0)


def bury(properties: Properties, queue: str, deliveries: int, reason: str) -> dict[str, Any]:
    """The properties of a dead letter. It does not expire.

    :param queue: where the request was taken from.
    :param deliveries: how many times it was delivered.
    :param reason: for whoever looks at it.
    """
    buried = {name: value for name, value in properties.items() if name != 'expiration'}
    buried['headers'] = {
        **_other_headers(properties),
        QUEUE: queue,
        DELIVERIES: deliveries,
        REASON: reason,
        TIME: int(time()),
    }
    return buried


def revive(properties: Properties) -> tuple[str | None, dict[str, Any]]:
    """The queue that a dead letter came from (None: it does not say), and the properties of the request as it was."""
    headers = properties.get('headers') or {}
    queue = headers.get(QUEUE)
    revived = {**properties, 'headers': _other_headers(properties)}
    if not revived['headers']:
        del revived['headers']
    return queue if isinstance(queue, str) else None, revived


def _other_headers(properties: Properties) -> dict[str, Any]:
    headers = properties.get('headers') or {}
    return {name: value for name, value in headers.items() if name not in _OWN}
