"""A peer made by hand, and a way to the broker that can be closed."""

from collections.abc import Iterator

import pytest

from amphora.amqp import Connection
from tests.proxy import Proxy
from tests.rabbitmq import RabbitNode
from tests.rpc.peer import Peer


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
