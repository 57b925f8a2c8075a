"""Says which function holds the hub: while it does, no other request, timer or heartbeat check of this thread runs. And
which async function holds the event loop: while it does, no other async function runs.

A native thread pings both and looks, when there is no answer, at what their thread is doing. It changes nothing.
"""

from __future__ import annotations

import logging
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from types import FrameType
from typing import Any

import gevent

from amphora.invocation import running
from amphora.native_threads import allocate_lock, at_thread_end, get_ident, sleep, start_thread

logger = logging.getLogger('amphora.watchdog')

#: seconds for which hub or event loop may be held before it is worth a line; the next line comes when they have doubled
LIMIT = 1.0
# How often they are pinged, in seconds.
_INTERVAL = 0.25


class _Watched(ABC):
    """What is pinged; made in the thread in which it answers.

    :param name: what the log calls it.
    :param others: what cannot run while it is held.
    """

    def __init__(self, name: str, others: str) -> None:
        self._name = name
        self._others = others
        self._thread = get_ident()
        self._pinged: float | None = None
        self._limit = LIMIT
        # For how long it was held, until the native thread has said so.
        self._was_held: float | None = None

    @abstractmethod
    def _ping(self) -> None:
        """In the native thread: have `_answer` called in the other."""

    def _answer(self) -> None:
        """In its own thread: it is not held."""
        pinged, self._pinged = self._pinged, None
        if self._limit > LIMIT and pinged is not None:
            # Not logged here: no handler of the log may wait in a hub.
            self._was_held = monotonic() - pinged
        self._limit = LIMIT

    def look(self) -> str | None:
        """In the native thread: ping it, or say what holds it."""
        if self._pinged is None:
            self._pinged = monotonic()
            self._ping()
            was_held, self._was_held = self._was_held, None
            return None if was_held is None else 'the %s is free again after %.1f s' % (self._name, was_held)
        held = monotonic() - self._pinged
        if held < self._limit:
            return None
        self._limit = 2 * held
        holder = _describe(sys._current_frames().get(self._thread))
        return '%s has held the %s for %.1f s, and %s runs meanwhile' % (holder, self._name, held, self._others)


class _Hub(_Watched):
    """A thread's hub, as long as it has users."""

    def __init__(self) -> None:
        super().__init__('hub', 'nothing else')
        self.users = 0
        # Not referenced by the loop: it keeps no program from ending.
        self._watcher = gevent.get_hub().loop.async_(ref=False)
        self._watcher.start(self._answer)

    def _ping(self) -> None:
        # Its thread may have destroyed the loop, and be about to end.
        with suppress(ValueError):
            self._watcher.send()

    def close(self) -> None:
        """It is pinged no more."""
        self._watcher.stop()
        self._watcher.close()


class _Loop(_Watched):
    """An event loop of asyncio.

    :param call: from any thread: have something called in the loop's.
    """

    def __init__(self, call: Callable[[Callable[[], object]], object]) -> None:
        super().__init__('event loop', 'no other async function')
        self._call = call

    def _ping(self) -> None:
        self._call(self._answer)


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
    """Watches hubs and event loops, each as long as somebody wants it."""

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._lock: Any = allocate_lock()
        self._hubs: dict[Any, _Hub] = {}
        self._loops: dict[object, _Loop] = {}
        self._running = False

    def watch(self) -> None:
        """Watch this thread's hub from now on."""
        hub = gevent.get_hub()
        with self._lock:
            if hub not in self._hubs:
                self._hubs[hub] = _Hub()
                at_thread_end(self._hubs[hub], self._forget)
            self._hubs[hub].users += 1
            self._start()

    def unwatch(self) -> None:
        """Undo one `watch`."""
        hub = gevent.get_hub()
        with self._lock:
            watched = self._hubs.get(hub)
            if watched is not None:
                watched.users -= 1
                if not watched.users:
                    del self._hubs[hub]
                    watched.close()

    def _forget(self, watched: _Hub) -> None:
        # Its thread ends: it will never answer.
        with self._lock:
            self._hubs = {hub: other for hub, other in self._hubs.items() if other is not watched}

    def watch_loop(self, loop: object, call: Callable[[Callable[[], object]], object]) -> None:
        """Watch this thread's event loop from now on.

        :param call: from any thread: have something called in this one.
        """
        with self._lock:
            self._loops[loop] = _Loop(call)
            self._start()

    def unwatch_loop(self, loop: object) -> None:
        """Undo `watch_loop`."""
        with self._lock:
            self._loops.pop(loop, None)

    def _start(self) -> None:
        if not self._running:
            start_thread(self._run)
            self._running = True  # there may be no room for a thread now

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._hubs and not self._loops:
                    self._running = False
                    return
                # Under the lock: a watcher that was closed must not be sent to.
                said = [watched.look() for watched in (*self._hubs.values(), *self._loops.values())]
            # Not under it: a handler of the log may wait for a greenlet of the thread that waits for the lock.
            for text in filter(None, said):
                logger.warning('%s', text)
            sleep(_INTERVAL)


#: the one of this process
watchdog = Watchdog()

# The thread does not exist in a forked child, and the lock may have been held: the child starts afresh.
os.register_at_fork(after_in_child=watchdog._reset)
