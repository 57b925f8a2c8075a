"""``amphora serve``: worker processes that run a server."""

from __future__ import annotations

import logging
import os
import re
import signal
import sys

import click
import gevent
from click.core import ParameterSource

from amphora.cli.broker import PORT, started_broker
from amphora.cli.common import LOG_FORMAT, Command, Failure, is_debug, url_option
from amphora.cli.reloader import Reloader
from amphora.cli.supervisor import Supervisor
from amphora.configuration import variable_of
from amphora.settings import make_settings

# Patches before it imports anything else.
_WORKER = (sys.executable, '-m', 'gevent.monkey', '--module', 'amphora.cli.worker')


def _target(ctx: click.Context, parameter: click.Parameter, text: str) -> str:
    if not re.fullmatch(r'\w+(\.\w+)*:\w+(\.\w+)*', text):
        raise click.BadParameter('%r is not MODULE:SERVER, as in math_server:server' % text)
    return text


@click.command(cls=Command, short_help='Run a server in worker processes.')
@click.argument('target', metavar='MODULE:SERVER', callback=_target)
@click.option(
    '--processes', type=click.IntRange(1, 1000), default=1, show_default=True, help='How many worker processes.'
)
@click.option('--reload', is_flag=True, help='Restart the workers when a Python file below this directory changes.')
@click.option('--embedded', is_flag=True, help='Run the embedded broker as well, on this machine, for this machine.')
@click.option(
    '--port', type=click.IntRange(0, 65535), default=PORT, show_default=True, help='That of the embedded broker.'
)
@url_option
@click.pass_context
def command(
    context: click.Context, target: str, processes: int, reload: bool, embedded: bool, port: int, url: str | None
) -> int:
    """Run SERVER of MODULE, an AmqpRpcServer or a function that makes one, in worker processes.

    Workers are monkey-patched before they import MODULE, which is looked for in this directory first. --url reaches a
    server that is made without an address of its own.

    \b
    Example:
      amphora serve math_server:server --processes 4

    SIGTERM or Ctrl-C: take no more calls, finish those that run, end. The second one: end at once.
    SIGHUP: replace the workers one after the other; no call is lost. A worker that crashes is replaced.

    Exit codes: 0 stopped, 1 a worker crashed while it was to stop, 2 there is no such server, 4 the broker refuses, or
    the embedded one cannot listen, 130 or 143 after a second signal; that of a worker that ends before any could serve,
    1 where that is 0.
    """
    given = context.get_parameter_source
    if embedded and given('url') is ParameterSource.COMMANDLINE:
        raise click.UsageError('--embedded brings a broker of its own, and --url names another: give one of them')
    if not embedded and given('port') is ParameterSource.COMMANDLINE:
        raise click.UsageError('--port is that of the embedded broker: give --embedded, or the port in --url')
    make_settings(amqp_url=url)  # what makes no sense is found here, and once
    logging.basicConfig(level=logging.INFO, format=LOG_FORMAT)
    options = [target, '--debug'] if is_debug(context) else [target]
    broker = started_broker('127.0.0.1', port) if embedded else None
    try:
        environ = _environ(broker.url if broker is not None else url, reload)
        return _supervise(Supervisor(_WORKER, options, processes, environ), reload)
    finally:
        if broker is not None:
            broker.stop()


def _environ(url: str | None, reload: bool) -> dict[str, str]:
    environ = dict(os.environ)
    if url is not None:
        environ[variable_of('amqp_url')] = url
        environ.pop(variable_of('amqp_ssl'), None)  # it was for another address: the scheme says it of this one
    if reload:
        # Python takes compiled code for current when the source has the same size and the same second.
        environ['PYTHONDONTWRITEBYTECODE'] = '1'
    return environ


def _supervise(supervisor: Supervisor, reload: bool) -> int:
    """Run the workers until a signal ends them; the exit code."""
    status = 0

    def on_signal(signum: int) -> None:
        nonlocal status
        supervisor.stop()
        if supervisor.killed:
            status = 128 + signum

    for signum in (signal.SIGTERM, signal.SIGINT):
        gevent.signal_handler(signum, on_signal, signum)
    gevent.signal_handler(signal.SIGHUP, supervisor.restart)
    reloader = Reloader(os.getcwd(), supervisor.restart) if reload else None
    try:
        ended = supervisor.run()
    finally:
        if reloader is not None:
            reloader.stop()
    if supervisor.failure is not None:
        raise Failure(supervisor.failure, ended)
    return status or ended
