"""Brokers for the tests of the embedded one: itself, and RabbitMQ to compare it with."""

from collections.abc import Callable, Iterator

import pytest

from amphora.amqp import Channel, Connection
from amphora.broker import Broker
from tests.waiting import eventually


@pytest.fixture
def broker() -> Iterator[Broker]:
    """An embedded broker of the test's own."""
    with Broker() as broker:
        yield broker


@pytest.fixture(params=['embedded', 'rabbitmq'])
def kind(request: pytest.FixtureRequest) -> str:
    """Which broker the scenario runs on; for what the two do differently."""
    return request.param


@pytest.fixture
def url(kind: str, request: pytest.FixtureRequest) -> str:
    """Of a broker, which is the embedded one first and then RabbitMQ: what passes is true of both."""
    return request.getfixturevalue('broker').url if kind == 'embedded' else request.getfixturevalue('amqp_url')


@pytest.fixture
def connect(url: str) -> Iterator[Callable[..., Connection]]:
    """Opens connections and closes them after the test."""
    connections = []

    def open_one(**options: object) -> Connection:
        connections.append(Connection.from_url(url, **options))
        return connections[-1]

    yield open_one
    for connection in connections:
        connection.close()


@pytest.fixture
def channel(connect: Callable[..., Connection]) -> Channel:
    return connect().channel()


@pytest.fixture
def declared(channel: Channel) -> Iterator[Callable[[str, str], str]]:
    """Remembers the names of queues and exchanges (`kind`, as the channel calls it), to delete them after the test."""
    made = []

    def remember(kind: str, name: str) -> str:
        made.append((kind, name))
        return name

    yield remember
    if not channel.connection.closed:
        with channel.connection.channel() as closing:
            for kind, name in made:
                getattr(closing, kind).delete(name)


@pytest.fixture
def queue(channel: Channel, service: str, declared: Callable[[str, str], str]) -> Callable[..., str]:
    """Declares queues of the test's own."""

    def declare(label: str = 'queue', on: Channel | None = None, **options: object) -> str:
        name = '%s.%s' % (service, label)
        (on or channel).queue.declare(name, **options)
        return declared('queue', name)

    return declare


@pytest.fixture
def exchange(channel: Channel, service: str, declared: Callable[[str, str], str]) -> Callable[..., str]:
    """Declares exchanges of the test's own."""

    def declare(kind: str = 'direct', label: str = 'exchange', **options: object) -> str:
        name = '%s.%s' % (service, label)
        channel.exchange.declare(name, kind, **options)
        return declared('exchange', name)

    return declare


@pytest.fixture
def drain(channel: Channel) -> Callable[..., list[str]]:
    """Gets messages from a queue until there are as many as expected; their bodies."""

    def get(name: str, count: int, on: Channel | None = None) -> list[str]:
        bodies = []

        def got_enough() -> bool:
            while (message := (on or channel).basic.get(name, no_ack=True)) is not None:
                bodies.append(message.body.decode())
            return len(bodies) >= count

        eventually(got_enough)
        return bodies

    return get
