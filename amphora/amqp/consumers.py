"""A consumer of a channel: who is handed the deliveries, and where that runs."""

from __future__ import annotations

import sys
from collections.abc import Callable

import gevent
from gevent import GreenletExit
from gevent.queue import SimpleQueue

from amphora.amqp.listeners import tell
from amphora.amqp.message import Message


class Consumer:
    """Hands deliveries to a function, in their order.

    :param tag: the consumer tag.
    :param callback: called with each `Message`.
    :param on_cancel: called in the hub with the tag when the broker cancels the consumer, for example because the queue
        was deleted (https://www.rabbitmq.com/docs/consumer-cancel).
    :param direct: call `callback` in the hub, where it must not block; otherwise it runs in a greenlet of this
        consumer's own and may.
    """

    __slots__ = ('_callback', '_greenlet', '_on_cancel', '_queue', 'deliver', 'tag')

    def __init__(
        self,
        tag: str,
        callback: Callable[[Message], object],
        on_cancel: Callable[[str], object] | None,
        direct: bool,
    ) -> None:
        self.tag = tag
        self._callback = callback
        self._on_cancel = on_cancel
        self._queue: SimpleQueue[Message | None] | None = None
        self.deliver: Callable[[Message], object] = self._call
        if not direct:
            self._queue = SimpleQueue()
            self.deliver = self._queue.put
            self._greenlet = gevent.spawn(self._run, self._queue)

    def _run(self, queue: SimpleQueue[Message | None]) -> None:
        while (message := queue.get()) is not None:
            self._call(message)

    def _call(self, message: Message) -> None:
        try:
            self._callback(message)
        except GreenletExit:
            raise
        except BaseException:
            # One bad message must not end the consumer, nor the connection it came on; gevent's hub prints the
            # traceback, as for any greenlet.
            gevent.get_hub().handle_error(self._callback, *sys.exc_info())

    def cancelled_by_broker(self) -> None:
        """The broker has ended the consumer; no more deliveries come."""
        self.stop()
        if self._on_cancel is not None:
            tell([self._on_cancel], self.tag)

    def stop(self) -> None:
        """No more deliveries come: the greenlet ends after those that are there."""
        if self._queue is not None:
            self._queue.put(None)
