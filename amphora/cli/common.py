"""What commands share: options, exit codes, and errors as one line."""

from __future__ import annotations

import logging
import re
import traceback
from collections.abc import Callable
from typing import Any, TypeVar

import click
import gevent

from amphora.amqp import Connection
from amphora.amqp.errors import ConnectionFailed
from amphora.client import AmqpRpcClient, AmqpRpcFanoutClient
from amphora.errors import AmphoraError, AmqpError, NoResult, NotSent, RemoteException, WrongRequest
from amphora.serializer import RpcJsonSerializer, RpcMsgPackSerializer
from amphora.settings import Settings

F = TypeVar('F', bound=Callable[..., Any])

#: exit codes; 0 is success
REMOTE_ERROR = 1
USAGE = 2
NO_RESULT = 3
NO_ACCESS = 4

#: how commands log, where they do
LOG_FORMAT = '%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s'

_DEBUG = 'amphora.debug'

# The first that fits.
_EXIT_CODES: tuple[tuple[type[BaseException], int], ...] = (
    (NotSent, NO_ACCESS),
    (NoResult, NO_RESULT),
    (AmqpError, NO_ACCESS),
    (RemoteException, REMOTE_ERROR),
    (WrongRequest, REMOTE_ERROR),
    (AmphoraError, NO_RESULT),
    # What the user gave cannot be used: a URL, a certificate file, an argument that does not serialise.
    (ValueError, USAGE),
    (TypeError, USAGE),
    (OSError, USAGE),
    # Of what an option needs, such as zstandard.
    (ImportError, USAGE),
)


class Failure(Exception):
    """Ends the command with one line and an exit code."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message, exit_code)
        self.message = message
        self.exit_code = exit_code


class Command(click.Command):
    """A command whose errors are one line and an exit code; with ``--debug`` the log and a traceback come before."""

    def __init__(self, *args: Any, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.params.append(
            click.Option(
                ['--debug'],
                is_flag=True,
                expose_value=False,
                callback=_remember_debug,
                help='Show the log, and the traceback of an error.',
            )
        )

    def invoke(self, ctx: click.Context) -> Any:
        """See click."""
        hub = gevent.get_hub()
        # Ctrl-C is no error whose traceback gevent should print.
        hub.NOT_ERROR = (*hub.NOT_ERROR, KeyboardInterrupt)
        # Nor is an error that is told anyway to be logged as well, on a stderr that nobody has set up for it.
        logging.getLogger('amphora').addHandler(logging.NullHandler())
        if is_debug(ctx):
            logging.basicConfig(level=logging.INFO, format=LOG_FORMAT)
        try:
            return super().invoke(ctx)
        except (Failure, click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except Exception as error:
            if is_debug(ctx):
                click.echo(without_login(traceback.format_exc()), nl=False, err=True)
            raise Failure(explain(error), exit_code_of(error)) from error


def _remember_debug(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    ctx.meta[_DEBUG] = value


def is_debug(ctx: click.Context) -> bool:
    """Whether ``--debug`` was given."""
    return bool(ctx.meta.get(_DEBUG))


def url_option(function: F) -> F:
    """The option ``--url``; None where it is not given: `amphora.settings.make_settings` knows where to look then."""
    return click.option(
        '--url',
        metavar='URL',
        help='The broker, as in amqp://user:password@host:5672/vhost; several with commas between.  '
        '[default: see amphora config]',
    )(function)


def client_options(function: F) -> F:
    """The options that `make_client` understands, and ``--url``."""
    for option in (
        url_option,
        click.option('--msgpack', is_flag=True, help='Speak MessagePack, if the server does.'),
        click.option('--fanout', is_flag=True, help='The servers are fanout servers: ask all of them.'),
    ):
        function = option(function)
    return function


def make_client(service: str, fanout: bool, msgpack: bool, url: str | None, timeout: float) -> AmqpRpcClient:
    """A client as the `client_options` say."""
    make = AmqpRpcFanoutClient if fanout else AmqpRpcClient
    return make(
        service, serializer=RpcMsgPackSerializer if msgpack else RpcJsonSerializer, timeout=timeout, amqp_url=url
    )


def connect(settings: Settings, name: str) -> Connection:
    """A connection to the first host that can be reached; unlike a client, it does not try for long.

    :raises AmqpError: none can; of several errors, the one that says more.
    """
    errors: list[AmqpError] = []
    for options in settings.hosts:
        try:
            return Connection(**{'name': name, **options})
        except AmqpError as error:
            errors.append(error)
    # A broker that was reached and refuses says more than one that was not.
    raise next((error for error in errors if type(error) is not ConnectionFailed), errors[-1])


def exit_code_of(error: BaseException) -> int:
    """The exit code that an error of amphora stands for."""
    return next((code for kind, code in _EXIT_CODES if isinstance(error, kind)), REMOTE_ERROR)


def explain(error: BaseException) -> str:
    """An error as text for a user."""
    if isinstance(error, RemoteException):
        return 'the function raised %s' % error
    if isinstance(error, AmphoraError):
        return str(error) or type(error).__name__
    if isinstance(error, OSError) and error.filename is not None:
        return '%s: %s' % (error.strerror, error.filename)
    return str(error) or type(error).__name__


def plain(text: str) -> str:
    """Text from elsewhere on one line, and without what a terminal would obey."""
    return ''.join(
        character if character.isprintable() else character.encode('unicode_escape').decode()
        for character in ' '.join(text.split())
    )


def without_login(text: str) -> str:
    """Text without the users and passwords of URLs in it: what was typed in the wrong place is echoed as an argument
    that makes no sense, and stderr is kept by whoever runs the command."""
    return re.sub(r'://\S*@', '://***@', text)


def say(message: str) -> None:
    """One line on stderr."""
    click.echo('amphora: ' + plain(without_login(message)), err=True)
