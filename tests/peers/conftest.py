"""Other people's clients, unchanged: against the embedded broker, and in conversation with amphora on both brokers."""

import secrets
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest

from amphora import AmqpRpcClient, AmqpRpcServer
from amphora.broker import Broker
from tests.parties import Client, Server
from tests.peers.loops import Loop


@pytest.fixture
def broker() -> Iterator[Broker]:
    with Broker() as broker:
        yield broker


@pytest.fixture
def in_thread() -> Callable[..., Any]:
    """Runs a function in a native thread and waits for it: these clients block theirs, and the broker needs its own."""
    return gevent.get_hub().threadpool.apply


@pytest.fixture(params=['RabbitMQ', 'embedded'])
def url(request: pytest.FixtureRequest) -> str:
    """Of a broker: that of the run, or an embedded one."""
    if request.param == 'RabbitMQ':
        return request.getfixturevalue('amqp_url')
    return request.getfixturevalue('broker').url


@pytest.fixture
def loop() -> Iterator[Loop]:
    made = Loop()
    yield made
    made.stop()


@pytest.fixture
def name() -> Callable[[str], str]:
    """Names of functions, and so of queues, that are the test's own."""
    suffix = secrets.token_hex(4)
    return lambda word: f'{word}_{suffix}'


@pytest.fixture
def serving(url: str, serving: Server) -> Server:
    """Makes a server on that broker, and waits until it takes requests."""

    def make(*functions: Callable[..., Any], **options: Any) -> AmqpRpcServer:
        return serving(*functions, amqp_url=url, **options)

    return make


@pytest.fixture
def client(url: str, client: Client) -> Client:
    """Makes a client on that broker."""

    def make(**options: Any) -> AmqpRpcClient:
        return client(amqp_url=url, **options)

    return make
