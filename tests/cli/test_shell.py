"""amphora shell: a prompt on a terminal, with completion."""

import fcntl
import os
import pty
import re
import termios

import gevent
import gevent.os
import pytest
from gevent import subprocess
from gevent.event import Event

from amphora import AmqpRpcServer
from tests.cli.conftest import AMPHORA, LIMIT, Run, environ
from tests.waiting import eventually


def add(x, y):
    return x + y


@pytest.fixture
def served(amqp_url, service):
    server = AmqpRpcServer(service, amqp_url=amqp_url)
    server.add_function(add)
    server.add_function(add, name='substantial')
    server.add_function(add, name='send.sms')
    over = Event()
    server.add_function(over.wait, name='wait')
    server.serve()
    assert server.wait_ready(10)
    yield service
    over.set()
    server.stop()


def own_terminal():
    """Make standard input the terminal of a session of one's own: only so does Ctrl-C become a signal."""
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class Terminal:
    """A terminal in which ``amphora`` runs; `shown` is what it shows, without what only moves the cursor."""

    def __init__(self, args, cwd, **more):
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

    def _read(self):
        while True:
            try:
                data = gevent.os.nb_read(self._master, 65536)
            except OSError:  # how a terminal says that everybody has left
                return
            if not data:
                return
            self._text += data.decode()

    @property
    def shown(self):
        return re.sub(r'\x1b\[\??[\d;]*[a-zA-Z]|\x07|\r', '', self._text)

    def type(self, text):
        gevent.os.nb_write(self._master, text.encode())

    def wait_shown(self, text):
        """Wait for text, and forget everything up to its end."""
        eventually(lambda: text in self.shown, LIMIT)
        self._text = self.shown.partition(text)[2]

    def wait(self):
        status = self._process.wait(timeout=LIMIT)
        self._reader.join(timeout=LIMIT)
        return status

    def close(self):
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._reader.kill()
        os.close(self._master)


@pytest.fixture
def terminal(tmp_path, amqp_url):
    opened = []

    def make(*args):
        opened.append(Terminal(args, tmp_path, AMPHORA_AMQP_URL=amqp_url))
        return opened[-1]

    yield make
    for each in opened:
        each.close()


def test_calls_are_made_and_ctrl_d_ends_it(terminal, served):
    shell = terminal('shell', served)
    shell.wait_shown('its functions are add, send.sms, substantial, wait. Ctrl-D ends.')
    shell.wait_shown('>>> ')

    shell.type('client.call.add(2, 40)\n')
    shell.wait_shown('\n42\n')
    shell.wait_shown('>>> ')
    shell.type('client.defer.add(2, 41).get()\n')
    shell.wait_shown('\n43\n')
    shell.wait_shown('>>> ')
    shell.type('\x04')

    assert shell.wait() == 0


@pytest.mark.parametrize('verb', ['call', 'defer'])
def test_tab_completes_functions_of_the_service(terminal, served, verb):
    shell = terminal('shell', served)
    shell.wait_shown('>>> ')

    shell.type(f'client.{verb}.sub\t')
    shell.wait_shown(f'client.{verb}.substantial(')
    shell.type('1, 1)\x15')
    shell.type(f'client.{verb}.s\t\t')
    shell.wait_shown(f'client.{verb}.send.sms(')
    shell.wait_shown(f'client.{verb}.substantial(')


def test_tab_completes_python_as_well(terminal, served):
    shell = terminal('shell', served)
    shell.wait_shown('>>> ')

    shell.type('client.service_n\t')

    shell.wait_shown('client.service_name')


def test_an_error_and_ctrl_c_come_back_to_the_prompt(terminal, served):
    shell = terminal('shell', served)
    shell.wait_shown('>>> ')

    shell.type('client.call.add(1)\n')
    shell.wait_shown('amphora.errors.RemoteException: TypeError(')
    shell.wait_shown('>>> ')
    shell.type('print("wai" + "ting") or client.call(timeout=60).wait()\n')
    shell.wait_shown('waiting')
    shell.type('\x03')
    shell.wait_shown('KeyboardInterrupt')
    shell.wait_shown('>>> ')
    shell.type('exit()\n')

    assert shell.wait() == 0


def test_without_a_server_there_is_a_prompt_all_the_same(terminal, service):
    shell = terminal('shell', service)

    shell.wait_shown('no server of it has answered yet. Ctrl-D ends.')


def test_lines_may_come_through_a_pipe(amqp_url, served, tmp_path):
    ended = subprocess.run(
        [*AMPHORA, 'shell', served, '--url', amqp_url],
        cwd=tmp_path,
        env=environ(),
        input=b'print(client.call.add(20, 3))\n',
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        timeout=LIMIT,
    )

    assert ended.returncode == 0
    assert b'23\n' in ended.stdout


def test_no_broker_ends_with_four(run: Run):
    assert run('shell', 'service', '--url', 'amqp://127.0.0.1:1/') == (
        4,
        '',
        'amphora: cannot connect to 127.0.0.1:1: [Errno 111] Connection refused\n',
    )
