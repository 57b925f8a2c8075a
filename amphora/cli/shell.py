"""``amphora shell``: an interactive Python with a client."""

from __future__ import annotations

import re
import sys
from code import InteractiveConsole
from typing import Any

import click

from amphora.cli.common import Command, client_options, connect, make_client, plain
from amphora.cli.gather import gather_servers
from amphora.client import MAX_TIMEOUT
from amphora.settings import make_settings

# Seconds that servers have to say which functions there are.
_GATHER = 1.0


class Completer:
    """Completes as Python's own prompt does, and the functions of the service.

    :param namespace: the prompt's variables.
    :param functions: names of remote functions, dotted or not.
    """

    def __init__(self, namespace: dict[str, Any], functions: list[str]) -> None:
        import rlcompleter

        self._python = rlcompleter.Completer(namespace)
        self._functions = functions

    def complete(self, text: str, state: int) -> str | None:
        """See `readline.set_completer`."""
        verb = re.match(r'client\.(?:call|defer|cast|try_call)\.', text)
        if verb is None:
            return self._python.complete(text, state)
        names = [name for name in self._functions if name.startswith(text[verb.end() :])]
        return verb[0] + names[state] + '(' if state < len(names) else None


def _set_up_readline(completer: Completer) -> None:
    try:
        import readline
    except ImportError:  # a Python that was built without it: the prompt works, Tab does not
        return
    readline.set_completer(completer.complete)
    libedit = 'libedit' in (readline.__doc__ or '')
    readline.parse_and_bind('bind ^I rl_complete' if libedit else 'tab: complete')


@click.command(cls=Command, short_help='Call functions from an interactive Python.')
@click.argument('service')
@click.option(
    '--timeout',
    type=click.FloatRange(0, MAX_TIMEOUT),
    default=60,
    show_default=True,
    help='Seconds that a call waits for its result.',
)
@client_options
def command(service: str, timeout: float, fanout: bool, msgpack: bool, url: str | None) -> None:
    """A Python prompt with `client`, a client of SERVICE; Tab completes the service's functions.

    \b
    Example:
      $ amphora shell simplemath
      >>> client.call.add(2, 3)
      5
    """
    with connect(make_settings(amqp_url=url, service=service), 'amphora shell') as connection:
        servers = gather_servers(connection, _GATHER, service)
    functions = sorted({function.name for server in servers for function in server.functions})
    client = make_client(service, fanout, msgpack, url, timeout)
    namespace = {'__name__': '__console__', '__doc__': None, 'client': client}
    _set_up_readline(Completer(namespace, functions))
    if servers:
        known = 'its functions are ' + ', '.join(map(plain, functions)) if functions else 'it has no functions'
    else:
        known = 'no server of it has answered yet'
    python = '%d.%d.%d' % sys.version_info[:3]
    banner = 'Python %s with `client`, a client of %s; %s. Ctrl-D ends.' % (python, plain(service), known)
    try:
        InteractiveConsole(namespace).interact(banner, exitmsg='')
    except SystemExit:
        pass  # exit() at the prompt
    finally:
        client.stop()
