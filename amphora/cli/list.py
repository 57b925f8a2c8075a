"""``amphora list``: who serves what."""

from __future__ import annotations

from itertools import groupby

import click
import msgspec

from amphora.cli.common import NO_RESULT, Command, Failure, connect, plain, url_option
from amphora.cli.gather import gather_servers
from amphora.introspection import FunctionDescription, ServerDescription
from amphora.settings import make_settings


def _show(service: str, servers: list[ServerDescription]) -> None:
    kind = ' (fanout)' if all(server.fanout for server in servers) else ''
    click.secho(plain(service) + kind, bold=True)
    for server in servers:
        click.echo('  server %s  host %s  pid %d' % (plain(server.uuid), plain(server.host), server.pid))
    functions: dict[FunctionDescription, int] = {}
    for server in servers:
        for function in server.functions:
            functions[function] = functions.get(function, 0) + 1
    width = max((len(_call(function)) for function in functions), default=0)
    for function, count in functions.items():
        # In the middle of a roll-out, say.
        only = '' if count == len(servers) else '(%d of %d servers)' % (count, len(servers))
        words = ' '.join(filter(None, (plain(function.doc), only)))
        click.echo(('  %-*s  %s' % (width, _call(function), words)).rstrip())


def _call(function: FunctionDescription) -> str:
    return plain(function.name + function.signature)


@click.command(cls=Command, short_help='List services, their servers and their functions.')
@click.argument('service', required=False)
@click.option(
    '--wait',
    type=click.FloatRange(0, 60, min_open=True),
    default=1,
    show_default=True,
    metavar='SECONDS',
    help='How long servers have to answer.',
)
@click.option('--json', is_flag=True, help='Print what the servers answered, as JSON.')
@url_option
def command(service: str | None, wait: float, json: bool, url: str | None) -> None:
    """List the services that answer, or just SERVICE: its servers and its functions.

    Servers made with introspection=False do not answer.

    \b
    Example:
      amphora list simplemath

    Exit codes: 0 somebody answered, 2 wrong usage, 3 nobody answered, 4 no broker, or no access to it.
    """
    with connect(make_settings(amqp_url=url, service=service), 'amphora list') as connection:
        servers = gather_servers(connection, wait, service)
    if json:
        click.echo(msgspec.json.encode(servers))
    else:
        for name, group in groupby(servers, key=lambda server: server.service):
            _show(name, [*group])
    if not servers:
        whose = 'server' if service is None else 'server of %r' % service
        raise Failure('no %s answered within %g s' % (whose, wait), NO_RESULT)
