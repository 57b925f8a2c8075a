"""amphora doctor: the way to the broker, step by step, as far as it goes."""

import re
import shlex
import socket
import subprocess
from collections.abc import Iterator

import gevent
import pytest

from tests.cli.conftest import AMPHORA, Run
from tests.rabbitmq import RabbitNode

# What it recommends, as a shell has it.
RIGHTS = r"'^rpc_' '^(rpc_|amq\.default$)' '^rpc_'"
STEPS = ['DNS', 'TCP', 'TLS', 'AMQP', 'login', 'vhost', 'declare', 'publish', 'round trip']


def good_steps(stdout: str) -> list[str]:
    return [line[2:12].strip() for line in stdout.splitlines() if line.startswith('✓')]


def bad_steps(stdout: str) -> list[str]:
    return [line[2:12].strip() for line in stdout.splitlines() if line.startswith('✗')]


@pytest.fixture
def limited_user(rabbit: RabbitNode) -> Iterator[str]:
    """A user who may see everything and declare nothing."""
    rabbit.ctl('add_user', 'limited', 'word')
    rabbit.ctl('set_permissions', 'limited', '^$', '.*', '.*')
    yield 'limited'
    rabbit.ctl('delete_user', 'limited')


def test_each_step_that_works_is_a_line(run: Run, amqp_url):
    status, stdout, stderr = run('doctor', '--url', amqp_url)

    assert (status, stderr) == (0, '')
    assert good_steps(stdout) == STEPS
    lines = stdout.splitlines()
    assert lines[0] == '✓ DNS        127.0.0.1 is 127.0.0.1'
    assert lines[4] == '✓ login      as guest'
    assert lines[5] == '✓ vhost      /'
    assert lines[7] == '✓ publish    confirmed'
    assert re.fullmatch(r'✓ round trip \d+\.\d ms', lines[8])


def test_nothing_is_left_on_the_broker(run: Run, rabbit, vhost):
    assert run('doctor', '--url', rabbit.url_of(vhost)).status == 0

    assert rabbit.list_queues(vhost) == {}
    assert 'rpc_' not in rabbit.ctl('list_exchanges', '-p', vhost, 'name')


def test_the_broker_may_come_from_the_environment(run: Run, amqp_url):
    assert run('doctor', AMPHORA_AMQP_URL=amqp_url).status == 0


def test_a_name_that_does_not_resolve(run: Run):
    status, stdout, stderr = run('doctor', '--url', 'amqp://nowhere.invalid/')

    assert (status, stderr) == (4, '')
    assert (good_steps(stdout), bad_steps(stdout)) == ([], ['DNS'])
    assert stdout.splitlines()[1] == '  to mend it: correct the host name in the URL, or add it to the DNS'


def test_a_port_where_nobody_listens(run: Run):
    assert run('doctor', '--url', 'amqp://127.0.0.1:1/') == (
        4,
        '✓ DNS        127.0.0.1 is 127.0.0.1\n'
        '✗ TCP        127.0.0.1:1: Connection refused\n'
        '  to mend it: start the broker there, or correct host and port in the URL\n',
        '',
    )


def test_a_port_without_tls(run: Run, rabbit):
    status, stdout, _ = run('doctor', '--url', f'amqps://127.0.0.1:{rabbit.port}/')

    assert status == 4
    assert (good_steps(stdout), bad_steps(stdout)) == (['DNS', 'TCP'], ['TLS'])


def test_a_port_where_something_else_answers(run: Run, rabbit):
    url = f'amqp://127.0.0.1:{rabbit.dist_port}/?connection_timeout=1000'

    status, stdout, stderr = run('doctor', '--url', url)

    assert (status, stderr) == (4, '')
    assert (good_steps(stdout), bad_steps(stdout)) == (['DNS', 'TCP', 'TLS'], ['AMQP'])


def test_a_port_where_nobody_answers(run: Run):
    with socket.create_server(('127.0.0.1', 0)) as listener:
        port = listener.getsockname()[1]

        status, stdout, _ = run('doctor', '--url', f'amqp://127.0.0.1:{port}/?connection_timeout=500')

    assert status == 4
    assert stdout.splitlines()[3] == f'✗ AMQP       no AMQP connection to 127.0.0.1:{port} within 0.5 s'
    assert '?connection_timeout=' in stdout


def test_a_wrong_password(run: Run, rabbit):
    status, stdout, stderr = run('doctor', '--url', f'amqp://guest:not-the-word@127.0.0.1:{rabbit.port}/')

    assert status == 4
    assert (good_steps(stdout), bad_steps(stdout)) == (STEPS[:4], ['login'])
    assert 'correct user and password' in stdout
    assert 'not-the-word' not in stdout + stderr


def test_a_mechanism_that_the_broker_does_not_offer(run: Run, rabbit):
    status, stdout, _ = run('doctor', '--url', f'{rabbit.url}?auth_mechanism=external')

    assert status == 4
    assert (good_steps(stdout), bad_steps(stdout)) == (STEPS[:4], ['login'])
    assert 'correct user and password' not in stdout
    assert '?auth_mechanism=' in stdout


def test_too_few_channels(run: Run, rabbit):
    status, stdout, _ = run('doctor', '--url', f'{rabbit.url}?channel_max=1')

    assert status == 4
    assert (good_steps(stdout), bad_steps(stdout)) == (STEPS[:7], ['publish'])
    assert '?channel_max=' in stdout


def test_a_virtual_host_that_does_not_exist(run: Run, rabbit):
    status, stdout, _ = run('doctor', '--url', rabbit.url_of('nowhere'))

    assert status == 4
    assert (good_steps(stdout), bad_steps(stdout)) == (STEPS[:5], ['vhost'])
    assert "rabbitmqctl add_vhost 'nowhere'" in stdout


def test_a_virtual_host_that_the_user_may_not_enter(run: Run, rabbit, vhost, limited_user):
    url = rabbit.url_of(vhost).replace('guest:guest', 'limited:word')

    status, stdout, _ = run('doctor', '--url', url)

    assert status == 4
    assert bad_steps(stdout) == ['vhost']
    assert f"rabbitmqctl set_permissions -p '{vhost}' 'limited' {RIGHTS}" in stdout


def test_a_user_who_may_not_declare(run: Run, rabbit, limited_user):
    status, stdout, _ = run('doctor', '--url', rabbit.url.replace('guest:guest', 'limited:word'))

    assert status == 4
    assert (good_steps(stdout), bad_steps(stdout)) == (STEPS[:6], ['declare'])
    assert f"rabbitmqctl set_permissions -p '/' 'limited' {RIGHTS}" in stdout


def test_the_rights_it_recommends_are_enough(run: Run, rabbit, limited_user):
    rabbit.ctl('set_permissions', 'limited', *shlex.split(RIGHTS))

    assert run('doctor', '--url', rabbit.url.replace('guest:guest', 'limited:word')).status == 0


def test_the_rights_it_recommends_let_a_server_set_requests_aside(run: Run, rabbit, limited_user, server, client):
    stdout = run('doctor', '--url', rabbit.url.replace('guest:guest', 'limited:word')).stdout
    rights = shlex.split(stdout.splitlines()[-1])[-3:]
    rabbit.ctl('set_permissions', 'limited', *rights)
    runs = []

    def fail() -> None:
        runs.append(True)
        raise ValueError

    serving = server(fail, amqp_url=rabbit.url.replace('guest:guest', 'limited:word'))
    serving.wait_ready()
    client(service=serving.service_name).cast.fail()
    gevent.sleep(2.5)

    assert len(runs) == 1
    assert run('dead', serving.service_name, '--url', rabbit.url, '--json').stdout.count('"function":"fail"') == 1


def test_without_standard_output_nothing_is_shown(rabbit):
    command = [*AMPHORA, 'doctor', '--url', rabbit.url]

    assert subprocess.run(['sh', '-c', 'exec "$@" >&-', '-', *command], stderr=subprocess.PIPE).stderr == b''


def test_a_broker_that_takes_no_messages(run: Run, rabbit):
    rabbit.ctl('set_vm_memory_high_watermark', '0')
    try:
        status, stdout, _ = run('doctor', '--url', rabbit.url)
    finally:
        rabbit.ctl('set_vm_memory_high_watermark', '0.4')

    assert status == 4
    assert (good_steps(stdout), bad_steps(stdout)) == (STEPS[:7], ['publish'])
    assert 'the broker takes no messages: low on memory' in stdout
    assert 'free memory or disk' in stdout


def test_each_of_several_hosts_is_looked_at(run: Run, rabbit):
    status, stdout, _ = run('doctor', '--url', f'amqp://127.0.0.1:1/,{rabbit.url}')

    assert status == 4
    assert stdout.splitlines()[0] == '127.0.0.1:1'
    assert bad_steps(stdout) == ['TCP']
    assert good_steps(stdout) == ['DNS', *STEPS]


def test_a_terminal_without_ticks_gets_words(run: Run, amqp_url):
    status, stdout, stderr = run('doctor', '--url', amqp_url, PYTHONIOENCODING='ascii')

    assert (status, stderr) == (0, '')
    assert stdout.startswith('ok DNS')


def test_what_is_not_amqp_is_one_line_too(run: Run):
    with socket.create_server(('127.0.0.1', 0)) as listener:
        port = listener.getsockname()[1]

        def answer():
            with listener.accept()[0] as checking, listener.accept()[0] as asking:
                checking.recv(1)
                asking.sendall(b'HTTP/1.1 400 Bad Request')
                asking.recv(100)

        answering = gevent.get_hub().threadpool.spawn(answer)
        status, stdout, stderr = run('doctor', '--url', f'amqp://127.0.0.1:{port}/')
        answering.get(timeout=10)

    assert (status, stderr) == (4, '')
    assert bad_steps(stdout) == ['AMQP']


def test_a_url_that_makes_no_sense_is_wrong_usage(run: Run):
    assert run('doctor', '--url', 'http://nowhere/') == (
        2,
        '',
        "amphora: unknown scheme 'http' in an AMQP URI; schemes are amqp, amqps\n",
    )
