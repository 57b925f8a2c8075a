"""From a message to its queues: through exchanges bound to each other, past alternates, and after its death.

Pure. Sources: https://www.rabbitmq.com/docs/e2e, /docs/ae, /docs/sender-selected, /docs/dlx, /docs/direct-reply-to.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import cast

from amphora.broker.exchanges import Exchange
from amphora.broker.queues import Queue
from amphora.broker.stored import StoredMessage

#: where a client consumes to get replies without a queue; with a dot and a token behind it, where they are sent
REPLY_TO = 'amq.rabbitmq.reply-to'


class Router:
    """Puts messages into queues.

    :param exchanges: of the virtual host, by name.
    :param reply_consumers: direct reply-to: full name -> whoever is handed the replies.
    :param watch: called with a queue whose next deadline may have changed.
    :param wall_clock: the time of day, for dead letters.
    """

    def __init__(
        self,
        exchanges: Mapping[str, Exchange],
        reply_consumers: Mapping[str, Callable[[StoredMessage], None]],
        watch: Callable[[Queue], None],
        wall_clock: Callable[[], datetime],
    ) -> None:
        self._exchanges = exchanges
        self._reply_consumers = reply_consumers
        self._watch = watch
        self._wall_clock = wall_clock
        # Dead letters that are still to be routed: one may cause the next, and must not do so from within a queue.
        self._dead: deque[tuple[Queue, StoredMessage, str]] = deque()
        self._burying = False

    def publish(self, exchange: Exchange, message: StoredMessage, now: float) -> tuple[bool, bool]:
        """Put a message into the queues it is for.

        :param exchange: the one it was published to.
        :returns: whether there is any, and whether all of them took it.
        """
        if not message.exchange and self._reply_consumers:
            for key in dict.fromkeys(message.routing_keys):
                # Delivered or not, it counts as not routed (https://www.rabbitmq.com/docs/direct-reply-to#limitations).
                if (consumer := self._reply_consumers.get(key)) is not None:
                    consumer(message.without_bcc())
        return self._enqueue(message, self.route(exchange, message), now)

    def _enqueue(self, message: StoredMessage, queues: Iterable[Queue], now: float) -> tuple[bool, bool]:
        routed, taken = False, True
        visible = message.without_bcc()
        for queue in queues:
            routed = True
            if not queue.publish(visible, now):
                taken = False
            if queue.timed or self._dead:
                self.settle(queue, now)
        visible.forget_properties()
        return routed, taken

    def route(self, exchange: Exchange, message: StoredMessage) -> Iterable[Queue]:
        """The queues a message is for, each once."""
        headers = message.headers
        queues: dict[Queue, None] = {}
        seen = {exchange}
        pending = [exchange]
        keys = message.routing_keys
        while pending:
            source = pending.pop()
            matched = False
            for key in keys:
                for destination in source.match(key, headers):
                    matched = True
                    if isinstance(destination, Queue):
                        queues[destination] = None
                    elif destination not in seen:
                        # Exchanges may be bound in a circle: each is passed once.
                        seen.add(cast(Exchange, destination))
                        pending.append(cast(Exchange, destination))
            if not matched and source.alternate is not None:
                alternate = self._exchanges.get(source.alternate)
                if alternate is not None and alternate not in seen:
                    seen.add(alternate)
                    pending.append(alternate)
        return queues

    def settle(self, queue: Queue, now: float) -> None:
        """To be called after anything that may have changed a queue's head or let a message die."""
        if self._dead:
            self._route_dead(now)
        if queue.timed and not queue.deleted:
            self._watch(queue)

    # -- dead letters --------------------------------------------------------------------------------------------------

    def died(self, queue: Queue, message: StoredMessage, reason: str) -> None:
        """A message has died in a queue; `settle` buries it."""
        if queue.options.dead_letter_exchange is not None:
            self._dead.append((queue, message, reason))

    def _route_dead(self, now: float) -> None:
        if self._burying:
            return
        self._burying = True
        try:
            while self._dead:
                queue, message, reason = self._dead.popleft()
                self._route_dead_letter(queue, message, reason, now)
        finally:
            self._burying = False

    def _route_dead_letter(self, queue: Queue, message: StoredMessage, reason: str, now: float) -> None:
        options = queue.options
        assert options.dead_letter_exchange is not None
        exchange = self._exchanges.get(options.dead_letter_exchange)
        if exchange is None:
            return
        letter = message.died(
            queue.name,
            reason,
            options.dead_letter_exchange,
            options.dead_letter_routing_key,
            self._wall_clock(),
        )
        queues: Iterable[Queue] = self.route(exchange, letter)
        if reason != 'rejected':
            queues = [each for each in queues if not letter.has_cycled(each.name)]
        self._enqueue(letter, queues, now)
