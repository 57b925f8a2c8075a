"""amphora serve: workers that start, crash, restart and stop; and calls that nobody loses meanwhile."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import gevent
import pytest

from amphora import AmqpRpcClient
from tests.cli.conftest import Process, Run, is_alive
from tests.rabbitmq import free_ports
from tests.stopwatch import Stopwatch
from tests.waiting import eventually

MODULE = """
import os

import gevent

from amphora import AmqpRpcServer

server = AmqpRpcServer({service!r})


@server.add_function
def add(x, y):
    gevent.sleep(0.002)
    return x + y


@server.add_function
def pid():
    return os.getpid()


@server.add_function
def patched():
    import socket
    from gevent.socket import socket as cooperative

    return socket.socket is cooperative


@server.add_function
def wait(path):
    open(path + '.begun', 'w').close()
    while not os.path.exists(path):
        gevent.sleep(0.01)
    return 'waited'


@server.add_function
def version():
    return 1
"""

CALLERS = 20

Serve = Callable[..., Process]


@pytest.fixture
def module(tmp_path: Path, service: str) -> Path:
    path = tmp_path / 'served.py'
    path.write_text(MODULE.format(service=service))
    return path


@pytest.fixture
def serve(start: Callable[..., Process], module: Path, amqp_url: str) -> Serve:
    """Starts ``amphora serve`` of the module."""

    def make(*options: str, **more: str) -> Process:
        return start('serve', 'served:server', '--url', amqp_url, *options, **more)

    return make


@pytest.fixture
def client(amqp_url: str, service: str) -> Iterator[AmqpRpcClient]:
    made = AmqpRpcClient(service, amqp_url=amqp_url, timeout=30)
    yield made
    made.stop()


class Load:
    """Calls without a pause from many greenlets; `answered` and `failed` count them."""

    def __init__(self, client: AmqpRpcClient) -> None:
        self.answered = 0
        self.failed: list[object] = []
        self._client = client
        self._ending = False
        self._callers = [gevent.spawn(self._call, number) for number in range(CALLERS)]

    def _call(self, number: int) -> None:
        count = 0
        while not self._ending:
            count += 1
            try:
                result = self._client.call.add(number, count)
            except Exception as error:
                self.failed.append(error)
            else:
                if result == number + count:
                    self.answered += 1
                else:
                    self.failed.append(result)

    def wait_answered(self, more: int) -> None:
        """Wait until so many more calls were answered."""
        goal = self.answered + more
        eventually(lambda: self.answered >= goal, 20)

    def end(self) -> None:
        """Begin no more calls, and wait for those under way."""
        self._ending = True
        gevent.joinall(self._callers, timeout=40, raise_error=True)
        assert all(caller.ready() for caller in self._callers)


def test_workers_are_patched_and_end_with_zero_at_sigterm(serve, client):
    process = serve('--processes', '2')
    workers = process.wait_ready(2)

    assert client.call.patched() is True
    assert client.call.pid() in workers
    process.send(signal.SIGTERM)

    assert process.wait() == 0
    assert not any(map(is_alive, workers))


def test_a_function_that_makes_the_server_can_be_named(start, module, amqp_url, client):
    with module.open('a') as file:
        file.write('\n\ndef make():\n    return server\n')
    process = start('serve', 'served:make', AMPHORA_AMQP_URL=amqp_url)

    assert client.call.add(2, 3) == 5
    process.send(signal.SIGINT)

    assert process.wait() == 0


@pytest.mark.limit(120)
def test_no_call_is_lost_by_a_restart_nor_by_handing_over_to_another_serve(serve, client):
    first = serve('--processes', '2')
    before = first.wait_ready(2)
    load = Load(client)
    load.wait_answered(500)

    first.send(signal.SIGHUP)
    first.wait_said('all workers are restarted')
    load.wait_answered(500)
    second = serve('--processes', '2')
    first.send(signal.SIGTERM)
    assert first.wait() == 0
    second.wait_ready(2)
    load.wait_answered(500)
    load.end()

    assert load.failed == []
    assert len(first.ready) == 4
    assert not any(map(is_alive, before))


def test_a_restart_never_leaves_fewer_workers(serve, client):
    process = serve('--processes', '2')
    process.wait_ready(2)

    process.send(signal.SIGHUP)
    process.wait_said('all workers are restarted')

    old, new = process.ready[:2], process.ready[2:]
    assert len(new) == 2
    assert not any(map(is_alive, old))
    assert all(map(is_alive, new))
    assert client.call.pid() in new


@pytest.mark.limit(120)
def test_a_worker_that_is_killed_is_replaced_and_its_calls_are_answered(serve, client):
    process = serve('--processes', '2')
    victim = process.wait_ready(2)[0]
    load = Load(client)
    load.wait_answered(200)

    os.kill(victim, signal.SIGKILL)
    process.wait_said('worker %d: it was ended by SIGKILL; another one starts in' % victim)
    process.wait_ready(3)
    load.wait_answered(200)
    load.end()

    assert load.failed == []


def test_a_call_that_runs_is_finished_before_the_end(serve, client, tmp_path):
    process = serve()
    process.wait_ready(1)
    gate = tmp_path / 'gate'
    waiting = client.defer.wait(str(gate))
    eventually((tmp_path / 'gate.begun').exists, 10)

    process.send(signal.SIGTERM)
    process.wait_said('stopping')
    assert process.running
    gate.touch()

    assert waiting.get(timeout=10) == 'waited'
    assert process.wait() == 0


@pytest.mark.parametrize(('signum', 'status'), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_second_signal_ends_at_once(serve, client, tmp_path, signum, status):
    process = serve()
    (worker,) = process.wait_ready(1)
    client.defer.wait(str(tmp_path / 'never'))
    eventually((tmp_path / 'never.begun').exists, 10)

    process.send(signum)
    process.wait_said('stopping')
    process.send(signum)
    watch = Stopwatch()

    assert process.wait() == status
    assert watch.awake < 2
    assert not is_alive(worker)


def test_workers_stop_when_their_master_is_killed(serve):
    process = serve('--processes', '2')
    workers = process.wait_ready(2)

    process.send(signal.SIGKILL)

    eventually(lambda: not any(map(is_alive, workers)), 10)


def test_workers_start_before_their_broker(start, module, tmp_path):
    process = start('serve', 'served:server', '--url', 'amqp://127.0.0.1:1/')
    process.wait_said('cannot connect to 127.0.0.1:1', 'trying again')

    process.send(signal.SIGTERM)

    assert process.wait() == 0


@pytest.mark.parametrize('processes', ['1', '3'])
def test_a_module_that_does_not_exist_ends_it_with_one_line(run: Run, tmp_path, processes):
    assert run('serve', 'nowhere:server', '--processes', processes) == (
        2,
        '',
        "amphora: cannot load 'nowhere:server': ModuleNotFoundError: No module named 'nowhere'\n",
    )


def test_a_module_that_raises_ends_it_with_one_line(run: Run, tmp_path):
    (tmp_path / 'broken.py').write_text('x = 1\nraise RuntimeError("out of order")\n')

    status, _, stderr = run('serve', 'broken:server', '--processes', '2')

    assert status == 2
    place = tmp_path / 'broken.py'
    assert stderr == f"amphora: cannot load 'broken:server': RuntimeError: out of order ({place}, line 2)\n"


def test_debug_shows_the_traceback(run: Run, tmp_path):
    (tmp_path / 'broken.py').write_text('raise RuntimeError("out of order")\n')

    status, _, stderr = run('serve', 'broken:server', '--debug')

    assert status == 2
    assert 'Traceback (most recent call last):' in stderr


def test_what_is_no_server_is_refused(run: Run, tmp_path):
    (tmp_path / 'served.py').write_text('server = 5\n')

    assert run('serve', 'served:server') == (2, '', "amphora: 'served:server' is no server, but int\n")
    assert run('serve', 'served') == (
        2,
        '',
        "amphora: Invalid value for 'MODULE:SERVER': 'served' is not MODULE:SERVER, as in math_server:server\n",
    )


def test_a_refused_login_ends_it_without_showing_the_password(run: Run, module, rabbit):
    url = f'amqp://guest:not-the-word@{rabbit.host}:{rabbit.port}/'

    status, stdout, stderr = run('serve', 'served:server', '--url', url)

    assert status == 4
    assert 'amphora: the broker refuses: 403 ACCESS_REFUSED' in stderr.splitlines()[-1]
    assert 'not-the-word' not in stdout + stderr


@pytest.mark.limit(90)
def test_a_changed_file_restarts_the_workers_and_a_broken_one_does_not_end_them(serve, module, client):
    process = serve('--reload')
    process.wait_ready(1)
    process.wait_said('watching')
    assert client.call.version() == 1

    source = module.read_text()
    module.write_text(source.replace('return 1', 'return 2'))
    process.wait_said('all workers are restarted')
    assert client.call.version() == 2

    module.write_text('raise RuntimeError("half typed")\n')
    process.wait_said('half typed', 'the others go on as they are')
    assert client.call.version() == 2

    module.write_text(source.replace('return 1', 'return 3'))
    process.wait_said('all workers are restarted', times=2)
    assert client.call.version() == 3
    process.send(signal.SIGTERM)
    assert process.wait() == 0


def test_reload_without_watchfiles_says_what_to_install(run: Run, module, tmp_path):
    # What Python does when a package is not there: importing it raises ImportError.
    (tmp_path / 'sitecustomize.py').write_text("import sys\n\nsys.modules['watchfiles'] = None\n")

    assert run('serve', 'served:server', '--reload', PYTHONPATH=str(tmp_path)) == (
        2,
        '',
        "amphora: --reload needs the package watchfiles: pip install 'amphora[reload]'\n",
    )


@pytest.fixture
def free_port() -> int:
    return free_ports(1)[0]


def test_the_embedded_broker_serves_this_machine(start, run: Run, module, service, free_port):
    process = start('serve', 'served:server', '--processes', '2', '--embedded', '--port', str(free_port))
    process.wait_ready(2)

    url = f'amqp://127.0.0.1:{free_port}/'
    assert run('call', service, 'add', '2', '3', '--url', url) == (0, '5\n', '')
    assert process.said('nothing is kept on disk')
    process.send(signal.SIGTERM)
    assert process.wait() == 0


def test_the_port_of_the_embedded_broker_may_be_in_use(run: Run, module, rabbit):
    assert run('serve', 'served:server', '--embedded', '--port', str(rabbit.port)) == (
        4,
        '',
        f'amphora: cannot listen on 127.0.0.1:{rabbit.port}: Address already in use\n',
    )


@pytest.mark.parametrize(
    ('options', 'said'),
    [
        (
            ('--embedded', '--url', 'amqp://127.0.0.1/'),
            '--embedded brings a broker of its own, and --url names another: give one of them',
        ),
        (('--port', '5673'), '--port is that of the embedded broker: give --embedded, or the port in --url'),
        (('--processes', '0'), "Invalid value for '--processes': 0 is not in the range 1<=x<=1000."),
        (('--url', 'http://x/'), "unknown scheme 'http' in an AMQP URI; schemes are amqp, amqps"),
    ],
)
def test_wrong_usage_ends_with_two(run: Run, module, options, said):
    assert run('serve', 'served:server', *options) == (2, '', f'amphora: {said}\n')
