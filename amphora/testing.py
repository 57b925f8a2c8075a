"""A broker and a server for the length of a ``with`` block, for tests of one's own.

Everything here is real: the broker listens on a port, the server and the client talk AMQP to it. Only faults are made
to order, with the levers of `amphora.broker.Broker`.
"""

from __future__ import annotations

import functools
import inspect
import logging
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from time import monotonic
from types import ModuleType
from typing import Any

import gevent
from gevent.event import Event
from greenlet import getcurrent, greenlet

from amphora.amqp import Channel
from amphora.broker import Broker
from amphora.checks import check_seconds
from amphora.client import AmqpRpcClient
from amphora.dead_letters import dead_queue
from amphora.dialects.native import request_exchange, request_queue, response_exchange
from amphora.dispatch import is_async
from amphora.errors import AmqpError, NotSent
from amphora.functions import options_of
from amphora.server import AmqpRpcServer
from amphora.session import Session
from amphora.timing import Deadline
from amphora.topology import Topology

__all__ = ('running_broker', 'running_server')

logger = logging.getLogger('amphora.testing')

Function = Callable[..., Any]

#: seconds that `running_server` waits for the broker
CONNECT_TIMEOUT = 10.0
#: the longest `stop_timeout`, in seconds: an hour
MAX_STOP_TIMEOUT = 3600


@contextmanager
def running_broker(**options: Any) -> Iterator[Broker]:
    """An embedded broker that runs as long as the ``with`` block, on a free port of 127.0.0.1::

        with running_broker() as broker:
            client = AmqpRpcClient('simplemath', amqp_url=broker.url)

    It is empty at the start, and shares nothing with other brokers. What it can be made to do is in
    `amphora.broker.Broker`.

    :param options: those of `amphora.broker.Broker`: host, port, users, vhosts, limits.
    :raises TypeError: an option is unknown or of the wrong type.
    :raises OSError: the address or port cannot be had.
    """
    with Broker(**options) as broker:
        yield broker


@contextmanager
def running_server(
    functions: Mapping[str, Function] | Iterable[Function] | object,
    service: str | None = None,
    broker: Broker | str | None = None,
    server_options: Mapping[str, Any] | None = None,
    client_options: Mapping[str, Any] | None = None,
    stop_timeout: float = 1,
) -> Iterator[AmqpRpcClient]:
    """A server of some functions, and a client of it, connected both, as long as the ``with`` block::

        with running_server({'add': operator.add}) as client:
            assert client.call.add(2, 3) == 5

    At the end, however the block ends, the client is stopped, then the server, then the broker if it was started here.
    Of a service whose name was made up here nothing stays on a broker that goes on.

    :param functions: by name in a dict; or several that have names of their own, in a list; or what they are in: a
        module, of which it is the public functions (those of ``__all__``; without that those defined there), or another
        object, of which it is the public callables that are not classes.
    :param service: the service's name; None: one that nobody else has.
    :param broker: an `amphora.broker.Broker` that runs, or the URL of any broker; None: an embedded one of its own.
    :param server_options: more options for `amphora.AmqpRpcServer`; amqp_url: another way to the broker.
    :param client_options: the same for `amphora.AmqpRpcClient`.
    :param stop_timeout: seconds that functions which still run at the end are given, after which GreenletExit is raised
        in them; and that the client, and then the server, wait for a broker that takes nothing.
    :raises TypeError: an argument, a function or an option is of the wrong type.
    :raises ValueError: there is nothing to call, a name is not usable or there twice, or an option makes no sense.
    :raises AmqpError: the broker refuses the login, the virtual host or a queue.
    :raises NotSent: there was no broker for ten seconds.
    """
    named = _by_name(functions)
    if not named:
        raise ValueError('there is no function in %r' % (functions,))
    check_seconds(stop_timeout, 'stop_timeout', MAX_STOP_TIMEOUT)
    passing = service is None and broker is not None
    if service is None:
        service = 'test-%s' % secrets.token_hex(8)
    with ExitStack() as cleanup:
        if broker is None:
            broker = cleanup.enter_context(running_broker())
        url = _url_of(broker)
        server = AmqpRpcServer(service, **{'amqp_url': url, **(server_options or {})})
        calls = _Calls()
        for name, function in named.items():
            # What is followed is the greenlet, so an async function is made one that waits in it first.
            waiting = server._awaited(function, name) if is_async(function) else function
            server.add_function(calls.follow(waiting), name)
        client = AmqpRpcClient(service, **{'amqp_url': url, 'autostart': False, **(client_options or {})})
        # Last in, first out: the client is stopped first, then what its calls still do is ended.
        if passing:
            cleanup.callback(_remove, server, stop_timeout)
        cleanup.callback(_stop, server, stop_timeout)
        cleanup.callback(calls.end, stop_timeout)
        cleanup.callback(server.prepare_stop)
        cleanup.callback(_stop, client, stop_timeout)
        server.serve()
        client.serve()
        deadline = Deadline.after(CONNECT_TIMEOUT, monotonic())
        for session in (server._publishing, server._consuming, client._publishing, client._consuming):
            if session.wait_ready(deadline) is None:
                raise NotSent('no broker within %g s: %s' % (CONNECT_TIMEOUT, session.obstacle()))
        yield client


def _stop(part: AmqpRpcClient | AmqpRpcServer, timeout: float) -> None:
    """Stop a client or server. By themselves they wait for up to half a minute for the broker to confirm what they have
    sent, which is long for a test that has left it blocked."""
    stopped = Event()

    def hurry() -> None:
        if not stopped.wait(timeout):
            logger.warning('%r: the broker has not confirmed everything in %g s', part, timeout)
            # What there is no connection for is not waited for.
            part._publishing.stop()

    hurrying = gevent.spawn(hurry)
    try:
        part.stop()
    finally:
        stopped.set()
        hurrying.join()


def _remove(server: AmqpRpcServer, timeout: float) -> None:
    """Delete what a service had on its broker: nobody will ask for it again, and it is durable."""
    service = server.service_name

    def remove(channel: Channel) -> None:
        for queue in (request_queue(service), dead_queue(service)):
            channel.queue.delete(queue)
        for exchange in (request_exchange(service), response_exchange(service)):
            channel.exchange.delete(exchange)

    session = Session(server._settings, Topology(), 'amphora.testing')
    session.start()
    try:
        session.with_channel(remove, timeout)
    except AmqpError as error:
        logger.info('%r: its queues and exchanges stay: %s', server, error)
    finally:
        session.stop()


def _url_of(broker: object) -> str:
    if isinstance(broker, str):
        return broker
    if not isinstance(broker, Broker):
        raise TypeError('broker must be a Broker, a URL or None, not %r' % (broker,))
    return broker.url


def _by_name(functions: object) -> dict[str, Function]:
    if isinstance(functions, Mapping):
        return dict(functions)
    if isinstance(functions, str) or inspect.isroutine(functions) or not _may_hold_functions(functions):
        raise TypeError(
            'functions must be a dict of name -> function, a list of functions, a module or another object that has '
            'some, not %r' % (functions,)
        )
    if isinstance(functions, Iterable):
        return _from_list(functions)
    return _from_namespace(functions)


def _may_hold_functions(functions: object) -> bool:
    return isinstance(functions, Iterable) or hasattr(functions, '__dict__')


def _from_list(functions: Iterable[Any]) -> dict[str, Function]:
    named: dict[str, Function] = {}
    for function in functions:
        if not callable(function):
            raise TypeError('a function must be callable, which %r is not' % (function,))
        name = str(options_of(function).name or getattr(function, '__name__', '<nameless>'))
        if not name.replace('.', '_').isidentifier():
            raise ValueError('%r has no name to be called by: give a dict of name -> function' % (function,))
        if name in named:
            raise ValueError('two functions are named %r: give a dict of name -> function' % name)
        named[name] = function
    return named


def _from_namespace(namespace: object) -> dict[str, Function]:
    names = getattr(namespace, '__all__', None)
    listed = names is not None
    named: dict[str, Function] = {}
    for name in names if names is not None else dir(namespace):
        value = getattr(namespace, name)
        if not callable(value) or isinstance(value, type) or (name.startswith('_') and not listed):
            continue
        # What a module has imported is not its own.
        home = getattr(value, '__module__', None)  # which methods of built-in classes have not
        if not listed and isinstance(namespace, ModuleType) and home != namespace.__name__:
            continue
        named[options_of(value).name or name] = value
    if not named:
        raise ValueError('there is no public function in %r' % (namespace,))
    return named


class _Calls:
    """The functions that run, so that one which never returns does not keep a test from its end."""

    def __init__(self) -> None:
        self._running: set[greenlet] = set()
        self._none = Event()
        self._none.set()

    def follow(self, function: Function) -> Function:
        """The function, known here while it runs.

        :raises TypeError: it cannot be called.
        """
        if not callable(function):
            raise TypeError('a function must be callable, which %r is not' % (function,))

        @functools.wraps(function)
        def followed(*args: Any, **kwargs: Any) -> Any:
            current = getcurrent()
            self._running.add(current)
            self._none.clear()
            try:
                return function(*args, **kwargs)
            finally:
                self._running.discard(current)
                if not self._running:
                    self._none.set()

        return followed

    def end(self, timeout: float) -> None:
        """Wait for those that run; what runs longer is killed.

        :param timeout: seconds.
        """
        if self._none.wait(timeout):
            return
        logger.warning('%d functions still ran %g s after their client was stopped', len(self._running), timeout)
        for each in list(self._running):
            gevent.kill(each)
