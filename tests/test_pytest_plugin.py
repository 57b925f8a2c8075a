"""The fixtures that pytest finds where amphora is installed, in runs of their own."""

import sys
import textwrap
from pathlib import Path

import pytest
from gevent import subprocess

ROOT = Path(__file__).parent.parent


@pytest.fixture
def run(tmp_path):
    """Runs pytest on a file of the given source, strictly, and gives what it prints."""

    def run(source, *options, launcher=('-m', 'pytest')):
        (tmp_path / 'test_it.py').write_text(textwrap.dedent(source))
        return run_pytest(tmp_path, *options, launcher=launcher)

    return run


def run_pytest(*arguments, launcher=('-m', 'pytest')):
    command = [sys.executable, *launcher, '-q', '--strict-markers', '--strict-config', '-W', 'error']
    command += ['-p', 'no:cacheprovider', '--rootdir', str(arguments[0].parent), '-c', '/dev/null']
    result = subprocess.run(
        [*command, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=50
    )
    return result.returncode, result.stdout


USES_FIXTURES = """
    from amphora.amqp import Connection
    from amphora.broker import Broker

    urls = []

    def test_one(amphora_broker, amphora_url):
        assert isinstance(amphora_broker, Broker)
        assert amphora_broker.url == amphora_url
        with Connection.from_url(amphora_url) as connection:
            connection.channel().queue.declare('q', durable=True)
        assert list(amphora_broker.queues()) == ['q']
        urls.append(amphora_url)

    def test_other(amphora_broker):
        assert amphora_broker.queues() == {}
        urls.append(amphora_broker.url)

    def test_each_was_stopped():
        from amphora.amqp import ConnectionFailed
        import pytest
        for url in urls:
            with pytest.raises(ConnectionFailed):
                Connection.from_url(url)
"""


def test_each_test_has_a_broker_of_its_own(run):
    code, shown = run(USES_FIXTURES)

    assert code == 0, shown
    assert '3 passed' in shown


def test_it_works_in_a_patched_process(run):
    code, shown = run(USES_FIXTURES, launcher=('-m', 'gevent.monkey', '--module', 'pytest'))

    assert code == 0, shown
    assert '3 passed' in shown


def test_the_broker_is_stopped_when_the_test_fails(run):
    code, shown = run("""
        brokers = []

        def test_it(amphora_broker):
            brokers.append(amphora_broker)
            assert False

        def test_afterwards():
            assert brokers[0].running_connections == 0
            assert not brokers[0]._server
    """)

    assert code == 1, shown
    assert '1 failed, 1 passed' in shown


def test_who_does_not_use_it_does_not_import_it(run):
    code, shown = run("""
        import sys

        def test_it():
            assert 'amphora.pytest_plugin' in sys.modules
            there = [name for name in sys.modules if name.split('.')[0] in ('amphora', 'gevent', 'greenlet', 'msgspec')]
            assert sorted(there) == ['amphora', 'amphora.lazy', 'amphora.pytest_plugin']
    """)

    assert code == 0, shown


def test_the_fixtures_are_listed_with_what_they_are(run):
    code, shown = run('', '--fixtures')

    assert code in (0, 5), shown
    assert 'amphora_broker -- ' in shown
    assert "An embedded broker of the test's own" in shown
    assert 'amphora_url -- ' in shown


def test_it_can_be_left_out(run):
    code, shown = run('def test_it(amphora_url): pass', '-p', 'no:amphora')

    assert code == 1, shown
    assert "fixture 'amphora_url' not found" in shown


@pytest.mark.parametrize('launcher', [('-m', 'pytest'), ('-m', 'gevent.monkey', '--module', 'pytest')], ids=' '.join)
def test_the_example_of_the_documentation_passes(launcher):
    code, shown = run_pytest(ROOT / 'docs' / 'examples' / 'test_with_amphora.py', launcher=launcher)

    assert code == 0, shown
    assert '5 passed' in shown
