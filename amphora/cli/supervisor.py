"""Keeps worker processes running: starts them, replaces those that crash, restarts and stops them.

Knows nothing of servers or brokers: a worker is a command that reports when it is ready, and stops at SIGTERM. This
process neither patches nor connects.
"""

from __future__ import annotations

import logging
import os
import random
import signal
import socket as stdlib_socket
from collections.abc import Mapping, Sequence
from time import monotonic

import gevent
import msgspec
from gevent import socket, subprocess
from gevent.event import Event

from amphora.cli.report import Report
from amphora.timing import Backoff

logger = logging.getLogger('amphora.serve')

# A worker that has lasted this long was a good one: the next crash is followed by a short delay again. Seconds.
_STABLE = 10.0
# Seconds in which the last report of a worker that has ended is read.
_LAST_WORDS = 1.0
#: seconds before a crashed worker is replaced: at first at most this, then ever longer
FIRST_DELAY = 0.5
#: seconds that it takes at most
LONGEST_DELAY = 30.0


class Worker:
    """One worker process, from its start to its end.

    :param command: what to run; the descriptor that it reports to goes behind it.
    :param options: what goes behind that.
    :param environ: its environment.
    :ivar failure: why it could not serve; None when it has not said so.
    :ivar ready: whether it has ever been ready.
    """

    def __init__(self, command: Sequence[str], options: Sequence[str], environ: Mapping[str, str]) -> None:
        self.failure: str | None = None
        self.ready = False
        self._began = monotonic()
        self._reported = Event()
        mine, its = stdlib_socket.socketpair()
        with its:
            # A session of its own: Ctrl-C in the terminal is for the master, who then stops its workers in order.
            self._process = subprocess.Popen(
                [*command, str(its.fileno()), *options],
                env=environ,
                stdin=subprocess.DEVNULL,
                pass_fds=[its.fileno()],
                start_new_session=True,
            )
        self._socket = socket.socket(fileno=mine.detach())
        self._listener = gevent.spawn(self._listen)

    @property
    def pid(self) -> int:
        """Its process id."""
        return int(self._process.pid)

    @property
    def age(self) -> float:
        """Seconds since its start."""
        return monotonic() - self._began

    def _listen(self) -> None:
        with self._socket, self._socket.makefile('rb') as lines:
            for line in lines:
                self.failure = msgspec.json.decode(line, type=Report).failure
                self.ready = self.failure is None
                self._reported.set()
        self._reported.set()

    def wait_ready(self) -> bool:
        """Block until it is ready, or never will be."""
        self._reported.wait()
        return self.ready

    def wait(self) -> int:
        """Block until it has ended, and give its exit status: negative when a signal has ended it."""
        status = int(self._process.wait())
        # For what it reported just before; not for a process that it has forked and that holds the socket, too.
        self._listener.join(_LAST_WORDS)
        self._listener.kill()
        self._reported.set()
        return status

    def send(self, signum: int) -> None:
        """Send it a signal, unless it has ended."""
        if self._process.poll() is None:
            self._process.send_signal(signum)


def describe_status(status: int) -> str:
    """An exit status in words."""
    return 'ended with %d' % status if status >= 0 else 'was ended by %s' % signal.Signals(-status).name


class Supervisor:
    """Keeps so many workers running until `stop`.

    :param command: what each runs, without the descriptor that is added to it.
    :param options: what goes behind that.
    :param processes: how many.
    :param environ: their environment.
    :ivar failure: why no worker could serve; None unless `run` has given up.
    """

    def __init__(
        self,
        command: Sequence[str],
        options: Sequence[str] = (),
        processes: int = 1,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self.failure: str | None = None
        self._command = command
        self._options = options
        self._environ = environ
        self._count = processes
        # Those that are to run, by place; and all that have not ended, among them those that are being replaced.
        self._workers: list[Worker] = []
        self._alive: set[Worker] = set()
        self._came_up = False
        self._status = 0
        self._stopping = Event()
        self._killed = False
        self._restart_wanted = Event()

    def run(self) -> int:
        """Start the workers, and keep them until `stop`.

        :returns: the exit status: 0 when every worker stopped as it should, else that of one that did not.
        """
        self._workers = [self._start() for _ in range(self._count)]
        restarter = gevent.spawn(self._restart_when_wanted)
        gevent.joinall([gevent.spawn(self._keep, place) for place in range(self._count)])
        restarter.join()
        return self._status

    def restart(self) -> None:
        """Replace the workers, one after the other: the old one is stopped when the new one is ready. Returns at
        once."""
        self._restart_wanted.set()

    def stop(self) -> None:
        """Stop the workers as soon as what they do is done; the second time, at once."""
        if self._stopping.is_set():
            self._killed = True
        else:
            logger.info('stopping; what runs is finished first (a second signal ends it)')
        self._stopping.set()
        self._restart_wanted.set()
        for worker in list(self._alive):
            worker.send(signal.SIGKILL if self._killed else signal.SIGTERM)

    @property
    def killed(self) -> bool:
        """Whether workers were ended at once."""
        return self._killed

    def _start(self) -> Worker:
        worker = Worker(self._command, self._options, self._environ)
        self._alive.add(worker)
        if self._stopping.is_set():
            # Starting it lets others run, and who has told all to stop meanwhile did not know it.
            worker.send(signal.SIGKILL if self._killed else signal.SIGTERM)
        gevent.spawn(self._watch, worker)
        return worker

    def _watch(self, worker: Worker) -> None:
        if worker.wait_ready():
            self._came_up = True
            logger.info('worker %d takes calls', worker.pid)

    def _wait(self, worker: Worker) -> int:
        status = worker.wait()
        self._alive.discard(worker)
        return status

    def _keep(self, place: int) -> None:
        """Have a worker in this place."""
        backoff = Backoff(FIRST_DELAY, cap=LONGEST_DELAY)
        while True:
            worker = self._workers[place]
            status = self._wait(worker)
            if self._stopping.is_set():
                self._note_stopped(worker, status)
                return
            if self._workers[place] is not worker:
                continue
            why = worker.failure or 'it ' + describe_status(status)
            # One that a signal has ended may have been unlucky: out of memory, say.
            if not self._came_up and status >= 0:
                self._give_up(worker.failure or 'a worker ' + describe_status(status), status or 1)
                return
            if worker.age > _STABLE:
                backoff.reset()
            while self._workers[place] is worker:
                delay = backoff.next_delay(random.random())
                logger.error('worker %d: %s; another one starts in %.1f s', worker.pid, why, delay)
                if self._stopping.wait(delay):
                    return
                if self._workers[place] is worker:
                    try:
                        self._workers[place] = self._start()
                    except OSError as error:  # the system has no room for one now, or the interpreter is being replaced
                        why = 'no other could be started: %s' % error

    def _give_up(self, failure: str, status: int) -> None:
        """No worker has ever served, and the next would do no better."""
        self.failure = failure
        self._status = status
        self._stopping.set()
        self._restart_wanted.set()
        for worker in list(self._alive):
            worker.send(signal.SIGTERM)

    def _note_stopped(self, worker: Worker, status: int) -> None:
        # One that had no server yet knows no better than to be ended by the signal.
        if status in (0, -signal.SIGTERM) or self._killed or self.failure is not None:
            return
        logger.error('worker %d %s while it was to stop', worker.pid, describe_status(status))
        self._status = self._status or 1

    def _restart_when_wanted(self) -> None:
        while True:
            self._restart_wanted.wait()
            if self._stopping.is_set():
                return
            self._restart_wanted.clear()
            self._restart_all()

    def _restart_all(self) -> None:
        logger.info('restarting the workers')
        for place in range(self._count):
            if self._stopping.is_set():
                return
            try:
                new = self._start()
            except OSError as error:
                logger.error('no worker could be started: %s; the others go on as they are', error)
                return
            ready = new.wait_ready()
            if self._stopping.is_set() or not ready:
                status = self._wait(new)
                if self._stopping.is_set():
                    self._note_stopped(new, status)
                else:
                    why = new.failure or 'it ' + describe_status(status)
                    logger.error('worker %d: %s; the others go on as they are', new.pid, why)
                return
            old, self._workers[place] = self._workers[place], new
            old.send(signal.SIGTERM)
            status = self._wait(old)
            if self._stopping.is_set():
                self._note_stopped(old, status)
        logger.info('all workers are restarted')
