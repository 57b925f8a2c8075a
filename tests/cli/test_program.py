"""What all commands have in common: help, errors of one line, and that they cost nothing until they are used."""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from amphora.cli import program
from tests.cli.conftest import Run
from tests.compiled import is_compiled

COMMANDS = program.list_commands(None)


def test_alone_it_shows_its_commands(run: Run):
    status, stdout, stderr = run()

    assert (status, stderr) == (0, '')
    listed = stdout.partition('Commands:\n')[2]
    assert [line.split()[0] for line in listed.splitlines()] == COMMANDS


@pytest.mark.parametrize('flag', ['--help', '-h'])
@pytest.mark.parametrize('command', COMMANDS)
def test_each_command_has_help_with_an_example_and_fits_the_terminal(run: Run, command, flag):
    status, stdout, stderr = run(command, flag, COLUMNS='80')

    assert (status, stderr) == (0, '')
    assert 'Example:' in stdout
    assert f'amphora {command}' in stdout.partition('Example:')[2]
    assert max(map(len, stdout.splitlines())) <= 80


def test_help_of_a_command_never_shows_the_address_it_would_use(run: Run):
    assert 'not-to-be-seen' not in run('call', '--help', AMPHORA_AMQP_URL='amqp://guest:not-to-be-seen@x/').stdout


def version_line() -> str:
    return f'amphora {version("amphora")}, {"compiled" if is_compiled() else "as Python"}\n'


def test_the_version_is_that_of_the_package_and_says_whether_it_is_compiled(run: Run):
    assert run('--version') == (0, version_line(), '')


def test_a_command_that_does_not_exist_is_wrong_usage(run: Run):
    assert run('srve') == (2, '', "amphora: No such command 'srve'.\n")


def test_the_installed_command_is_the_same():
    installed = Path(sys.executable).parent / 'amphora'

    shown = subprocess.run([installed, '--version'], stdout=subprocess.PIPE, check=True).stdout.decode()

    assert shown == version_line()


def test_importing_amphora_imports_nothing_of_the_command_line():
    found = subprocess.run(
        [sys.executable, '-c', 'import sys, amphora; print([m for m in ("click", "rich") if m in sys.modules])'],
        stdout=subprocess.PIPE,
        check=True,
    ).stdout.decode()

    assert found == '[]\n'


def test_a_command_imports_only_what_it_needs():
    found = subprocess.run(
        [
            sys.executable,
            '-c',
            'import sys\n'
            'from amphora.cli import program\n'
            'program.get_command(None, "call")\n'
            'print([m for m in ("rich", "watchfiles", "amphora.cli.serve") if m in sys.modules])',
        ],
        stdout=subprocess.PIPE,
        check=True,
    ).stdout.decode()

    assert found == '[]\n'
