"""What queues are declared with, in RabbitMQ's own words."""

from __future__ import annotations

from typing import Any

#: arguments of a queue or a binding, as (name, value) pairs, such as ``('x-expires', 60000)``
QueueArguments = tuple[tuple[str, Any], ...]

#: the most messages that a queue may be limited to
MAX_QUEUE_SIZE = 1_000_000_000


def limits(size: int | None, ttl: float | None) -> QueueArguments:
    """Arguments that limit what waits in a queue.

    :param size: how many messages; one more is refused (https://www.rabbitmq.com/docs/maxlength). None: no limit.
    :param ttl: seconds that each may wait, before it is dropped (https://www.rabbitmq.com/docs/ttl). None: no limit.
    """
    arguments: QueueArguments = ()
    if size is not None:
        arguments += (('x-max-length', size), ('x-overflow', 'reject-publish'))
    if ttl is not None:
        arguments += (('x-message-ttl', int(ttl * 1000)),)
    return arguments
