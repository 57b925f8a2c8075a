"""amphora shell: a prompt on a terminal, with completion."""

import pytest
from gevent import subprocess

from tests.cli.conftest import AMPHORA, LIMIT, Run, environ


def add(x, y):
    return x + y


@pytest.fixture
def served(serving, gate, service):
    serving(add, gate.function(), named={'substantial': add, 'send.sms': add})
    return service


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


@pytest.mark.parametrize('verb', ['call', 'defer', 'cast', 'try_call'])
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
