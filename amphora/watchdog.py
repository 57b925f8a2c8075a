"""Says which function holds the hub: while it does, no other request, timer or heartbeat check of this thread runs.

A native thread pings the hub and looks, when there is no answer, at what the hub's thread is doing. It changes nothing.
"""

from __future__ import annotations

import logging
import os
import sys
from time import monotonic
from types import FrameType
from typing import Any

import gevent
from gevent import monkey

from amphora.invocation import running

logger = logging.getLogger('amphora.watchdog')

#: seconds for which the hub may be held before it is worth a line; the next line comes when they have doubled
LIMIT = 1.0
# How often the hub is pinged, in seconds.
_INTERVAL = 0.25

# Native ones, whether this program is monkey-patched or not.
_allocate_lock = monkey.get_original('_thread', 'allocate_lock')
_get_ident = monkey.get_original('_thread', 'get_ident')
_start_new_thread = monkey.get_original('_thread', 'start_new_thread')
_sleep = monkey.get_original('time', 'sleep')


class _Watched:
    """A hub that is pinged."""

    def __init__(self, hub: Any) -> None:
        self.users = 0
        self._thread = _get_ident()
        self._pinged: float | None = None
        self._limit = LIMIT
        # Not referenced by the loop: it keeps no program from ending.
        self._watcher = hub.loop.async_(ref=False)
        self._watcher.start(self._answer)

    def close(self) -> None:
        self._watcher.stop()
        self._watcher.close()

    def _answer(self) -> None:
        """In the hub: it is not held."""
        pinged, self._pinged = self._pinged, None
        if self._limit > LIMIT and pinged is not None:
            logger.warning('the hub is free again after %.1f s', monotonic() - pinged)
        self._limit = LIMIT

    def look(self) -> None:
        """In the native thread: ping the hub, or say what holds it."""
        if self._pinged is None:
            self._pinged = monotonic()
            self._watcher.send()
            return
        held = monotonic() - self._pinged
        if held >= self._limit:
            self._limit = 2 * held
            logger.warning(
                '%s has held the hub for %.1f s, and nothing else runs meanwhile',
                _describe(sys._current_frames().get(self._thread)),
                held,
            )


def _describe(frame: FrameType | None) -> str:
    """What a thread is doing: the remote function, if it is in one, and the place."""
    if frame is None:
        return 'something'
    place = 'line %d of %s' % (frame.f_lineno, frame.f_code.co_filename)
    name = running(frame)
    if name is not None:
        return 'function %.100r (now in %s, %s)' % (name, frame.f_code.co_name, place)
    return '%s (%s)' % (frame.f_code.co_name, place)


class Watchdog:
    """Watches hubs, each as long as somebody wants it."""

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._lock: Any = _allocate_lock()
        self._watched: dict[Any, _Watched] = {}
        self._running = False

    def watch(self) -> None:
        """Watch this thread's hub from now on."""
        hub = gevent.get_hub()
        with self._lock:
            if hub not in self._watched:
                self._watched[hub] = _Watched(hub)
            self._watched[hub].users += 1
            if not self._running:
                self._running = True
                _start_new_thread(self._run, ())

    def unwatch(self) -> None:
        """Undo one `watch`."""
        hub = gevent.get_hub()
        with self._lock:
            watched = self._watched.get(hub)
            if watched is not None:
                watched.users -= 1
                if not watched.users:
                    del self._watched[hub]
                    watched.close()

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._watched:
                    self._running = False
                    return
                # Under the lock: a watcher that was closed must not be sent to.
                for watched in self._watched.values():
                    watched.look()
            _sleep(_INTERVAL)


#: the one of this process
watchdog = Watchdog()

# The thread does not exist in a forked child, and the lock may have been held: the child starts afresh.
os.register_at_fork(after_in_child=watchdog._reset)
