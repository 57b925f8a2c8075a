"""Exchanges, queues and bindings as data: what a session declares, and declares again after a reconnect.

Knows what was wished for; whether it is there is the broker's to say.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from msgspec import Struct

from amphora.amqp.errors import NotFound
from amphora.checks import check_name
from amphora.queue_arguments import QueueArguments

if TYPE_CHECKING:
    from amphora.amqp import Channel


class Exchange(Struct, frozen=True):
    """An exchange."""

    name: str
    type: str
    durable: bool = True
    auto_delete: bool = False

    def __post_init__(self) -> None:
        check_name(self.name, 'the name of an exchange')

    def declare(self, channel: Channel) -> None:
        """Have it on the broker.

        :raises PreconditionFailed: it exists as something else.
        """
        channel.exchange.declare(self.name, self.type, durable=self.durable, auto_delete=self.auto_delete)

    def __str__(self) -> str:
        return '%s exchange %r' % (self.type, self.name)


class Queue(Struct, frozen=True):
    """A queue.

    :param adopted: one of that name is taken as it is, whatever it was declared with.
    """

    name: str
    arguments: QueueArguments = ()
    durable: bool = True
    auto_delete: bool = False
    adopted: bool = False

    def __post_init__(self) -> None:
        check_name(self.name, 'the name of a queue')

    def declare(self, channel: Channel) -> None:
        """Have it on the broker.

        :raises PreconditionFailed: it exists with other arguments.
        """
        if self.adopted and self._exists(channel):
            return
        channel.queue.declare(
            self.name, durable=self.durable, auto_delete=self.auto_delete, arguments=dict(self.arguments)
        )

    def _exists(self, channel: Channel) -> bool:
        # That it does not would end the channel.
        try:
            with channel.connection.channel() as asking:
                asking.queue.declare(self.name, passive=True)
        except NotFound:
            return False
        return True

    def __str__(self) -> str:
        shown = ' with ' + ', '.join('%s=%r' % pair for pair in self.arguments) if self.arguments else ''
        return 'queue %r%s' % (self.name, shown)


class Binding(Struct, frozen=True):
    """A queue's binding to an exchange."""

    queue: str
    exchange: str
    routing_key: str
    arguments: QueueArguments = ()

    def __post_init__(self) -> None:
        check_name(self.routing_key, 'the routing key of a binding')

    def declare(self, channel: Channel) -> None:
        """Have it on the broker.

        :raises NotFound: the queue or the exchange does not exist.
        """
        channel.queue.bind(self.queue, self.exchange, self.routing_key, arguments=dict(self.arguments))

    def __str__(self) -> str:
        return 'binding of queue %r to exchange %r by %r' % (self.queue, self.exchange, self.routing_key)


Record = Exchange | Queue | Binding


def declare_all(records: Iterable[Record], channel: Channel) -> None:
    """Have records on the broker, one after the other.

    :raises ChannelClosed: the broker refuses one.
    """
    for record in records:
        record.declare(channel)


class Topology:
    """What is to be there, in the order in which it was added.

    :param records: what is essential: nothing works without it.

    It may change while somebody goes through it: they see what was there when they began.
    """

    def __init__(self, records: Iterable[Record] = ()) -> None:
        # Each with whether it is essential.
        self._records: dict[Record, bool] = dict.fromkeys(records, True)

    def __iter__(self) -> Iterator[Record]:
        return iter(list(self._records))

    def __contains__(self, record: Record) -> bool:
        return record in self._records

    def is_essential(self, record: Record) -> bool:
        """Whether nothing works without the record."""
        return self._records.get(record, False)

    def add(self, *records: Record, essential: bool = False) -> None:
        """Wish for more, without which the rest works unless it is essential."""
        for record in records:
            self._records[record] = self._records.get(record, False) or essential

    def binds(self, exchange: str, routing_key: str) -> bool:
        """Whether a queue is to be bound to the exchange by this routing key."""
        return any(
            isinstance(record, Binding) and record.exchange == exchange and record.routing_key == routing_key
            for record in self._records
        )

    def discard(self, *records: Record) -> None:
        """No longer wish for them; nothing happens on the broker."""
        for record in records:
            self._records.pop(record, None)

    def discard_queue(self, name: str) -> None:
        """No longer wish for a queue and its bindings."""
        for record in self:
            if (isinstance(record, Queue) and record.name == name) or (
                isinstance(record, Binding) and record.queue == name
            ):
                self.discard(record)
