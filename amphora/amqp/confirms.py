"""Which publishes of a channel the broker still owes an answer for.

Source: https://www.rabbitmq.com/docs/confirms; a ``basic.return`` comes before the ``basic.ack`` of the same publish.
"""

from __future__ import annotations

from typing import Protocol

from gevent.event import AsyncResult

from amphora.amqp.errors import PublishNacked, PublishReturned
from amphora.amqp.message import Message, ReturnInfo


class Publication(Protocol):
    """A publish that wants to know what became of it. Everything is called in the hub and must not block."""

    exchange: str
    routing_key: str
    #: set when the broker has returned the message; `settled` follows
    returned: ReturnInfo | None

    @property
    def message_id(self) -> str | None:
        """The message's own id; None when it has none."""

    def settled(self, acked: bool) -> None:
        """The broker has answered: True for ``basic.ack``, False for ``basic.nack``."""

    def lost(self, error: Exception) -> None:
        """The channel ended before the broker's answer: nobody knows whether the message arrived."""


class WaitedPublication:
    """A `Publication` that a greenlet waits for."""

    def __init__(self, exchange: str, routing_key: str, message_id: str | None) -> None:
        self.exchange = exchange
        self.routing_key = routing_key
        self.message_id = message_id
        self.returned: ReturnInfo | None = None
        self._outcome: AsyncResult[None] = AsyncResult()

    def settled(self, acked: bool) -> None:
        """See `Publication`."""
        if self.returned is not None:
            self._outcome.set_exception(PublishReturned(self.returned.code, self.returned.text))
        elif acked:
            self._outcome.set(None)
        else:
            self._outcome.set_exception(PublishNacked('the broker refused the message'))

    def lost(self, error: Exception) -> None:
        """See `Publication`."""
        self._outcome.set_exception(error)

    def wait(self) -> None:
        """Block until the broker has answered.

        :raises PublishFailed: when it returned or refused the message.
        :raises Closed: when the channel or connection ended first; the message may have arrived.
        """
        self._outcome.get()


class Confirms:
    """Publishes by delivery tag, from the moment before they are written until the broker has answered."""

    __slots__ = ('_open', '_published', '_wanted')

    def __init__(self) -> None:
        self._published = 0
        self._open: dict[int, Publication | None] = {}
        # Whether anybody has ever wanted to know.
        self._wanted = False

    def __len__(self) -> int:
        return len(self._open)

    def register(self, publication: Publication | None) -> int:
        """Count a publish that is about to be written; gives its delivery tag. None: nobody wants to know."""
        self._published = tag = self._published + 1
        self._open[tag] = publication
        if publication is not None:
            self._wanted = True
        return tag

    def settle(self, tag: int, multiple: bool, acked: bool) -> None:
        """The broker has answered for one tag, or for all up to it (tag 0: for all)."""
        if not multiple:
            publication = self._open.pop(tag, None)
            if publication is not None:
                publication.settled(acked)
            return
        # Dicts keep the order of insertion, and tags only grow.
        settled = []
        for each in self._open:
            if each > tag > 0:
                break
            settled.append(each)
        for each in settled:
            publication = self._open.pop(each, None)
            if publication is not None:
                publication.settled(acked)

    def mark_returned(self, message: Message) -> None:
        """Find the publish a returned message belongs to, and tell it why: its ack or nack is still to come.

        A return carries no tag. The oldest open publish with the same exchange, routing key and message id is meant;
        where two cannot be told apart by these, both went to the same place.
        """
        info = message.return_info
        assert info is not None
        if not self._wanted:
            return  # to look through all for each that is returned takes long when all are
        message_id = message.properties.get('message_id')
        for publication in self._open.values():
            if (
                publication is not None
                and publication.returned is None
                and publication.message_id == message_id
                and publication.routing_key == info.routing_key
                and publication.exchange == info.exchange
            ):
                publication.returned = info
                return

    def lose(self, error: Exception) -> None:
        """The channel has ended: whoever still waits is told, in the order of publishing."""
        publications = list(self._open.values())
        self._open.clear()
        for publication in publications:
            if publication is not None:
                publication.lost(error)
