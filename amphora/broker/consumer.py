"""A consumer as a queue sees it: whether it can take one more message, and who is handed it.

Pure. Source: https://www.rabbitmq.com/docs/consumers, https://www.rabbitmq.com/docs/consumer-prefetch
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from amphora.broker.queues import Entry, Queue


class Credit:
    """How many unacked deliveries something may have, and has.

    :ivar limit: 0: as many as there are.
    """

    __slots__ = ('limit', 'used')

    def __init__(self, limit: int = 0) -> None:
        self.limit = limit
        self.used = 0

    @property
    def left(self) -> bool:
        """Whether there may be one more."""
        return not self.limit or self.used < self.limit


class Gate:
    """Whether messages may flow to a connection: closed while it does not read what it was sent.

    :ivar open: asked before each delivery.
    """

    __slots__ = ('open',)

    def __init__(self) -> None:
        self.open = True


class Consumer:
    """Somebody a queue's messages go to.

    :param tag: the consumer tag, unique on its channel.
    :param deliver: called with the consumer and an `Entry`; must not call back into the queue.
    :param on_cancel: called with the consumer when its queue is deleted.
    :param no_ack: deliveries count as acked when they are made.
    :param exclusive: the queue's only consumer.
    :param prefetch: unacked deliveries it may have; 0: no limit of its own.
    :param channel_credit: the limit it shares with the other consumers of its channel.
    :param gate: of its connection.
    :param arguments: ``x-priority``: consumers of a higher one are served first.

    :ivar queue: the queue it is a consumer of.
    :ivar waiting: whether the queue has found it without room, and passes it by until it is told otherwise.
    """

    __slots__ = (
        'channel_credit',
        'credit',
        'deliver',
        'exclusive',
        'gate',
        'no_ack',
        'on_cancel',
        'priority',
        'queue',
        'tag',
        'waiting',
    )

    def __init__(
        self,
        tag: str,
        deliver: Callable[[Consumer, Entry], None],
        on_cancel: Callable[[Consumer], None],
        no_ack: bool = False,
        exclusive: bool = False,
        prefetch: int = 0,
        channel_credit: Credit | None = None,
        gate: Gate | None = None,
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        self.tag = tag
        self.deliver = deliver
        self.on_cancel = on_cancel
        self.no_ack = no_ack
        self.exclusive = exclusive
        self.credit = Credit(prefetch)
        self.channel_credit = channel_credit or Credit()
        self.gate = gate or Gate()
        self.priority: int = (arguments or {}).get('x-priority', 0)
        self.queue: Queue | None = None
        self.waiting = False

    def __repr__(self) -> str:
        return '<Consumer %s>' % self.tag

    @property
    def has_room(self) -> bool:
        """Whether it can take one more delivery now."""
        if not self.gate.open:
            return False
        return self.no_ack or (self.credit.left and self.channel_credit.left)

    def lend(self) -> None:
        """It has one more unacked delivery."""
        self.credit.used += 1
        self.channel_credit.used += 1

    def give_back(self) -> None:
        """It has one unacked delivery less."""
        self.credit.used -= 1
        self.channel_credit.used -= 1
