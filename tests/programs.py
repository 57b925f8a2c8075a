"""Programs that tests run, and whose lines they read as they come."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import gevent
from gevent import subprocess
from gevent.queue import Queue

# How long a program may take for one line, or for its end.
LIMIT = 30


class Program:
    """A running Python program; its lines are read as they come."""

    def __init__(self, path: Path, *args: str, **environ: str) -> None:
        self.name = path.name
        self._process = subprocess.Popen(
            [sys.executable, '-u', str(path), *args],
            cwd=path.parent,
            env={**os.environ, **environ},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self._lines: Queue[str | None] = Queue()
        self._reader = gevent.spawn(self._read)
        self._errors = gevent.spawn(self._process.stderr.read)

    def _read(self) -> None:
        for line in self._process.stdout:
            self._lines.put(line.decode().rstrip('\n'))
        self._lines.put(None)

    def line(self) -> str | None:
        """The next line that it prints; None at the end."""
        with gevent.Timeout(LIMIT, AssertionError(f'{self.name} printed nothing for {LIMIT} s')):
            return self._lines.get()

    def output(self, status: int = 0) -> list[str]:
        """What it prints from now to its end, which must be the one with this status."""
        lines = []
        while (line := self.line()) is not None:
            lines.append(line)
        ended = self._process.wait(timeout=LIMIT)
        assert ended == status, f'{self.name} ended with {ended}:\n{self._errors.get(timeout=LIMIT).decode()}'
        return lines

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        gevent.joinall([self._reader, self._errors])
        self._process.stdout.close()
        self._process.stderr.close()


Start = Callable[..., Program]
