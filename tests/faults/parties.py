"""Limits that the faults share, and a server in a process of its own."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from typing import Any

import gevent
from gevent import subprocess
from greenlet import greenlet

from tests.ledger import Ledger
from tests.waiting import eventually

# Seconds; the product's own default is ten.
HEARTBEAT = 1
# Reconnecting takes at most so long once the port is open.
RECONNECT = 3
# The largest body that the broker takes, in bytes: less than what amphora takes it for.
BROKER_LIMIT = 1_000_000


#: makes ledgers, `ledger_of(client, timeout)`
Ledgers = Callable[..., Ledger]


class ServerProcess:
    """A `doubling_server` in a process of its own.

    :ivar begun: the numbers whose doubling has begun.
    :ivar done: the numbers that were doubled.
    :ivar stderr: the lines that it has logged.
    """

    def __init__(self, process: subprocess.Popen) -> None:
        self.begun: list[int] = []
        self.done: list[int] = []
        self.stderr: list[str] = []
        self._up = False
        self.process = process
        self._readers = [gevent.spawn(self._read), gevent.spawn(self._read_log)]
        eventually(lambda: self._up, 20)

    def _read(self) -> None:
        for line in self.process.stdout:
            word, *numbers = line.split()
            if word == 'up':
                self._up = True
            elif word in ('began', 'done'):
                (self.begun if word == 'began' else self.done).extend(map(int, numbers))

    def _read_log(self) -> None:
        for line in self.process.stderr:
            self.stderr.append(line.rstrip())

    def forget(self) -> None:
        """Begin anew with what it has done and logged, before that takes much memory here."""
        for each in (self.begun, self.done, self.stderr):
            each.clear()

    def wait(self) -> int:
        """Wait until it has ended; gives its exit status."""
        return self._join()

    def kill(self) -> None:
        self.process.kill()
        self._join()

    def terminate(self) -> int:
        """End it with SIGTERM; gives its exit status."""
        self.process.terminate()
        return self._join()

    def _join(self) -> int:
        status: int = self.process.wait(timeout=10)
        gevent.joinall(self._readers, timeout=5)
        self.process.stdout.close()
        self.process.stderr.close()
        return status


def connections(*parties: Any) -> list[Any]:
    """The two connections of each, None for one that is not there."""
    return [session.connection for each in parties for session in (each._publishing, each._consuming)]


def connected(*parties: Any) -> bool:
    return None not in connections(*parties)


def living_greenlets() -> int:
    """How many greenlets of this process have begun and not ended."""
    gc.collect()
    return sum(bool(each) for each in gc.get_objects() if isinstance(each, greenlet))


def open_descriptors() -> int:
    """How many files and sockets this process has open."""
    return len(os.listdir('/proc/self/fd'))
