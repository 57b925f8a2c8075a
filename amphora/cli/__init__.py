"""The command line, ``amphora``: a file for each command, imported when it is asked for."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.machinery import PathFinder
from pathlib import Path
from typing import NoReturn

import click

from amphora.cli.common import Failure, say

# Found without importing what it is in.
_SPEEDUPS = PathFinder.find_spec('speedups', [str(Path(__file__).parents[1] / 'amqp')])
_VERSION = 'amphora %%(version)s, %s' % ('as Python' if _SPEEDUPS is None else 'compiled')

# In the order of the help. Each is the `command` of the module of its name.
_COMMANDS = ('serve', 'call', 'list', 'dead', 'shell', 'doctor', 'config', 'broker', 'demo')


class Program(click.Group):
    """Commands by the names of their modules."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """See click."""
        return [*_COMMANDS]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """See click; what one command needs is not imported for another."""
        if name not in _COMMANDS:
            return None
        command: click.Command = import_module('amphora.cli.' + name).command
        return command


@click.group(cls=Program, invoke_without_command=True, context_settings={'help_option_names': ['-h', '--help']})
@click.version_option(package_name='amphora', message=_VERSION)
@click.pass_context
def program(context: click.Context) -> None:
    """Remote calls over AMQP: serve functions, call them, and see who serves what.

    \b
    Example:
      amphora serve math_server:server --processes 4
      amphora call simplemath add 2 3

    The broker's address is the option --url of a command, or the environment variable AMPHORA_AMQP_URL (commas
    between several), or what the file says that AMPHORA_CONFIG names, or else amqp://guest:guest@127.0.0.1:5672/.
    `amphora config` shows it.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def main() -> NoReturn:
    """Run the command of ``sys.argv`` and end the process with its exit code."""
    try:
        status = program.main(prog_name='amphora', standalone_mode=False)
    except Failure as error:
        say(error.message)
        status = error.exit_code
    except click.ClickException as error:
        say(error.format_message())
        status = error.exit_code
    except click.Abort:
        status = 130  # as a shell has it of a command that SIGINT has ended
    # What a command returns is its exit code, if anything.
    sys.exit(status or 0)
