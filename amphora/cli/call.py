"""``amphora call``: one remote call from a shell."""

from __future__ import annotations

from typing import Any

import click
import msgspec

from amphora.cli.common import Command, client_options, connect, make_client
from amphora.client import MAX_TIMEOUT
from amphora.settings import make_settings

# How many of the arguments stand behind --.
_SEPARATED = 'amphora.separated'


class CallCommand(Command):
    """Takes negative numbers for the arguments that they are."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """See click."""
        ctx.meta[_SEPARATED] = len(args) - args.index('--') - 1 if '--' in args else 0
        return super().parse_args(ctx, args)


def value_of(text: str) -> Any:
    """What an argument on the command line stands for: JSON where it is that, else the text itself."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError):
        return text


def _arguments(ctx: click.Context, parameter: click.Parameter, texts: tuple[str, ...]) -> list[Any]:
    values = [value_of(text) for text in texts]
    # The parser lets through what it does not know, so that -2 is a number; a mistyped option must not become one.
    before = max(0, len(texts) - ctx.meta[_SEPARATED])
    for text, value in zip(texts[:before], values, strict=False):
        if text.startswith('-') and isinstance(value, str):
            raise click.UsageError('no such option: %s (text that begins with - goes behind --)' % text)
    return values


def _keywords(ctx: click.Context, parameter: click.Parameter, texts: tuple[str, ...]) -> dict[str, Any]:
    keywords = {}
    for text in texts:
        name, equals, value = text.partition('=')
        if not (name and equals):
            raise click.BadParameter('%r is not name=value' % text)
        keywords[name] = value_of(value)
    return keywords


@click.command(
    cls=CallCommand,
    context_settings={'ignore_unknown_options': True},
    short_help='Call a function and print its result.',
)
@click.argument('service')
@click.argument('function')
@click.argument('args', nargs=-1, metavar='[ARG]...', callback=_arguments)
@click.option(
    '-k',
    '--keyword',
    'kwargs',
    multiple=True,
    metavar='NAME=VALUE',
    callback=_keywords,
    help='A keyword argument; may be repeated.',
)
@click.option(
    '--timeout',
    type=click.FloatRange(0, MAX_TIMEOUT),
    default=60,
    show_default=True,
    help='Seconds to wait for the result.',
)
@click.option('--routing-key', metavar='KEY', help="Which queue is meant, if not the service's own.")
@client_options
def command(
    service: str,
    function: str,
    args: list[Any],
    kwargs: dict[str, Any],
    timeout: float,
    routing_key: str | None,
    fanout: bool,
    msgpack: bool,
    url: str | None,
) -> None:
    """Call FUNCTION of SERVICE and print its result as JSON.

    An ARG is JSON where it parses as JSON, else text: 2 is a number, add is text, and so is '"2"'.

    \b
    Example:
      amphora call simplemath add 2 3
      amphora call mailer send.sms +4912345 -k text='Hello there' --timeout 5

    Exit codes: 0 a result, 1 the function raised, or the server has none of that name, 2 wrong usage, 3 no result: not
    in time, no queue takes the request, or the answer cannot be read, 4 no broker, or no access to it.
    """
    # A client waits for its broker; somebody at a prompt wants to know at once that there is none.
    connect(make_settings(amqp_url=url, service=service), 'amphora call').close()
    client = make_client(service, fanout, msgpack, url, timeout)
    try:
        result = client.call(function_name=function, routing_key=routing_key)(*args, **kwargs)
    finally:
        client.stop()
    click.echo(msgspec.json.encode(result))
