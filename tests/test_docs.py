"""The documentation: its programs run and print what it says, its code runs, and its reference is complete.

Each program of docs/examples prints what the file of the same name in .txt holds. The Python blocks of one page are one
program, which prints the comments behind its `print` calls.
"""

import re
import signal
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest
from gevent import socket

import amphora
import amphora.amqp
from tests.pages import DOCS, ROOT, blocks_of, pages_of, stated_prints
from tests.programs import LIMIT, Program, Start
from tests.rabbitmq import HOST, RabbitNode, free_ports

EXAMPLES = DOCS / 'examples'


@pytest.fixture
def start(rabbit: RabbitNode, vhost: str) -> Iterator[Start]:
    """Starts programs that find a virtual host of the test's own, and ends them with the test."""
    programs: list[Program] = []

    def start_program(path: str | Path, *args: str, **environ: str) -> Program:
        program = Program(EXAMPLES / path, *args, AMPHORA_AMQP_URL=rabbit.url_of(vhost), **environ)
        programs.append(program)
        return program

    yield start_program
    for program in programs:
        program.kill()


def stated_output(program: str) -> list[str]:
    return (EXAMPLES / program).with_suffix('.txt').read_text().splitlines()


def wait_for_consumers(rabbit: RabbitNode, vhost: str, queues: re.Pattern[str], count: int) -> None:
    """Wait until so many queues with such names have a consumer; each look takes half a second."""
    with gevent.Timeout(LIMIT, AssertionError(f'no {count} consumers within {LIMIT} s')):
        while (
            sum(queues.fullmatch(name) is not None and listed[1] for name, listed in rabbit.list_queues(vhost).items())
            < count
        ):
            pass


# -- programs ----------------------------------------------------------------------------------------------------------

ALONE = ['tuning.py', 'own_serializer.py', 'amqp_alone.py', 'from_haigha.py']
PAIRS = [
    ('math_server.py', 'math_client.py'),
    ('divide_server.py', 'divide_client.py'),
    ('email_server.py', 'email_client.py'),
]
# Each of these has a test of its own.
OTHERS = [
    'fanout_client.py',
    'fanout_server.py',
    'shutdown_client.py',
    'shutdown_server.py',
    'test_with_amphora.py',  # by tests/test_pytest_plugin.py
    'web.py',
    'worker.py',
    'worker_client.py',
]


def test_every_example_is_run_by_a_test():
    run = sorted([*ALONE, *(name for pair in PAIRS for name in pair), *OTHERS])

    assert run == sorted(path.name for path in EXAMPLES.glob('*.py'))


def test_no_example_sleeps():
    assert [path.name for path in EXAMPLES.glob('*.py') if 'sleep' in path.read_text()] == []


def test_every_example_is_shown_on_a_page():
    pages = ''.join(page.read_text() for page in pages_of(DOCS))

    assert [path.name for path in EXAMPLES.glob('*.py') if f'examples/{path.name}\n' not in pages] == []


@pytest.mark.parametrize('program', ALONE)
def test_an_example_of_one_program_prints_what_is_stated(start: Start, program: str):
    assert start(program).output() == stated_output(program)


@pytest.mark.parametrize(('server', 'client'), PAIRS)
def test_a_client_prints_what_is_stated_when_its_server_was_started_first(start: Start, server: str, client: str):
    start(server)

    assert start(client).output() == stated_output(client)


@pytest.mark.parametrize(('server', 'client'), PAIRS)
def test_a_client_prints_what_is_stated_when_its_server_is_started_later(
    start: Start, rabbit: RabbitNode, vhost: str, server: str, client: str
):
    running = start(client)
    # It is there: its reply queue is consumed.
    wait_for_consumers(rabbit, vhost, re.compile('rpc_.*_response'), 1)
    start(server)

    assert running.output() == stated_output(client)


def test_a_worker_takes_its_three_calls_and_ends(start: Start):
    client = start('worker_client.py')
    worker = start('worker.py')

    assert client.output() == stated_output('worker_client.py')
    assert worker.output() == stated_output('worker.py')


def test_a_broadcast_without_servers_says_so(start: Start):
    assert start('fanout_client.py').output() == ['no server is there']


def test_a_broadcast_reaches_every_server(start: Start, rabbit: RabbitNode, vhost: str):
    servers = {name: start('fanout_server.py', name) for name in ('north', 'south')}
    wait_for_consumers(rabbit, vhost, re.compile('rpc_cache_.*_request'), 2)

    assert start('fanout_client.py').output() == stated_output('fanout_client.py')

    for name, server in servers.items():
        assert [server.line(), server.line()] == [f'{name} forgets user-42', f'{name} forgets user-43']
        server.signal(signal.SIGTERM)
        assert server.output() == []


def test_a_server_that_is_stopped_among_calls_loses_none(start: Start):
    first = start('shutdown_server.py')
    client = start('shutdown_client.py')
    shown = [client.line()]
    first.signal(signal.SIGTERM)
    assert first.output() == stated_output('shutdown_server.py')

    second = start('shutdown_server.py')
    shown += client.output()

    assert shown == stated_output('shutdown_client.py')
    second.signal(signal.SIGTERM)
    assert second.output() == stated_output('shutdown_server.py')


WEB_SERVER = """
import sys
from gevent.pywsgi import WSGIServer
sys.path.insert(0, sys.argv[1])
from web import application
server = WSGIServer(('127.0.0.1', int(sys.argv[2])), application, log=None)
server.start()
print('listening')
server.serve_forever()
"""


def answer_of(port: int, path: str) -> tuple[str, str]:
    """Status and body of what a web server says."""
    with socket.create_connection((HOST, port), timeout=LIMIT) as connection:
        connection.sendall(f'GET {path} HTTP/1.0\r\n\r\n'.encode())
        head, _, body = connection.makefile('rb').read().decode().partition('\r\n\r\n')
    return head.splitlines()[0].split(' ', 1)[1], body


def test_a_web_application_calls_and_says_when_nobody_answers(start: Start, tmp_path: Path):
    script = tmp_path / 'web_server.py'
    script.write_text(WEB_SERVER)
    (port,) = free_ports(1)
    web = start(script, str(EXAMPLES), str(port))
    assert web.line() == 'listening'

    assert answer_of(port, '/?x=2&y=3') == ('504 Gateway Timeout', 'no answer within 5 seconds\n')
    start('math_server.py')
    assert answer_of(port, '/?x=2&y=3') == ('200 OK', '5\n')
    assert answer_of(port, '/') == ('400 Bad Request', 'give x and y, as in /?x=2&y=3\n')


# -- code on pages -----------------------------------------------------------------------------------------------------


def python_of(page: Path) -> str:
    """The Python blocks of a page, one after the other."""
    return '\n'.join(blocks_of(page))


PAGES = [page for page in pages_of(DOCS) if python_of(page)]


@pytest.mark.parametrize('page', PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_the_python_of_a_page_prints_what_it_says(start: Start, tmp_path: Path, page: Path):
    source = python_of(page)
    script = tmp_path / f'page_{page.stem}.py'  # no name that it may want to import
    script.write_text(source)

    assert start(script).output() == stated_prints(source)


def test_all_code_of_pages_is_run():
    directives = {
        line.strip()
        for page in pages_of(DOCS)
        for line in page.read_text().splitlines()
        if 'code-block' in line or line.startswith('```')
    }
    included = {directive for directive in directives if directive.startswith('```{literalinclude} ')}

    assert directives - included <= {'.. code-block:: python', '.. code-block:: text', '```python', '```text', '```'}


def test_the_example_of_the_readme_runs(start: Start, tmp_path: Path):
    blocks = re.findall(
        '^```python\n# (\\w+\\.py)\n(.*?)^```$', (ROOT / 'README.md').read_text(), re.MULTILINE | re.DOTALL
    )
    assert [name for name, _ in blocks] == ['math_server.py', 'math_client.py']
    assert (ROOT / 'README.md').read_text().count('```') == 2 * len(blocks)
    for name, source in blocks:
        (tmp_path / name).write_text(source)

    start(tmp_path / 'math_server.py')

    assert start(tmp_path / 'math_client.py').output() == stated_prints(blocks[1][1]) == ['5']


def test_what_the_readme_links_to_is_there():
    links = re.findall(r'\]\(([^)#]+)\)', (ROOT / 'README.md').read_text())

    assert [link for link in links if not link.startswith('https://') and not (ROOT / link).exists()] == []


# -- the reference -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('module', [amphora, amphora.amqp], ids=lambda module: module.__name__)
def test_the_reference_has_every_public_name(module):
    pages = ''.join(page.read_text() for page in pages_of(DOCS / 'reference'))
    documented = set(re.findall(r'^\.\. auto(?:class|exception|function):: (\S+)$', pages, re.MULTILINE))

    assert [name for name in module.__all__ if f'{module.__name__}.{name}' not in documented] == []


def test_the_page_about_logging_names_every_logger():
    page = (DOCS / 'how-to' / 'logging.rst').read_text()
    sources = ''.join(path.read_text() for path in (ROOT / 'amphora').rglob('*.py'))
    loggers = set(re.findall(r"(?:getLogger|get_logger)\('([\w.]+)'\)", sources))

    # The root of them is only configured.
    assert set(re.findall(r'^``(amphora\.\w+)``', page, re.MULTILINE)) == loggers - {'amphora'}
