"""A contender's server or client as a process of its own: what it says, and what it costs."""

from __future__ import annotations

import ctypes
import os
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import gevent
from gevent import subprocess

ROOT = Path(__file__).parent.parent.parent

# Of Linux's prctl: the signal that a process gets when the one that has started it ends.
_SET_PARENT_DEATH_SIGNAL = 1

_libc = ctypes.CDLL(None, use_errno=True)


class Failed(Exception):
    """A process did not do what it was started for; the text is what it said last."""


@contextmanager
def running(command: Sequence[str]) -> Iterator[Process]:
    """Start a process in the root of the checkout, and kill it and what it has started at the end of the block."""
    with tempfile.TemporaryFile() as errors:
        process = Process(command, errors)
        try:
            yield process
        finally:
            process.kill()


class Process:
    """A process that says what it does line by line; see `running`.

    :param errors: the file for what it says beside that.
    """

    def __init__(self, command: Sequence[str], errors: IO[bytes]) -> None:
        self._errors = errors
        self._process = subprocess.Popen(
            list(command),
            cwd=ROOT,
            env={**os.environ, 'PYTHONWARNINGS': 'ignore'},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
            # However the harness ends, nothing that it has started goes on using the CPU.
            preexec_fn=lambda: _libc.prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL),
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def line(self, limit: float) -> str:
        """The next line that it says.

        :param limit: seconds to wait for it.
        :raises Failed: there is none.
        """
        with gevent.Timeout(limit, False):
            line = self._process.stdout.readline().decode()
            if line:
                return line.strip()
            self._process.wait()
            raise Failed(self._last_words())
        raise Failed(f'nothing happened for {limit:g} s')

    def expect(self, word: str, limit: float) -> str:
        """The next line that begins so.

        :raises Failed: there is none.
        """
        while True:
            line = self.line(limit)
            if line.startswith(word):
                return line

    def _last_words(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().decode(errors='replace').strip().splitlines()
        return lines[-1].strip() if lines else f'it ended with {self._process.returncode}'

    def interrupt(self, limit: float) -> None:
        """Send it Ctrl-C, and wait for its end.

        :raises Failed: it does not end.
        """
        self._process.send_signal(signal.SIGINT)
        self.wait(limit)

    def wait(self, limit: float) -> None:
        """Wait for its end.

        :raises Failed: it does not end.
        """
        try:
            self._process.wait(timeout=limit)
        except subprocess.TimeoutExpired:
            raise Failed(f'it does not end within {limit:g} s') from None

    def kill(self) -> None:
        """End it at once, and what it has started."""
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._process.wait()
        self._process.stdout.close()


def cpu_seconds(pid: int) -> float:
    """What all threads of a process have computed so far, user and system, in seconds."""
    clock = ctypes.c_int()
    if _libc.clock_getcpuclockid(pid, ctypes.byref(clock)):
        raise Failed(f'process {pid} has ended')
    return time.clock_gettime(clock.value)


def memory_bytes(pid: int) -> int:
    """What a process has in memory and shares with nobody, in bytes."""
    lines = Path(f'/proc/{pid}/smaps_rollup').read_text().splitlines()
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith('Private_'))
