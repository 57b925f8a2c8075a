"""Native threads, also in a program that gevent has monkey-patched: there, the standard library's are greenlets.

Knows nothing of what runs in them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import gevent
from gevent import monkey

allocate_lock = monkey.get_original('_thread', 'allocate_lock')
get_ident = monkey.get_original('_thread', 'get_ident')
_SimpleQueue = monkey.get_original('queue', 'SimpleQueue')
_start_new_thread = monkey.get_original('_thread', 'start_new_thread')


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
