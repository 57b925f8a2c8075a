"""What the tests of `amphora.amqp` share: connections that are closed behind them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from amphora.amqp import Channel, Connection
from tests.rabbitmq import RabbitNode

Connect = Callable[..., Connection]


@pytest.fixture
def connect(rabbit: RabbitNode) -> Iterator[Connect]:
    """Connects to the run's RabbitMQ with the options given; what the test has left open is closed behind it."""
    made: list[Connection] = []

    def connect(**options: Any) -> Connection:
        made.append(Connection(**{'host': rabbit.host, 'port': rabbit.port, **options}))
        return made[-1]

    yield connect
    for connection in made:
        connection.close()


@pytest.fixture
def connection(connect: Connect) -> Connection:
    return connect()


@pytest.fixture
def channel(connection: Connection) -> Channel:
    return connection.channel()


@pytest.fixture
def queue(channel: Channel, service: str) -> str:
    """A queue of the test's own, which goes with its connection."""
    channel.queue.declare(service, exclusive=True)
    return service
