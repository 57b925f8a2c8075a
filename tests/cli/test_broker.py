"""amphora broker: the embedded broker as a process, for one machine."""

import re
import signal
import socket

import pytest
from gevent import subprocess

from amphora import AmqpRpcClient, AmqpRpcServer
from amphora.amqp import Connection, LoginRefused
from tests.cli.conftest import AMPHORA, LIMIT, Run, environ


@pytest.fixture
def broker(tmp_path):
    """Starts ``amphora broker`` on a free port; gives the process, its port and the lines it begins with."""
    started = []

    def make(*options):
        process = subprocess.Popen(
            [*AMPHORA, 'broker', '--port', '0', *options],
            cwd=tmp_path,
            env=environ(PYTHONUNBUFFERED='1'),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        started.append(process)
        lines = [process.stdout.readline().decode() for _ in range(2)]
        return process, int(re.search(r':(\d+);', lines[0])[1]), lines

    yield make
    for process in started:
        if process.poll() is None:
            process.kill()
            process.wait()


def test_it_says_what_it_is_for_and_carries_calls(broker):
    _, port, lines = broker()
    url = f'amqp://127.0.0.1:{port}/'
    server = AmqpRpcServer('numbers', amqp_url=url)
    server.add_function(lambda x: x + 1, name='next')
    server.serve()
    client = AmqpRpcClient('numbers', amqp_url=url, timeout=LIMIT)

    assert client.call.next(1) == 2
    assert lines == [
        f'amphora broker on 127.0.0.1:{port}; Ctrl-C ends it\n',
        'for one machine; keeps nothing on disk\n',
    ]
    client.stop()
    server.stop()


@pytest.mark.parametrize('signum', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_cleanly(broker, signum):
    process, port, _ = broker()
    with Connection(host='127.0.0.1', port=port) as connection:
        connection.channel()

        process.send_signal(signum)

        assert process.wait(timeout=LIMIT) == 0
    assert process.stderr.read() == b''


def test_users_are_those_it_is_told(broker):
    _, port, _ = broker('--user', 'ann:se:cret', '--user', 'bob:')

    Connection(host='127.0.0.1', port=port, user='ann', password='se:cret').close()
    Connection(host='127.0.0.1', port=port, user='bob', password='').close()
    with pytest.raises(LoginRefused):
        Connection(host='127.0.0.1', port=port)


def test_doctor_finds_nothing_wrong_with_it(broker, run: Run):
    _, port, _ = broker()

    assert run('doctor', '--url', f'amqp://127.0.0.1:{port}/').status == 0


def test_a_port_in_use_ends_with_four(run: Run):
    with socket.create_server(('127.0.0.1', 0)) as listener:
        port = listener.getsockname()[1]

        assert run('broker', '--port', str(port)) == (
            4,
            '',
            f'amphora: cannot listen on 127.0.0.1:{port}: Address already in use\n',
        )


@pytest.mark.parametrize(
    ('options', 'said'),
    [
        (('--user', 'hush'), '--user takes NAME:PASSWORD'),
        (('--port', '70000'), "Invalid value for '--port': 70000 is not in the range 0<=x<=65535."),
    ],
)
def test_wrong_usage_ends_with_two(run: Run, options, said):
    assert run('broker', *options) == (2, '', f'amphora: {said}\n')
