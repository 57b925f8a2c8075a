"""Async functions for callers that are greenlets: each waits in the hub, and the coroutine runs elsewhere.

How it runs is `event_loop`'s business. What is thrown into a greenlet that waits (a timeout, a kill) cancels the
coroutine.
"""

from __future__ import annotations

import functools
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gevent
from gevent.hub import Waiter

from amphora.event_loop import Run, event_loop
from amphora.forking import abandoned_at_fork

logger = logging.getLogger('amphora.server')


class _Arrivals:
    """Ends of coroutines on their way from the loop's thread to the hub; all that have come by then in one turn."""

    def __init__(self) -> None:
        self._watcher: Any = gevent.get_hub().loop.async_()
        self._arrived: deque[Waiter[None]] = deque()
        self.expected = 0

    def expect(self) -> None:
        """One more will come: until then the hub has something to wait for."""
        if not self._watcher.active:
            self._watcher.start(self._deliver)
        self.expected += 1

    def bring(self, waiter: Waiter[None]) -> None:
        """From any thread: wake who waits for it."""
        self._arrived.append(waiter)
        self._watcher.send()

    def close(self) -> None:
        self._watcher.stop()
        self._watcher.close()

    def _deliver(self) -> None:
        while self._arrived:
            self.expected -= 1
            self._arrived.popleft().switch(None)
        if not self.expected:
            self._watcher.stop()


class Coroutines:
    """Runs the async functions of one server, whose hub is this thread's."""

    def __init__(self) -> None:
        # From the first call on.
        self._arrivals: _Arrivals | None = None
        _all.add(self)

    def awaited(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        """A function that runs an async function and returns or raises as that does; only its greenlet waits.

        :param name: what clients call it.
        """

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            return self._run(name, function, args, kwargs)

        return call

    def close(self) -> None:
        """Do without the event loop, until the next call: nobody waits any more."""
        event_loop.leave(self)
        arrivals = self._arrivals
        if arrivals is not None and not arrivals.expected:
            self._arrivals = None
            arrivals.close()

    def _run(self, name: str, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        arrivals = self._arrivals
        if arrivals is None:
            arrivals = self._arrivals = _Arrivals()
        waiter: Waiter[None] = Waiter()
        run = Run(name, function, args, kwargs, functools.partial(arrivals.bring, waiter))
        loop = event_loop.use(self)
        arrivals.expect()
        loop.begin(run)
        try:
            waiter.get()
        except BaseException:
            # As in any function, it is up to the coroutine what becomes of this: only its end ends the call.
            loop.cancel(run)
            try:
                waiter.get()
            except BaseException:
                logger.warning('the coroutine of %s was cancelled and is not waited for', name)
                raise
            if run.cancelled:
                run.error = None  # as below
                raise
        # Its traceback leads to the run, and back to this frame: circles that would keep the whole request.
        error, run.error = run.error, None
        if error is None:
            return run.value
        try:
            raise error
        finally:
            del error

    def _abandon(self) -> None:
        """In a forked child: who waits for a coroutine waits in the parent."""
        arrivals, self._arrivals = self._arrivals, None
        if arrivals is not None:
            arrivals.close()


# Those of this process, for a child that it forks.
_all = abandoned_at_fork(Coroutines._abandon)
