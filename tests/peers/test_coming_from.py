"""What the pages for those who come from elsewhere show, run: their programs beside amphora's, each calling the other.

Their programs are in `examples`; amphora's are the blocks of the pages that begin with the name of a file.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import rabibridge

from amphora.amqp import Connection
from tests.pages import DOCS, ROOT, blocks_of, stated_prints
from tests.peers.amqprpc import GO_JSON, PYTHON_JSON, GoClient, GoServer, PythonClient, PythonServer
from tests.programs import Program
from tests.rabbitmq import RabbitNode

EXAMPLES = Path(__file__).parent / 'examples'
# `make` installs aioamqp there, apart from the environment of amphora.
AIOAMQP = ROOT / 'build' / 'aioamqp'

Run = Callable[..., Program]
InThread = Callable[..., Any]

# RabiBridge takes these from a file only.
RABIBRIDGE_CONFIGURATION = """
[app]
CID_MAX = 1073741824
COMPRESS_THRESHOLD = 1024
"""


@pytest.fixture(params=['RabbitMQ', 'embedded'])
def url(request: pytest.FixtureRequest) -> str:
    """Of a broker on which none of the names in the programs is taken."""
    if request.param == 'embedded':
        return request.getfixturevalue('broker').url
    if 'rabibridge' in request.node.name:
        return request.getfixturevalue('default_virtual_host')
    return request.getfixturevalue('rabbit').url_of(request.getfixturevalue('vhost'))


@pytest.fixture
def default_virtual_host(rabbit: RabbitNode) -> Iterator[str]:
    """The only one that RabiBridge knows; afterwards what was declared in it is gone."""
    before = rabbit.list_queues()
    yield rabbit.url
    with Connection.from_url(rabbit.url) as connection, connection.channel() as channel:
        for queue in set(rabbit.list_queues()) - set(before):
            channel.queue.delete(queue)


@pytest.fixture
def run(url: str) -> Iterator[Run]:
    """Starts programs, and ends them with the test, the youngest first."""
    running: list[Program] = []

    def start(path: Path, *args: str, **environ: str) -> Program:
        running.append(Program(path, *args, **{'AMPHORA_AMQP_URL': url, **environ}))
        return running[-1]

    yield start
    for program in reversed(running):
        program.kill()


@pytest.fixture
def theirs(run: Run, tmp_path: Path) -> Run:
    """Starts a program of the examples."""
    # RabiBridge reads its configuration beside its package.
    packages = tmp_path / 'packages'
    (packages / 'config').mkdir(parents=True)
    (packages / 'config' / 'env.toml').write_text(RABIBRIDGE_CONFIGURATION)
    (packages / 'rabibridge').symlink_to(Path(rabibridge.__file__).parent)

    def start(name: str, *args: str) -> Program:
        return run(EXAMPLES / name, *args, PYTHONPATH=str(AIOAMQP if name.startswith('aioamqp') else packages))

    return start


def block(page: str, name: str) -> str:
    """The block of a page that begins with the name of a file."""
    blocks = blocks_of(DOCS / 'how-to' / f'coming-from-{page}.md')
    [found] = [each for each in blocks if each.startswith(f'# {name}\n')]
    return found


@pytest.fixture
def ours(run: Run, tmp_path: Path) -> Run:
    """Starts a block of a page, with something behind it."""

    def start(page: str, name: str, more: str = '') -> Program:
        path = tmp_path / name
        path.write_text(block(page, name) + more)
        return run(path)

    return start


@pytest.fixture
def serving(ours: Run) -> Run:
    """Starts a block of a page that serves, and waits until it does."""

    def start(page: str, name: str, more: str = '{server}.serve(nowait=False)\n') -> Program:
        [server] = re.findall(r'^(\w+)\.serve\(\)$', block(page, name), re.MULTILINE)
        started = ours(page, name, "print('ready')\n" + more.format(server=server))
        assert started.line() == 'ready'
        return started

    return start


# What they print is what their pages say.
CALLERS = {
    'aioamqp': ('server.py', ['aioamqp_client.py'], ['fib(4) is 3']),
    'rabibridge': (
        'server.py',
        ['rabibridge_client.py'],
        (EXAMPLES / 'rabibridge_client.txt').read_text().splitlines(),
    ),
    'aio-pika': ('callee.py', ['aio_pika_caller.py'], ['0', '100', '200'] * 2),
    'aio-pika in MessagePack': ('msgpack_callee.py', ['aio_pika_msgpack.py', 'call'], ['200']),
}
CALLED = {
    'aioamqp': (['aioamqp_server.py'], 'client.py'),
    'rabibridge': (['rabibridge_service.py'], 'client.py'),
    'aio-pika': (['aio_pika_callee.py'], 'caller.py'),
    'aio-pika in MessagePack': (['aio_pika_msgpack.py', 'serve'], 'msgpack_caller.py'),
}


@pytest.mark.parametrize('system', CALLERS)
def test_their_program_calls_the_server_of_the_page(theirs: Run, serving: Run, system: str) -> None:
    server, client, printed = CALLERS[system]
    serving(system.split()[0], server)

    assert theirs(*client).output() == printed


@pytest.mark.parametrize('system', CALLED)
def test_the_client_of_the_page_calls_their_program(theirs: Run, ours: Run, system: str) -> None:
    server, client = CALLED[system]
    page = system.split()[0]
    theirs(*server).line()  # it serves

    assert ours(page, client).output() == stated_prints(block(page, client))


@pytest.mark.parametrize('first', ['ours', 'theirs'])
@pytest.mark.parametrize('system', CALLED)
def test_both_servers_serve_at_once(theirs: Run, serving: Run, system: str, first: str) -> None:
    ours, client, printed = CALLERS[system]
    if first == 'ours':
        serving(system.split()[0], ours)
    theirs(*CALLED[system][0]).line()  # it serves
    if first == 'theirs':
        serving(system.split()[0], ours)

    assert theirs(*client).output() == printed


def test_their_tasks_are_for_the_worker_of_the_page(theirs: Run, serving: Run) -> None:
    worker = serving('aio-pika', 'worker.py', 'while True:\n    print(done.get())\n')

    assert theirs('aio_pika_master.py').output() == ['6 tasks made']

    assert sorted(worker.line() for _ in range(3)) == ['1', '3', '5']


def test_the_tasks_of_the_page_are_for_their_worker(theirs: Run, ours: Run) -> None:
    worker = theirs('aio_pika_worker.py')
    assert worker.line() == 'working'

    assert ours('aio-pika', 'master.py').output() == ['6 tasks made']

    assert sorted(worker.line() for _ in range(3)) == ['1', '3', '5']


@pytest.mark.parametrize(('client', 'formatter'), [(PythonClient, PYTHON_JSON), (GoClient, GO_JSON)])
def test_amqprpc_calls_the_server_of_the_page(
    serving: Run, url: str, in_thread: InThread, client: Any, formatter: Any
) -> None:
    serving('amqprpc', 'server.py')

    def call() -> Any:
        with client(url, 'testrpc', formatter) as calling:
            return calling.call('Server.mul', {'A': 2, 'B': 3})

    assert in_thread(call) == 6


@pytest.mark.parametrize(('server', 'formatter'), [(PythonServer, PYTHON_JSON), (GoServer, GO_JSON)])
def test_the_client_of_the_page_calls_amqprpc(ours: Run, url: str, server: Any, formatter: Any) -> None:
    with server(url, 'testrpc', formatter, {'Server.mul': lambda args: args['A'] * args['B']}):
        assert ours('amqprpc', 'client.py').output() == ['6']
