"""Worker greenlets: each runs one request after the other, and is switched to straight from the hub.

Knows greenlets and contexts; not what a request is.
"""

from __future__ import annotations

import sys
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
        self._idle: list[greenlet] = []
        self._busy: set[greenlet] = set()

    def __len__(self) -> int:
        """How many have a task."""
        return len(self._busy)

    def __contains__(self, each: object) -> bool:
        """Whether a greenlet is one of these, and has a task."""
        return each in self._busy

    def begin(self, work: Callable[[Any], None], task: Any) -> None:
        """Begin a task now; returns when it first waits for something, or has ended. Only in the hub.

        :param work: what to do with the task; runs in a `contextvars` context of the task's own.
        """
        worker = self._idle.pop() if self._idle else greenlet(self._run, self._hub)
        self._busy.add(worker)
        worker.switch([work, task])

    def dismiss(self) -> None:
        """Let those without a task go."""
        for worker in list(self._idle):
            # From the loop: who throws into a greenlet that ends would not be switched back to.
            self._hub.loop.run_callback(worker.throw, GreenletExit)

    def _run(self, given: list[Any]) -> None:
        worker = getcurrent()
        while True:
            work, task = given
            # A greenlet's arguments live as long as it does, and the first task and its body shall not.
            given.clear()
            try:
                Context().run(work, task)
            except BaseException:
                # Ctrl-C reaches the main greenlet this way; anything else is printed, as for any greenlet.
                self._hub.handle_error(self, *sys.exc_info())
            self._busy.discard(worker)
            del task  # and with it the request's body
            if len(self._idle) >= self._keep:
                return
            self._idle.append(worker)
            try:
                given = _switch(self._hub)
            except BaseException as error:
                # Dismissed; or a gevent.Timeout came that a function had started and left behind.
                if worker in self._idle:
                    self._idle.remove(worker)
                logger.debug('an idle worker ends: %r', error)
                return
