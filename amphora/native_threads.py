"""Native threads, also in a program that gevent has monkey-patched: there, the standard library's are greenlets.

Knows nothing of what runs in them, nor of what they leave behind.
"""

from __future__ import annotations

import logging
import os
import sys
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

import gevent
from gevent import monkey

allocate_lock = monkey.get_original('_thread', 'allocate_lock')
get_ident = monkey.get_original('_thread', 'get_ident')
sleep = monkey.get_original('time', 'sleep')
_SimpleQueue = monkey.get_original('queue', 'SimpleQueue')
_start_new_thread = monkey.get_original('_thread', 'start_new_thread')
_this_thread = monkey.get_original('_thread', '_local')()

T = TypeVar('T')


class _Estate:
    """What a thread leaves behind. Only its thread keeps it, and so it goes when the thread ends."""

    def __init__(self) -> None:
        self._process = os.getpid()
        self._members: weakref.WeakKeyDictionary[Any, Callable[[Any], object]] = weakref.WeakKeyDictionary()

    def add(self, member: T, close: Callable[[T], object]) -> None:
        self._members[member] = close

    def __del__(self) -> None:
        # In a forked child the parent's other threads end at once, and theirs is the parent's. At the end of a program
        # there is nothing left to close with.
        if not sys.is_finalizing() and os.getpid() == self._process:
            for member, close in list(self._members.items()):
                close(member)


def warn_elsewhere(logger: logging.Logger, text: str) -> None:
    """Log a warning in a thread of its own, if there is room for one: a handler of the log may wait."""
    with suppress(RuntimeError):
        start_thread(lambda: logger.warning('%s', text))


def at_thread_end(member: T, close: Callable[[T], object]) -> None:
    """Have something closed when the thread that runs this ends, for then its hub never runs again.

    :param member: is not kept alive for it.
    :param close: called with the member, in the thread. It must use neither hub nor loop, which may be gone, and wait
        for a moment at most.
    """
    if not hasattr(_this_thread, 'estate'):
        _this_thread.estate = _Estate()
    _this_thread.estate.add(member, close)
    _keep_main_greenlet()


def _keep_main_greenlet() -> None:
    """Have the thread's hub refer to the thread's main greenlet.

    When a thread has ended, greenlet asks the garbage collector who holds the thread's main greenlet. Amid a collection
    that takes the hub away nobody seems to, greenlet (3.5.6) drops the reference that the hub has, and Python crashes.
    Where two references are left, greenlet does not ask.
    """
    main: Any = gevent.getcurrent()
    while main.parent is not None:
        main = main.parent
    hub: Any = gevent.get_hub()
    hub.amphora_main_greenlet = main


def start_thread(function: Callable[[], object]) -> None:
    """Run a function in a native thread of its own, which the end of the program does not wait for."""

    def run() -> None:
        try:
            function()
        finally:
            if monkey.is_module_patched('socket'):
                # Whatever is patched may have made a hub for this thread.
                gevent.get_hub().destroy(destroy_loop=True)

    _start_new_thread(run, ())


class NativeThreads:
    """Native threads for work that blocks, each used again; no more than the standard library's pool would start.

    They are used from one thread.
    """

    def __init__(self) -> None:
        self._tasks: Any = _SimpleQueue()
        self._lock: Any = allocate_lock()
        self._limit = min(32, (os.cpu_count() or 1) + 4)
        self._count = 0
        self._idle = 0

    def begin(self, task: Callable[[], object]) -> None:
        """Do something in one of them, when one is free.

        :param task: must not raise.
        """
        with self._lock:
            if self._idle:
                self._idle -= 1
            elif self._count < self._limit:
                start_thread(self._run)
                self._count += 1
        self._tasks.put(task)

    def dismiss(self) -> None:
        """Let each end when what was begun is done."""
        for _ in range(self._count):
            self._tasks.put(None)

    def _run(self) -> None:
        while (task := self._tasks.get()) is not None:
            task()
            del task  # and what it has given, while this thread waits for the next
            with self._lock:
                self._idle += 1
