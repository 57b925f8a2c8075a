"""Worker greenlets: each runs one request after the other, and is switched to straight from the hub.

Knows greenlets and contexts; not what a request is.
"""

from __future__ import annotations

import contextvars
import logging
import sys
from collections.abc import Callable
from typing import Any

import gevent
from greenlet import GreenletExit, getcurrent, greenlet

logger = logging.getLogger('amphora.server')


class Workers:
    """A pool of greenlets that grows with what there is to do.

    :param keep: how many greenlets without a task are kept for the next; 0: each task gets a new greenlet.
    """

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._hub = gevent.get_hub()
        # A dict, so that one that ends leaves at once.
        self._idle: dict[greenlet, None] = {}
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
        worker = self._idle.popitem()[0] if self._idle else greenlet(self._run, self._hub)
        self._busy.add(worker)
        worker.switch(work, task)

    def dismiss(self) -> None:
        """Let those without a task go."""
        for worker in list(self._idle):
            # From the loop: who throws into a greenlet that ends would not be switched back to.
            self._hub.loop.run_callback(worker.throw, GreenletExit)

    def _run(self, work: Callable[[Any], None], task: Any) -> None:
        worker = getcurrent()
        while True:
            try:
                contextvars.Context().run(work, task)
            except BaseException:
                # Ctrl-C reaches the main greenlet this way; anything else is printed, as for any greenlet.
                self._hub.handle_error(self, *sys.exc_info())
            self._busy.discard(worker)
            del task  # and with it the request's body
            if len(self._idle) >= self._keep:
                return
            self._idle[worker] = None
            try:
                work, task = self._hub.switch()
            except BaseException as error:
                # Dismissed; or a gevent.Timeout came that a function had started and left behind.
                self._idle.pop(worker, None)
                logger.debug('an idle worker ends: %r', error)
                return
