"""The command line as a user has it: processes, what they print, and what they end with."""

import fcntl
import os
import pty
import re
import signal
import sys
import termios
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import gevent
import gevent.os
import pytest
from gevent import subprocess

from tests.waiting import eventually

AMPHORA = [sys.executable, '-m', 'amphora']

# How long a command may take, and how long a process may take to say or do something.
COMMAND_LIMIT = 30
LIMIT = 20


class Ended(NamedTuple):
    """What became of a command."""

    status: int
    stdout: str
    stderr: str


def environ(**more: str) -> dict[str, str]:
    """This process's environment, without a broker of the user's own."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith('AMPHORA_')}
    return {**inherited, 'COLUMNS': '100', **more}


Run = Callable[..., Ended]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs ``amphora`` with arguments, to its end."""

    def call(*args: str, **more: str) -> Ended:
        ended = subprocess.run(
            [*AMPHORA, *args],
            cwd=tmp_path,
            env=environ(**more),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            timeout=COMMAND_LIMIT,
        )
        return Ended(ended.returncode, ended.stdout.decode(), ended.stderr.decode())

    return call


class Process:
    """``amphora`` with arguments, as long as it runs; `lines` is what it has said on stderr."""

    def __init__(self, args: tuple[str, ...], cwd: Path, **more: str) -> None:
        self.lines: list[str] = []
        self._process = subprocess.Popen(
            [*AMPHORA, *args], cwd=cwd, env=environ(**more), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        self._reader = gevent.spawn(self._read)

    def _read(self) -> None:
        for line in self._process.stderr:
            self.lines.append(line.decode().rstrip('\n'))

    @property
    def pid(self) -> int:
        return self._process.pid

    def said(self, *words: str) -> list[str]:
        """The lines with these words."""
        return [line for line in self.lines if all(word in line for word in words)]

    def wait_said(self, *words: str, times: int = 1) -> list[str]:
        """Wait until so many lines have these words."""
        return eventually(lambda: len(self.said(*words)) >= times and self.said(*words), LIMIT)

    @property
    def ready(self) -> list[int]:
        """The process ids of all workers that have been ready, in their order."""
        return [int(line.split('worker ')[1].split()[0]) for line in self.said('takes calls')]

    def wait_ready(self, workers: int) -> list[int]:
        """Wait until so many workers have been ready."""
        return eventually(lambda: len(self.ready) >= workers and self.ready, LIMIT)

    def send(self, signum: signal.Signals) -> None:
        self._process.send_signal(signum)

    def wait(self) -> int:
        """Wait for its end; the exit status."""
        status = self._process.wait(timeout=LIMIT)
        self._reader.join(timeout=LIMIT)
        return status

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Starts ``amphora`` with arguments, and ends it with the test."""
    started: list[Process] = []

    def make(*args: str, **more: str) -> Process:
        started.append(Process(args, tmp_path, **more))
        return started[-1]

    yield make
    for process in started:
        process.kill()


def own_terminal() -> None:
    """Make standard input the terminal of a session of one's own: only so does Ctrl-C become a signal."""
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class Terminal:
    """A terminal in which ``amphora`` runs; `shown` is what it shows, without what only moves the cursor."""

    def __init__(self, args: tuple[str, ...], cwd: Path, **more: str) -> None:
        self._text = ''
        self._master, slave = pty.openpty()
        try:
            self._process = subprocess.Popen(
                [*AMPHORA, *args],
                cwd=cwd,
                env=environ(TERM='dumb', INPUTRC='/dev/null', **more),
                stdin=slave,
                stdout=slave,
                stderr=slave,
                preexec_fn=own_terminal,
            )
        finally:
            os.close(slave)
        gevent.os.make_nonblocking(self._master)
        self._reader = gevent.spawn(self._read)

    def _read(self) -> None:
        while True:
            try:
                data = gevent.os.nb_read(self._master, 65536)
            except OSError:  # how a terminal says that everybody has left
                return
            if not data:
                return
            self._text += data.decode()

    @property
    def shown(self) -> str:
        return re.sub(r'\x1b\[\??[\d;]*[a-zA-Z]|\x07|\r', '', self._text)

    def type(self, text: str) -> None:
        gevent.os.nb_write(self._master, text.encode())

    def wait_shown(self, text: str) -> None:
        """Wait for text, and forget everything up to its end."""
        eventually(lambda: text in self.shown, LIMIT)
        self._text = self.shown.partition(text)[2]

    def wait(self) -> int:
        """Wait for the command's end; the exit status."""
        status = self._process.wait(timeout=LIMIT)
        self._reader.join(timeout=LIMIT)
        return status

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._reader.kill()
        os.close(self._master)


@pytest.fixture
def terminal(tmp_path: Path, amqp_url: str) -> Iterator[Callable[..., Terminal]]:
    """Runs ``amphora`` with arguments in a terminal of 80 columns, where it finds the run's broker."""
    opened: list[Terminal] = []

    def make(*args: str) -> Terminal:
        opened.append(Terminal(args, tmp_path, AMPHORA_AMQP_URL=amqp_url))
        return opened[-1]

    yield make
    for each in opened:
        each.close()


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
