"""Sees when a Python file below the working directory changes."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import gevent

from amphora.cli.common import USAGE, Failure

logger = logging.getLogger('amphora.serve')

# How long the native thread looks before it can be told to stop, in milliseconds.
_TURN = 500


class Reloader:
    """Calls a function after each change of a Python file.

    :param directory: where, with everything below it.
    :param on_change: called in a greenlet.
    :raises Failure: the package that does the watching is not installed.
    """

    def __init__(self, directory: str, on_change: Callable[[], None]) -> None:
        try:
            import watchfiles
        except ImportError:
            raise Failure("--reload needs the package watchfiles: pip install 'amphora[reload]'", USAGE) from None
        self._directory = directory
        self._on_change = on_change
        # A thread's event: watching happens in a native thread.
        self._stopped = threading.Event()
        self._changes = watchfiles.watch(
            directory,
            watch_filter=watchfiles.PythonFilter(),
            stop_event=self._stopped,
            raise_interrupt=False,
            # An empty set now and then: the first says that watching has begun, and between two it can be stopped.
            yield_on_timeout=True,
            rust_timeout=_TURN,
        )
        self._greenlet = gevent.spawn(self._run)

    def stop(self) -> None:
        """Watch no more."""
        self._stopped.set()
        self._greenlet.join()

    def _run(self) -> None:
        pool = gevent.get_hub().threadpool
        watching = False
        while True:
            changes = pool.spawn(next, self._changes, None).get()
            if changes is None:
                return
            if not watching:
                watching = True
                logger.info('watching the Python files below %s', self._directory)
            if changes:
                logger.info('changed: %s', ', '.join(sorted(path for _, path in changes)))
                self._on_change()
