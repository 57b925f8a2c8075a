"""The deliveries of one channel that are not settled yet, by delivery tag.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from amphora.amqp.errors import PreconditionFailed
from amphora.broker.consumer import Consumer
from amphora.broker.queues import Entry, Queue


class Outstanding(NamedTuple):
    """A delivery that somebody owes an ack for."""

    tag: int
    queue: Queue
    entry: Entry
    #: None: it was got, not consumed
    consumer: Consumer | None


class OutstandingDeliveries:
    """What a channel has delivered and nobody has acked."""

    __slots__ = ('_by_tag',)

    def __init__(self) -> None:
        # In the order of the tags, which only grow.
        self._by_tag: dict[int, Outstanding] = {}

    def __len__(self) -> int:
        return len(self._by_tag)

    def add(self, tag: int, queue: Queue, entry: Entry, consumer: Consumer | None) -> None:
        """A delivery has been made."""
        self._by_tag[tag] = Outstanding(tag, queue, entry, consumer)

    def take(self, tag: int, multiple: bool) -> list[Outstanding]:
        """Those that an ack, nack or reject is about; they are outstanding no more.

        :param multiple: all up to the tag; tag 0: all there are.
        :raises PreconditionFailed: there is no such delivery.
        """
        by_tag = self._by_tag
        if multiple and tag == 0:
            return self.take_all()
        if tag not in by_tag:
            raise PreconditionFailed('unknown delivery tag %d' % tag)
        if not multiple:
            return [by_tag.pop(tag)]
        taken = []
        for each in by_tag:
            if each > tag:
                break
            taken.append(each)
        return [by_tag.pop(each) for each in taken]

    def take_all(self) -> list[Outstanding]:
        """All there are."""
        taken = list(self._by_tag.values())
        self._by_tag.clear()
        return taken

    def put_back(self, deliveries: Iterable[Outstanding]) -> None:
        """Undo `take`: a transaction was rolled back."""
        merged = sorted([*self._by_tag.values(), *deliveries], key=lambda each: each.tag)
        self._by_tag = {each.tag: each for each in merged}


def by_queue(deliveries: Iterable[Outstanding]) -> dict[Queue, list[Entry]]:
    """The entries of each queue."""
    queues: dict[Queue, list[Entry]] = {}
    for each in deliveries:
        queues.setdefault(each.queue, []).append(each.entry)
    return queues
