"""asyncio's event loop in a native thread: one for the process, from its first user's first coroutine to its last
user's end.

Knows asyncio and threads; not who waits for a coroutine, nor how.
"""

from __future__ import annotations

import asyncio
import logging
import os
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from contextvars import copy_context
from typing import Any

from gevent import monkey

from amphora.invocation import run_async
from amphora.native_threads import NativeThreads, allocate_lock, start_thread
from amphora.watchdog import watchdog

logger = logging.getLogger('amphora.server')

# Native ones, whether this program is monkey-patched or not.
_Selector = monkey.get_original('selectors', 'DefaultSelector')
_getaddrinfo = monkey.get_original('socket', 'getaddrinfo')
_getnameinfo = monkey.get_original('socket', 'getnameinfo')


class Run:
    """One run of an async function.

    :param name: what clients call the function.
    :param ended: called in the loop's thread at the end, whichever it is.
    :ivar value: what it returned.
    :ivar error: what it raised; None: nothing.
    """

    __slots__ = ('_args', '_ended', '_function', '_kwargs', '_name', '_task', 'error', 'value')

    def __init__(
        self,
        name: str,
        function: Callable[..., Any],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        ended: Callable[[], object],
    ) -> None:
        self._name = name
        self._function = function
        self._args = args
        self._kwargs = kwargs
        self._ended = ended
        self._task: asyncio.Task[None] | None = None
        self.value: Any = None
        self.error: BaseException | None = None

    @property
    def cancelled(self) -> bool:
        """Whether it ended by being cancelled."""
        return isinstance(self.error, asyncio.CancelledError)

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """In the loop's thread: begin."""
        self._task = loop.create_task(self._main())
        self._task.add_done_callback(self._on_done)

    def cancel(self) -> None:
        """In the loop's thread, after `start`: raise CancelledError in it, if it has not ended."""
        if self._task is not None:
            self._task.cancel()

    async def _main(self) -> None:
        try:
            self.value = await run_async(self._name, self._function, self._args, self._kwargs)
        except BaseException as error:  # SystemExit and KeyboardInterrupt would end the loop
            self.error = error

    def _on_done(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():  # before it had begun
            self.error = asyncio.CancelledError()
        # Both know each other.
        self._task = None
        self._ended()


class _Loop(asyncio.SelectorEventLoop):
    """A loop that waits for its sockets and for what blocks in native ways, whatever is patched."""

    def __init__(self) -> None:
        self._threads: NativeThreads | None = NativeThreads()
        super().__init__(_Selector())

    def set_default_executor(self, executor: Any) -> None:
        """See asyncio. A coroutine of the user's has its reasons."""
        super().set_default_executor(executor)
        self._dismiss_threads()

    def run_in_executor(  # type: ignore[override]  # its types need a TypeVarTuple, which Python 3.10 has not
        self, executor: Executor | None, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """See asyncio, whose own threads are greenlets in a patched program, of a hub that never runs."""
        if executor is not None or self._threads is None:
            return super().run_in_executor(executor, func, *args)
        future: asyncio.Future[Any] = self.create_future()

        def settle(value: Any, error: BaseException | None) -> None:
            if future.cancelled():
                return
            if error is None:
                future.set_result(value)
            else:
                future.set_exception(error)

        def work() -> None:
            value, failure = None, None
            try:
                value = func(*args)
            except BaseException as error:
                failure = error
            try:
                self.call_soon_threadsafe(settle, value, failure)
            except RuntimeError:
                pass  # the loop is closed: nobody waits

        self._threads.begin(work)
        return future

    async def getaddrinfo(self, host: Any, port: Any, **how: Any) -> Any:
        """See asyncio."""
        return await self.run_in_executor(None, lambda: _getaddrinfo(host, port, **how))

    async def getnameinfo(self, sockaddr: Any, flags: int = 0) -> Any:
        """See asyncio."""
        return await self.run_in_executor(None, _getnameinfo, sockaddr, flags)

    def close(self) -> None:
        """See asyncio."""
        super().close()
        self._dismiss_threads()

    def _dismiss_threads(self) -> None:
        threads, self._threads = self._threads, None
        if threads is not None:
            threads.dismiss()


class EventLoop:
    """A loop and the native thread that it runs in.

    Returns when it runs, which blocks this thread for less than a millisecond.
    """

    def __init__(self) -> None:
        self._ending = False
        self._loop: _Loop | None = None
        self._failure: BaseException | None = None
        self._made: Any = allocate_lock()
        self._made.acquire()
        start_thread(self._main)
        self._made.acquire()
        if self._failure is not None:
            raise self._failure

    def begin(self, run: Run) -> None:
        """From any thread: start a run, in a copy of the caller's context."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(run.start, self._loop, context=copy_context())

    def cancel(self, run: Run) -> None:
        """From any thread: cancel what was begun; nothing happens to what has ended."""
        self._call(run.cancel)

    def _call(self, callback: Callable[[], object]) -> None:
        """From any thread: have something called in the loop's, unless that has ended."""
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(callback)
        except RuntimeError:
            pass  # the loop has ended, and with it all that ran

    def end(self) -> None:
        """From any thread: cancel what still runs, and end when that has."""
        assert self._loop is not None
        self._ending = True
        self._loop.call_soon_threadsafe(self._loop.stop)

    def _main(self) -> None:
        try:
            loop = self._loop = _Loop()
        except BaseException as error:
            self._failure = error
            return
        finally:
            self._made.release()
        watchdog.watch_loop(self, self._call)
        while not self._ending:
            try:
                loop.run_forever()
            except BaseException:
                logger.exception('a task that an async function has left behind would have ended the event loop')
        try:
            tasks = asyncio.all_tasks(loop)
            for task in tasks:
                task.cancel()
            loop.run_until_complete(_finish(tasks))
            loop.run_until_complete(loop.shutdown_asyncgens())
        except BaseException:
            logger.exception('what async functions have left behind did not end well')
        finally:
            watchdog.unwatch_loop(self)
            loop.close()


async def _finish(tasks: set[asyncio.Task[Any]]) -> None:
    await asyncio.gather(*tasks, return_exceptions=True)


class _Shared:
    """The event loop of this process, while it has users."""

    def __init__(self) -> None:
        # Those of parents, in a forked child: to free one would meddle with what the parent waits for.
        self._abandoned: list[EventLoop] = []
        self._loop: EventLoop | None = None
        self._reset()

    def _reset(self) -> None:
        self._lock: Any = allocate_lock()
        self._users: weakref.WeakSet[object] = weakref.WeakSet()
        if self._loop is not None:
            self._abandoned.append(self._loop)
            self._loop = None

    def use(self, user: object) -> EventLoop:
        """The loop, for a user that will `leave`."""
        with self._lock:
            self._users.add(user)
            if self._loop is None:
                self._loop = EventLoop()
            return self._loop

    def leave(self, user: object) -> None:
        """Use it no more; with the last user it ends."""
        with self._lock:
            self._users.discard(user)
            if self._users or self._loop is None:
                return
            loop, self._loop = self._loop, None
        loop.end()


#: the one of this process
event_loop = _Shared()

# The thread does not exist in a forked child, and the lock may have been held: the child starts afresh.
os.register_at_fork(after_in_child=event_loop._reset)
