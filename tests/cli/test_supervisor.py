"""The master of worker processes: what comes while it starts one, and what when it cannot."""

import os
import signal
from pathlib import Path

import gevent
import pytest

from amphora.cli.supervisor import Supervisor
from tests.cli.conftest import is_alive
from tests.waiting import eventually

# One that can write to any descriptor.
SHELL = '/bin/bash'
# Says at once that it is ready, and serves until a signal ends it.
SERVE = 'echo "{}" >&$0; exec sleep 30'


@pytest.fixture
def interpreter(tmp_path: Path) -> Path:
    """What the workers are started with; it can be taken away."""
    link = tmp_path / 'interpreter'
    link.symlink_to(SHELL)
    return link


@pytest.fixture
def supervisor(interpreter: Path):
    made = Supervisor([str(interpreter), '-c', SERVE], (), 1)
    running = gevent.spawn(made.run)
    eventually(lambda: made._workers and made._workers[0].ready)
    yield made
    made.stop()
    assert running.get(timeout=10) == 0


def test_a_worker_that_cannot_be_replaced_at_once_is_replaced_later(supervisor: Supervisor, interpreter: Path) -> None:
    first = supervisor._workers[0]
    interpreter.unlink()
    os.kill(first.pid, signal.SIGKILL)
    gevent.sleep(1)
    assert supervisor._workers[0] is first

    interpreter.symlink_to(SHELL)

    eventually(lambda: supervisor._workers[0] is not first and supervisor._workers[0].ready, 20)


def test_a_restart_for_which_no_worker_can_be_started_leaves_the_old_ones_and_the_next_one_works(
    supervisor: Supervisor, interpreter: Path
) -> None:
    first = supervisor._workers[0]
    interpreter.unlink()
    supervisor.restart()
    gevent.sleep(0.5)
    assert supervisor._workers[0] is first
    assert is_alive(first.pid)

    interpreter.symlink_to(SHELL)
    supervisor.restart()

    eventually(lambda: supervisor._workers[0] is not first and supervisor._workers[0].ready, 20)


@pytest.mark.parametrize('started', [1, 4])
def test_one_that_is_stopped_while_it_starts_its_workers_stops_them_all(started: int) -> None:
    supervisor = Supervisor([SHELL, '-c', SERVE], (), 8)

    def stop() -> None:
        # In the midst of starting one: that lets others run.
        while len(supervisor._alive) < started:
            gevent.sleep(0)
        supervisor.stop()

    stopping = gevent.spawn(stop)
    running = gevent.spawn(supervisor.run)

    stopping.get(timeout=10)
    assert running.get(timeout=10) == 0
    assert not supervisor._alive
