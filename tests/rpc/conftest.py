"""A peer made by hand, a way to the broker that can be closed, and a request queue beside the service's own."""

from collections.abc import Iterator

import pytest

from amphora import AmqpRpcClient
from amphora.amqp import Connection
from tests.parties import Client
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


@pytest.fixture
def label(service: str) -> str:
    """Of a request queue of the test's own."""
    return f'{service}-label'


@pytest.fixture
def queue(label: str) -> str:
    """The full name of the queue of that label."""
    return f'rpc_{label}_request'


@pytest.fixture
def calling(client: Client, label: str) -> AmqpRpcClient:
    """A client that has created that queue."""
    made = client()
    made.create_new_request_queue(label)
    return made
