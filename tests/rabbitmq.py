"""A RabbitMQ node of one's own, for one test run.

`RabbitNode` starts RabbitMQ as a child process, as whichever user runs the tests, on free ports of 127.0.0.1, with
its own directory, node name, Erlang cookie and epmd, so that it neither sees nor disturbs any other node. It waits
through gevent, so greenlets of the same process go on while a command of `rabbitmqctl` runs.

It knows nothing of amphora.
"""

import json
import os
import secrets
import signal
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from urllib.parse import quote

import gevent
from gevent import socket, subprocess

HOST = '127.0.0.1'

# The scripts that RabbitMQ ships. Debian's wrappers in /usr/sbin insist on root and change to the user `rabbitmq`;
# these run as anybody.
SCRIPTS = Path('/usr/lib/rabbitmq/bin')

PROTOCOL_HEADER = b'AMQP\x00\x00\x09\x01'

START_LIMIT = 60
STOP_LIMIT = 20
COMMAND_LIMIT = 60
# A queue, channel or connection of another test may end while it is listed: RabbitMQ 3.10 fails then, with an `EXIT`.
# So it is asked again, so many times in all.
LISTINGS = 5

# A process that outlives the test run, however that ends: each line it reads lists the process groups alive just
# now, and the end of its input means that whoever wrote them is gone. The second `rm` is for files that a dying
# node wrote during the first.
GUARD = """
groups=
while read -r line; do groups=$line; done
for group in $groups; do kill -s KILL -- "-$group" 2>/dev/null; done
rm -rf "$1" 2>/dev/null || { sleep 1; rm -rf "$1"; }
"""

# Erlang sizes tables by the limit of open files: too few and RabbitMQ refuses connections, a billion (as in some
# containers) and it takes gigabytes.
WITH_FILE_LIMIT = 'ulimit -Sn 8192 2>/dev/null || ulimit -Sn "$(ulimit -Hn)"; exec "$@"'


class RabbitError(Exception):
    """RabbitMQ, or a command sent to it, did not do what was asked."""


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on, all different."""
    listeners = [socket.socket() for _ in range(count)]
    try:
        for listener in listeners:
            listener.bind((HOST, 0))
        return [listener.getsockname()[1] for listener in listeners]
    finally:
        for listener in listeners:
            listener.close()


class RabbitNode:
    """One RabbitMQ node, from `start()` to `close()`; as a context manager it does both.

    `stop()`, `kill()` and `restart()` end the node's process and keep its data and its ports; `close()` ends all and
    removes its directory.

    :param config: more lines of rabbitmq.conf, such as `{'consumer_timeout': 5000}`.
    :param plugins: names of plugins to enable, such as `rabbitmq_auth_mechanism_ssl`.
    :param nodename: the Erlang node's name; a random one at localhost by default.
    :param cookie: the Erlang cookie. Nodes of one cluster share it, and `epmd_port`.
    :param epmd_port: the port of an epmd that another node keeps; by default this node keeps one of its own.
    """

    host = HOST

    def __init__(
        self,
        *,
        config: Mapping[str, str | int] | None = None,
        plugins: Sequence[str] = (),
        nodename: str | None = None,
        cookie: str | None = None,
        epmd_port: int | None = None,
    ) -> None:
        if not (SCRIPTS / 'rabbitmq-server').exists():
            raise RabbitError(f'RabbitMQ is not installed in {SCRIPTS}: run `make rabbitmq`')
        self.port, self.dist_port, own_epmd_port = free_ports(3)
        self.nodename = nodename or f'amphora-{secrets.token_hex(4)}@localhost'
        self.cookie = cookie or secrets.token_hex(16)
        self.epmd_port = epmd_port or own_epmd_port
        self._keeps_epmd = epmd_port is None
        self._epmd: subprocess.Popen | None = None
        self._node: subprocess.Popen | None = None
        self.directory = Path(tempfile.mkdtemp(prefix='amphora-rabbitmq-'))
        self.log_file = self.directory / 'node.log'
        self._guard, self._guard_pipe = self._start_guard()
        self._write_files(config or {}, plugins)
        self._environ = self._make_environ()

    def __enter__(self) -> 'RabbitNode':
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def url(self) -> str:
        return self.url_of('/')

    def url_of(self, vhost: str) -> str:
        # By the letter of the URI's definition an empty path is a virtual host named ''; clients read the default one.
        path = '' if vhost == '/' else quote(vhost, safe='')
        return f'amqp://guest:guest@{self.host}:{self.port}/{path}'

    @property
    def pid(self) -> int:
        """The process id of the Erlang VM."""
        if self._node is None:
            raise RabbitError(f'{self.nodename} is not running')
        return self._node.pid

    @property
    def is_running(self) -> bool:
        return self._node is not None and self._node.poll() is None

    def start(self) -> None:
        """Start the node's process and wait until it speaks AMQP."""
        if self.is_running:
            raise RabbitError(f'{self.nodename} is running already')
        try:
            if self._keeps_epmd and self._epmd is None:
                self._start_epmd()
            with self.log_file.open('ab') as log:
                self._node = self._spawn([str(SCRIPTS / 'rabbitmq-server')], stdout=log)
            self._tell_guard()
            self._wait_for(self._node, self.port, PROTOCOL_HEADER)
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """End the node as an administrator would: it closes its connections and writes its data first."""
        if self._node is None:
            return
        if self.is_running:
            self.resume()
            self._node.send_signal(signal.SIGTERM)
            try:
                self._node.wait(timeout=STOP_LIMIT)
            except subprocess.TimeoutExpired:
                pass
        self.kill()

    def kill(self) -> None:
        """End the node's process at once, as a power cut would."""
        if self._node is not None:
            self._end(self._node)
            self._node = None
            self._tell_guard()

    def restart(self) -> None:
        self.stop()
        self.start()

    def pause(self) -> None:
        """Freeze the node's process: its connections stay open, and nothing answers on them."""
        os.kill(self.pid, signal.SIGSTOP)
        # Its threads stop one after the other.
        tasks = Path(f'/proc/{self.pid}/task')
        while not all(' T ' in (task / 'stat').read_text() for task in tasks.iterdir()):
            gevent.sleep(0.001)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def close(self) -> None:
        """Stop the node and leave nothing of it behind."""
        try:
            self.stop()
        finally:
            if self._guard_pipe is not None:
                os.close(self._guard_pipe)
                self._guard_pipe = None
                self._guard.wait()
                if self._epmd is not None:
                    self._epmd.wait()

    def ctl(self, *args: str) -> str:
        """What `rabbitmqctl` with these arguments prints; greenlets go on while it runs (about half a second)."""
        command = [str(SCRIPTS / 'rabbitmqctl'), '-q', '-n', self.nodename, *args]
        for _ in range(LISTINGS):
            done = subprocess.run(
                command,
                env=self._environ,
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                timeout=COMMAND_LIMIT,
            )
            if not done.returncode:
                return done.stdout.decode()
            said = (done.stderr + done.stdout).decode(errors='replace').strip()
            if not (args[0].startswith('list_') and ':EXIT' in said):
                break
        raise RabbitError(f'rabbitmqctl {" ".join(args)} ended with {done.returncode}: {said}')

    def add_vhosts(self, names: Sequence[str]) -> None:
        """Make virtual hosts where guest may do everything."""
        definitions = {
            'vhosts': [{'name': name} for name in names],
            'permissions': [
                {'user': 'guest', 'vhost': name, 'configure': '.*', 'write': '.*', 'read': '.*'} for name in names
            ],
        }
        file = self.directory / f'{names[0]}.json'
        file.write_text(json.dumps(definitions))
        file.chmod(0o644)
        self.ctl('import_definitions', str(file))

    def delete_vhosts(self, names: Sequence[str]) -> None:
        """Delete virtual hosts, with one command and not with one for each."""
        if names:
            listed = ', '.join(f'<<"{name}">>' for name in names)
            self.ctl('eval', f'[rabbit_vhost:delete(Name, <<"tests">>) || Name <- [{listed}]].')

    def list_queues(self, vhost: str = '/') -> dict[str, tuple[int, int]]:
        """Each queue's name, with its messages (ready and unacknowledged) and its consumers."""
        listed = self.ctl('list_queues', '-p', vhost, 'name', 'messages', 'consumers', '--formatter', 'json')
        return {queue['name']: (queue['messages'], queue['consumers']) for queue in json.loads(listed)}

    def log_tail(self, lines: int = 30) -> str:
        if not self.log_file.exists():
            return ''
        return '\n'.join(self.log_file.read_text(errors='replace').splitlines()[-lines:])

    def _write_files(self, config: Mapping[str, str | int], plugins: Sequence[str]) -> None:
        settings: dict[str, str | int] = {'listeners.tcp.1': f'{HOST}:{self.port}', **config}
        conf = ''.join(f'{name} = {value}\n' for name, value in settings.items())
        (self.directory / 'rabbitmq.conf').write_text(conf)
        (self.directory / 'enabled_plugins').write_text(f'[{",".join(plugins)}].\n')
        # RabbitMQ reads /etc/rabbitmq/rabbitmq-env.conf unless it is given another file.
        (self.directory / 'rabbitmq-env.conf').touch()
        cookie = self.directory / '.erlang.cookie'
        cookie.write_text(self.cookie)
        cookie.chmod(0o400)

    def _make_environ(self) -> dict[str, str]:
        foreign = ('RABBITMQ_', 'ERL_', 'NOTIFY_SOCKET')
        environ = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        here = self.directory
        on_loopback = f'-kernel inet_dist_use_interface {{{HOST.replace(".", ",")}}}'
        environ.update(
            HOME=str(here),
            LC_ALL='C.UTF-8',
            ERL_EPMD_ADDRESS=HOST,
            ERL_EPMD_PORT=str(self.epmd_port),
            RABBITMQ_NODENAME=self.nodename,
            RABBITMQ_DIST_PORT=str(self.dist_port),
            RABBITMQ_CONF_ENV_FILE=str(here / 'rabbitmq-env.conf'),
            RABBITMQ_CONFIG_FILE=str(here / 'rabbitmq.conf'),
            RABBITMQ_ADVANCED_CONFIG_FILE=str(here / 'advanced.config'),
            RABBITMQ_ENABLED_PLUGINS_FILE=str(here / 'enabled_plugins'),
            RABBITMQ_MNESIA_BASE=str(here / 'mnesia'),
            RABBITMQ_LOG_BASE=str(here / 'log'),
            RABBITMQ_LOGS='-',
            RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=on_loopback,
            RABBITMQ_CTL_ERL_ARGS=on_loopback,
            # The default is a range of eleven ports: so many commands at once, on the whole machine.
            RABBITMQ_CTL_DIST_PORT_MIN='0',
            RABBITMQ_CTL_DIST_PORT_MAX='0',
            # Makes the script replace itself with the Erlang VM instead of watching over it as its parent, so that
            # signals reach the VM.
            RUNNING_UNDER_SYSTEMD='true',
        )
        return environ

    def _spawn(self, command: list[str], stdout: object = subprocess.DEVNULL) -> subprocess.Popen:
        # A session of its own: Ctrl-C in the terminal is for the test run, which then ends its nodes in order.
        return subprocess.Popen(
            ['/bin/sh', '-c', WITH_FILE_LIMIT, 'sh', *command],
            env=self._environ,
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def _start_epmd(self) -> None:
        # Without one, Erlang starts an epmd as a daemon that nobody ends.
        self._epmd = self._spawn(['epmd', '-port', str(self.epmd_port), '-address', HOST])
        self._tell_guard()
        self._wait_for(self._epmd, self.epmd_port)

    def _start_guard(self) -> tuple[subprocess.Popen, int | None]:
        reading, writing = os.pipe()
        try:
            guard = subprocess.Popen(
                ['/bin/sh', '-c', GUARD, 'sh', str(self.directory)], stdin=reading, start_new_session=True
            )
        finally:
            os.close(reading)
        return guard, writing

    def _tell_guard(self) -> None:
        alive = ' '.join(str(process.pid) for process in (self._node, self._epmd) if process is not None)
        if self._guard_pipe is not None:
            os.write(self._guard_pipe, f'{alive}\n'.encode())

    def _wait_for(self, process: subprocess.Popen, port: int, greeting: bytes = b'') -> None:
        """Wait until the process answers on its port; to a greeting, with at least one byte."""
        give_up = time.monotonic() + START_LIMIT
        while time.monotonic() < give_up:
            if process.poll() is not None:
                raise RabbitError(f'{self.nodename} ended with {process.returncode} at its start:\n{self.log_tail()}')
            try:
                with socket.create_connection((HOST, port), timeout=5) as probe:
                    if not greeting:
                        return
                    probe.sendall(greeting)
                    if probe.recv(1):
                        return
            except OSError:
                gevent.sleep(0.05)
        raise RabbitError(f'{self.nodename} did not answer within {START_LIMIT} s:\n{self.log_tail()}')

    @staticmethod
    def _end(process: subprocess.Popen) -> None:
        # The whole group, so that the helpers which the VM started go with it.
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait()
