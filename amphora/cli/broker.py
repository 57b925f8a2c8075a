"""``amphora broker``: the embedded broker in a process of its own."""

from __future__ import annotations

import logging
import signal

import click
import gevent
from gevent.event import Event

from amphora.broker import Broker
from amphora.cli.common import LOG_FORMAT, NO_ACCESS, USAGE, Command, Failure

#: where clients and servers look unless they are told otherwise
PORT = 5672


def started_broker(host: str, port: int, users: dict[str, str] | None = None) -> Broker:
    """An embedded broker that listens.

    :raises Failure: it cannot, most likely because the port is in use.
    """
    broker = Broker(host=host, port=port, users={'guest': 'guest'} if users is None else users)
    try:
        broker.start()
    except OSError as error:
        # The message of gevent's bind holds more than the reason.
        why = (error.strerror or str(error)).partition(':')[0]
        raise Failure('cannot listen on %s:%d: %s' % (host, port, why), NO_ACCESS) from error
    return broker


def _users(ctx: click.Context, parameter: click.Parameter, texts: tuple[str, ...]) -> dict[str, str] | None:
    users = {}
    for text in texts:
        name, colon, password = text.partition(':')
        if not (name and colon):
            # Without the text, which may be a password.
            raise Failure('--user takes NAME:PASSWORD', USAGE)
        users[name] = password
    return users or None


@click.command(cls=Command, short_help='Run the embedded broker.')
@click.option('--host', default='127.0.0.1', show_default=True, help='Address to listen on.')
@click.option('--port', type=click.IntRange(0, 65535), default=PORT, show_default=True, help='0: any that is free.')
@click.option(
    '--user',
    'users',
    multiple=True,
    metavar='NAME:PASSWORD',
    callback=_users,
    help='Who may connect; may be repeated. By default guest, with the password guest.',
)
def command(host: str, port: int, users: dict[str, str] | None) -> int:
    """Run an AMQP broker for first steps, tests and demos on one machine. It keeps nothing on disk: what it holds is
    gone when it ends. For everything else there is RabbitMQ.

    \b
    Example:
      amphora broker --port 5673 --user ann:secret

    Exit codes: 0 stopped by Ctrl-C or SIGTERM, 2 wrong usage, 4 it cannot listen.
    """
    logging.basicConfig(level=logging.WARNING, format=LOG_FORMAT)
    broker = started_broker(host, port, users)
    stopping = Event()
    for signum in (signal.SIGINT, signal.SIGTERM):
        gevent.signal_handler(signum, stopping.set)
    try:
        click.echo('amphora broker on %s:%d; Ctrl-C ends it' % (host, broker.port))
        click.echo('for one machine; keeps nothing on disk')
        stopping.wait()
    finally:
        broker.stop()
    return 0
