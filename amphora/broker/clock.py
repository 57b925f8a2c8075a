"""Calls virtual hosts when their queues' deadlines have come: one timer for all of them."""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from itertools import count
from time import monotonic

import gevent

from amphora.broker.queues import Queue
from amphora.broker.vhost import VirtualHost

# So many deadlines may be waited for before it is looked whether that is still of use.
_CLEAN_AT = 64


class Clock:
    """Watches deadlines of queues."""

    def __init__(self) -> None:
        self._loop = gevent.get_hub().loop
        self._timer = self._loop.timer(0)
        self._due: list[tuple[float, int, VirtualHost, Queue]] = []
        # Queues cannot be compared; of two with the same deadline the first is served first.
        self._order = count()
        self._clean_at = _CLEAN_AT

    def watch(self, vhost: VirtualHost, queue: Queue, at: float) -> None:
        """Call `VirtualHost.tick` for a queue when it is time.

        :param at: seconds, of `time.monotonic`.
        """
        if len(self._due) >= self._clean_at:
            self._clean()
        heappush(self._due, (at, next(self._order), vhost, queue))
        if self._due[0][3] is queue:
            self._arm()

    def close(self) -> None:
        """Watch no more."""
        self._due.clear()
        self._timer.close()

    def _clean(self) -> None:
        # A deadline may be weeks away, and its queue deleted a moment after it was made, or given an earlier deadline.
        self._due = [each for each in self._due if not each[3].deleted and each[3].watched_at == each[0]]
        heapify(self._due)
        self._clean_at = max(_CLEAN_AT, 2 * len(self._due))

    def _arm(self) -> None:
        if not self._due:
            self._timer.stop()
            return
        self._timer.close()
        # The loop's own time lags behind while it works: without this the timer would fire too early.
        self._loop.update_now()
        self._timer = self._loop.timer(max(0.0, self._due[0][0] - monotonic()))
        self._timer.start(self._ring)

    def _ring(self) -> None:
        now = monotonic()
        try:
            while self._due and self._due[0][0] <= now:
                _, _, vhost, queue = heappop(self._due)
                vhost.tick(queue, now)
        finally:
            self._arm()
