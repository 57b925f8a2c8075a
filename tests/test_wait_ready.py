"""AmqpRpcServer.wait_ready: whether a server takes requests."""

import pytest

from amphora import AmqpRpcServer
from amphora.amqp import LoginRefused


@pytest.fixture
def server(service):
    """Makes a server at a URL and starts it; stops it at the end."""
    made = []

    def make(url):
        made.append(AmqpRpcServer(service, amqp_url=url))
        made[-1].serve()
        return made[-1]

    yield make
    for each in made:
        each.stop()


def test_a_server_is_ready_once_its_queue_has_a_consumer(server, rabbit, service):
    assert server(rabbit.url).wait_ready(10) is True

    assert rabbit.list_queues()[f'rpc_{service}_request'] == (0, 1)


def test_a_server_without_a_broker_is_not_ready_in_time(server):
    assert server('amqp://127.0.0.1:1/').wait_ready(0.2) is False


def test_a_refusal_is_raised(server, rabbit):
    refused = server(rabbit.url.replace('guest:guest', 'guest:not-the-word'))

    with pytest.raises(LoginRefused):
        refused.wait_ready(10)
