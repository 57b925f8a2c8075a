"""A consumer of a channel: who is handed the deliveries, and where that runs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import gevent
from gevent import GreenletExit
from gevent.queue import SimpleQueue

from amphora.amqp.acks import Acks
from amphora.amqp.listeners import tell
from amphora.amqp.message import DeliveryInfo, Message

if TYPE_CHECKING:
    from amphora.amqp.channel import Channel

#: gets the channel, a delivery tag, whether the message may have been delivered before, its properties and its body
DeliveryListener = Callable[['Channel', int, bool, dict[str, Any], bytes], object]


class AnyConsumer:
    """Who is handed the deliveries of a consumer tag, in their order.

    :param tag: the consumer tag.
    :param on_cancel: called in the hub with the tag when the broker cancels the consumer, for example because the queue
        was deleted (https://www.rabbitmq.com/docs/consumer-cancel).
    """

    __slots__ = ('_on_cancel', 'raw_tag', 'tag')

    def __init__(self, tag: str, on_cancel: Callable[[str], object] | None) -> None:
        self.tag = tag
        self.raw_tag = tag.encode()
        self._on_cancel = on_cancel

    def deliver(
        self, method: bytes, delivery_tag: int, redelivered: bool, at: int, properties: dict[str, Any], body: bytes
    ) -> None:
        """In the hub: take a delivery.

        :param method: payload of the method that it came with.
        :param at: where the name of the exchange begins in it.
        """
        raise NotImplementedError

    def cancelled_by_broker(self) -> None:
        """The broker has ended the consumer; no more deliveries come."""
        self.stop()
        if self._on_cancel is not None:
            tell([self._on_cancel], self.tag)

    def stop(self) -> None:
        """No more deliveries come."""
        raise NotImplementedError


class DirectConsumer(AnyConsumer):
    """Hands deliveries to a function in the hub, and makes no `Message` of them.

    :param channel: the channel that they come on.
    :param listener: must not block.
    :param acks: those of the channel, when the deliveries are to be acked by them.
    """

    __slots__ = ('_acks', '_channel', '_listener')

    def __init__(
        self,
        tag: str,
        channel: Channel,
        listener: DeliveryListener,
        acks: Acks | None,
        on_cancel: Callable[[str], object] | None,
    ) -> None:
        super().__init__(tag, on_cancel)
        self._channel = channel
        self._listener = listener
        self._acks = acks

    def deliver(
        self, method: bytes, delivery_tag: int, redelivered: bool, at: int, properties: dict[str, Any], body: bytes
    ) -> None:
        """See `AnyConsumer`."""
        if self._acks is not None:
            self._acks.delivered(delivery_tag)
        try:
            self._listener(self._channel, delivery_tag, redelivered, properties, body)
        except GreenletExit:
            raise
        except BaseException:
            _report(self._listener)

    def stop(self) -> None:
        """See `AnyConsumer`."""


class Consumer(AnyConsumer):
    """Hands messages to a function.

    :param callback: called with each `Message`.
    :param direct: call `callback` in the hub, where it must not block; otherwise it runs in a greenlet of this
        consumer's own and may.
    """

    __slots__ = ('_callback', '_queue', '_take')

    def __init__(
        self,
        tag: str,
        callback: Callable[[Message], object],
        on_cancel: Callable[[str], object] | None,
        direct: bool,
    ) -> None:
        super().__init__(tag, on_cancel)
        self._callback = callback
        self._queue: SimpleQueue[Message | None] | None = None
        self._take: Callable[[Message], object] = self._call
        if not direct:
            self._queue = SimpleQueue()
            self._take = self._queue.put
            gevent.spawn(self._run, self._queue)

    def deliver(
        self, method: bytes, delivery_tag: int, redelivered: bool, at: int, properties: dict[str, Any], body: bytes
    ) -> None:
        """See `AnyConsumer`."""
        info = DeliveryInfo(method, self.raw_tag, delivery_tag, redelivered, at)
        self._take(Message.received(body, properties, info))

    def _run(self, queue: SimpleQueue[Message | None]) -> None:
        while (message := queue.get()) is not None:
            self._call(message)
            del message  # it may be large, and the next may be long in coming

    def _call(self, message: Message) -> None:
        try:
            self._callback(message)
        except GreenletExit:
            raise
        except BaseException:
            _report(self._callback)

    def stop(self) -> None:
        """No more deliveries come: the greenlet ends after those that are there."""
        if self._queue is not None:
            self._queue.put(None)


class UnwantedConsumer(AnyConsumer):
    """Stands in for one that was given up while the broker started it, until it is cancelled.

    What comes meanwhile goes back only then: before, it would come again and again, and a quorum queue drops what has
    come too often.

    :param acks: those of the channel; None: deliveries need no ack.
    :param give_back: called with each delivery tag.
    """

    __slots__ = ('_acks', '_give_back', '_taken')

    def __init__(self, tag: str, acks: Acks | None, give_back: Callable[[int], None]) -> None:
        super().__init__(tag, None)
        self._acks = acks
        self._give_back = give_back
        self._taken: list[int] = []

    def deliver(
        self, method: bytes, delivery_tag: int, redelivered: bool, at: int, properties: dict[str, Any], body: bytes
    ) -> None:
        """See `AnyConsumer`."""
        if self._acks is not None:
            self._acks.delivered(delivery_tag)
            self._taken.append(delivery_tag)

    def stop(self) -> None:
        """See `AnyConsumer`."""
        taken, self._taken = self._taken, []
        for delivery_tag in taken:
            self._give_back(delivery_tag)


def _report(callback: Callable[..., object]) -> None:
    # One bad message must not end the consumer, nor the connection it came on; gevent's hub prints the traceback, as
    # for any greenlet.
    gevent.get_hub().handle_error(callback, *sys.exc_info())
