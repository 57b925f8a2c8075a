"""Worker greenlets: each runs one request after the other, and is switched to straight from the hub.

Requests that come together run in one of them, one after the other, as long as none waits for anything: a switch to a
greenlet and back for each costs as much as many a function.

Knows greenlets and contexts; not what a request is.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable
from contextvars import Context
from typing import Any

import gevent
from greenlet import GreenletExit, getcurrent, greenlet

from amphora.logs import get_logger

logger = get_logger('amphora.server')

# Without what a hub's own `switch` asks a greenlet for first: these have no such thing.
_switch = greenlet.switch


class Workers:
    """A pool of greenlets that grows with what there is to do.

    :param keep: how many greenlets without a task are kept for the next; 0: each task gets a new greenlet.
    """

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._hub = gevent.get_hub()
        # Tasks that have not begun, each with what to do with it.
        self._waiting: deque[tuple[Callable[[Any], None], Any]] = deque()
        # What the loop has been asked to call, to begin them.
        self._callback: Any = None
        self._idle: list[greenlet] = []
        self._busy: set[greenlet] = set()

    def __len__(self) -> int:
        """How many tasks are there: under way, or about to begin."""
        return len(self._busy) + len(self._waiting)

    def __contains__(self, each: object) -> bool:
        """Whether a greenlet is one of these, and has a task."""
        return each in self._busy

    def begin(self, work: Callable[[Any], None], task: Any) -> None:
        """Begin a task at the end of this turn of the loop.

        :param work: what to do with the task; runs in a `contextvars` context of the task's own.
        """
        self._waiting.append((work, task))
        self.go_on()

    def go_on(self) -> None:
        """Have the loop begin what waits; again, should Ctrl-C have come between the loop and `_begin_all`."""
        # Asked of the callback itself: Ctrl-C may come before the first line of what the loop calls.
        if self._waiting and (self._callback is None or not self._callback.pending):
            self._callback = self._hub.loop.run_callback(self._begin_all)

    def abandon(self) -> None:
        """In a forked child: what has not begun is the parent's."""
        self._waiting.clear()

    def _begin_all(self) -> None:
        """In the hub: returns when all tasks have begun, and wait for something or have ended."""
        try:
            while self._waiting:
                worker = self._idle.pop() if self._idle else greenlet(self._run, self._hub)
                worker.switch()
        finally:
            if self._waiting:
                self._callback = self._hub.loop.run_callback(self._begin_all)

    def dismiss(self) -> None:
        """Let those without a task go."""
        for worker in list(self._idle):
            # From the loop: who throws into a greenlet that ends would not be switched back to.
            self._hub.loop.run_callback(worker.throw, GreenletExit)

    def _run(self) -> None:
        worker = getcurrent()
        while True:
            self._busy.add(worker)
            try:
                self._work()
            finally:
                self._busy.discard(worker)
            if len(self._idle) >= self._keep:
                return
            self._idle.append(worker)
            try:
                _switch(self._hub)
            except BaseException as error:
                # Dismissed; or a gevent.Timeout came that a function had started and left behind.
                if worker in self._idle:
                    self._idle.remove(worker)
                logger.debug('an idle worker ends: %r', error)
                return

    def _work(self) -> None:
        """Run tasks one after the other until none is left to begin; while one waits for something, another worker
        begins the others."""
        while self._waiting:
            work, task = self._waiting.popleft()
            try:
                Context().run(work, task)
            except BaseException:
                # Ctrl-C reaches the main greenlet this way; anything else is printed, as for any greenlet.
                self._hub.handle_error(self, *sys.exc_info())
            if not self._keep:
                return  # one greenlet, one task
