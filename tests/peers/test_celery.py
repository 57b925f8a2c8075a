"""celery: a worker in a process of its own, with its events, its remote control and results over AMQP."""

import os
import sys

import pytest
from gevent import subprocess

from tests.waiting import eventually

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

CLIENT = """
from celery import group
from tests.peers.celery_app import add, app, flaky
assert add.delay(2, 3).get(timeout=20) == 5
assert group(add.s(n, n) for n in range(20))().get(timeout=20) == [2 * n for n in range(20)]
assert add.apply_async((1, 1), countdown=0.2).get(timeout=20) == 2
assert flaky.delay().get(timeout=20) == 2
assert len(app.control.ping(timeout=2)) == 1
print('done')
"""


@pytest.fixture
def environ(broker):
    return {**os.environ, 'PEERS_BROKER': broker.url}


@pytest.fixture
def worker(environ, tmp_path):
    log = (tmp_path / 'worker.log').open('w+')
    command = [sys.executable, '-m', 'celery', '-A', 'tests.peers.celery_app', 'worker', '-c', '1', '-l', 'INFO', '-E']
    process = subprocess.Popen(command, env=environ, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
    yield process
    process.terminate()
    process.wait()
    log.seek(0)
    sys.stdout.write(log.read())


@pytest.mark.limit(90)
def test_tasks_results_retries_and_remote_control(broker, environ, worker):
    eventually(lambda: any(name.startswith('celery@') for name in broker.queues()), 30)

    done = subprocess.run([sys.executable, '-c', CLIENT], env=environ, cwd=ROOT, stdout=subprocess.PIPE, timeout=60)

    assert done.stdout == b'done\n'
    assert worker.poll() is None
    worker.terminate()
    assert worker.wait(timeout=20) == 0
