"""Servers and clients of the test's own service, a peer made by hand, and a way to the broker that can be closed."""

import time
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import gevent
import gevent.event
import pytest

from amphora import AmqpRpcClient, AmqpRpcFanoutClient, AmqpRpcFanoutServer, AmqpRpcServer
from amphora.amqp import Connection
from tests.proxy import Proxy
from tests.rabbitmq import RabbitNode
from tests.rpc.peer import Peer

# How long a client or server may take to stop.
STOP_LIMIT = 10

Server = Callable[..., AmqpRpcServer]
Client = Callable[..., AmqpRpcClient]


@pytest.fixture
def stopped_at_the_end() -> Iterator[list[Any]]:
    """Clients and servers to stop when the test is over, the youngest first."""
    started: list[Any] = []
    yield started
    for one in reversed(started):
        with gevent.Timeout(STOP_LIMIT):
            one.stop()


@pytest.fixture
def server(amqp_url: str, service: str, stopped_at_the_end: list[Any]) -> Server:
    """Makes a server with functions, under their own names or those in `named`, and starts it unless told otherwise."""

    def make(
        *functions: Callable[..., Any],
        named: Mapping[str, Callable[..., Any]] = MappingProxyType({}),
        kind: type = AmqpRpcServer,
        serve: bool = True,
        **options: Any,
    ) -> Any:
        made = kind(service, **{'amqp_url': amqp_url, **options})
        stopped_at_the_end.append(made)
        for function in functions:
            made.add_function(function)
        for name, function in named.items():
            made.add_function(function, name=name)
        if serve:
            made.serve()
        return made

    return make


@pytest.fixture
def client(amqp_url: str, service: str, stopped_at_the_end: list[Any]) -> Client:
    """Makes a client; its timeout is short enough for a test that goes wrong to say so."""

    def make(*, kind: type = AmqpRpcClient, **options: Any) -> Any:
        made = kind(service, **{'amqp_url': amqp_url, 'timeout': 10, **options})
        stopped_at_the_end.append(made)
        return made

    return make


@pytest.fixture
def fanout_server(server: Server) -> Server:
    def make(*functions: Callable[..., Any], **options: Any) -> Any:
        return server(*functions, kind=AmqpRpcFanoutServer, **options)

    return make


@pytest.fixture
def fanout_client(client: Client) -> Client:
    def make(**options: Any) -> Any:
        return client(kind=AmqpRpcFanoutClient, **options)

    return make


@pytest.fixture
def peer(amqp_url: str, service: str) -> Iterator[Peer]:
    with Connection.from_url(amqp_url) as connection:
        yield Peer(connection, service)


@pytest.fixture
def gateway(rabbit: RabbitNode) -> Iterator[Proxy]:
    """A way to the broker, closed until the test opens it."""
    with Proxy(rabbit.port) as made:
        made.refuse()
        yield made


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began


@pytest.fixture
def stopwatch() -> type[Stopwatch]:
    return Stopwatch


class Gate:
    """A remote function that waits: `entered` says what it was called with so far; `open()` lets it return."""

    def __init__(self) -> None:
        self.entered: list[Any] = []
        self.left: list[Any] = []
        self._opened = gevent.event.Event()

    def function(self, name: str = 'wait') -> Callable[[Any], Any]:
        def wait(value: Any = None) -> Any:
            self.entered.append(value)
            if not self._opened.wait(20):
                raise TimeoutError('nobody opened the gate')
            self.left.append(value)
            return value

        wait.__name__ = name
        return wait

    def open(self) -> None:
        self._opened.set()


@pytest.fixture
def gate(stopped_at_the_end: list[Any]) -> Iterator[Gate]:
    """What `server(gate.function())` serves as `wait`; opened at the test's end at the latest."""
    made = Gate()
    yield made
    made.open()


@pytest.fixture
def elsewhere() -> Callable[..., Any]:
    """Calls a function in a thread that is not this one, and returns or raises as it does."""

    def outcome(function: Callable[..., Any], *args: Any) -> tuple[Any, Exception | None]:
        # gevent prints what is raised in a thread.
        try:
            return function(*args), None
        except Exception as error:
            return None, error

    def call(function: Callable[..., Any], *args: Any) -> Any:
        returned, raised = gevent.get_hub().threadpool.spawn(outcome, function, *args).get(timeout=5)
        if raised is not None:
            raise raised
        return returned

    return call
