"""Amphora's own calls: the same on the embedded broker as on RabbitMQ; and on the embedded one what may go wrong."""

import gevent
import pytest

from amphora import (
    AmqpRpcClient,
    AmqpRpcFanoutClient,
    AmqpRpcFanoutServer,
    AmqpRpcServer,
    IgnoreRequest,
    Unroutable,
)
from tests.waiting import eventually


@pytest.fixture
def start(url, service):
    """Makes clients and servers of the test's service, and stops them afterwards."""
    parts = []

    def make(kind, **options):
        part = kind(service, amqp_url=url, **options)
        parts.append(part)
        return part

    yield make
    for part in reversed(parts):
        part.stop()


def test_calls_return_what_the_function_returns(start):
    server = start(AmqpRpcServer)
    server.add_function(lambda x, y: x + y, 'add')
    server.serve()
    client = start(AmqpRpcClient, timeout=10)

    assert client.call.add(2, 3) == 5
    calls = [gevent.spawn(client.call.add, n, 1) for n in range(200)]
    assert [call.get() for call in calls] == [n + 1 for n in range(200)]


def test_a_call_made_before_the_server_is_there_waits_for_it(start):
    client = start(AmqpRpcClient, timeout=10)
    call = client.defer.echo('hello')

    server = start(AmqpRpcServer)
    server.add_function(lambda text: text, 'echo')
    server.serve()

    assert call.get() == 'hello'


def test_a_fanout_call_reaches_every_server(start):
    seen = []
    for name in ('first', 'second'):
        server = start(AmqpRpcFanoutServer)
        server.add_function(lambda name=name: seen.append(name) or name, 'who')
        server.serve()
        server._consuming.wait_ready()
    client = start(AmqpRpcFanoutClient, timeout=10)

    def asked_both():
        return client.call.who() in ('first', 'second') and set(seen) == {'first', 'second'}

    eventually(asked_both)


@pytest.mark.limit(30)
def test_an_ignored_request_goes_to_another_server(start):
    ignored = []

    def unwilling():
        ignored.append(True)
        raise IgnoreRequest

    client = start(AmqpRpcClient, timeout=20)
    first = start(AmqpRpcServer)
    first.add_function(unwilling, 'work')
    first.serve()
    call = client.defer.work()
    eventually(lambda: ignored)
    second = start(AmqpRpcServer)
    second.add_function(lambda: 'done', 'work')
    second.serve()

    assert call.get() == 'done'


def test_a_call_with_an_unknown_routing_key_is_unroutable(start):
    client = start(AmqpRpcClient, timeout=10)

    with pytest.raises(Unroutable):
        client.call(routing_key='nowhere').work()


@pytest.mark.parametrize('kind', ['embedded'], indirect=True)
def test_calls_survive_connections_that_are_dropped_again_and_again(start, broker):
    server = start(AmqpRpcServer)
    server.add_function(lambda n: n, 'echo')
    server.serve()
    client = start(AmqpRpcClient, timeout=20)
    assert client.call.echo(0) == 0

    calls = []
    for n in range(300):
        calls.append(gevent.spawn(client.call.echo, n))
        if n % 100 == 50:
            gevent.sleep(0)
            broker.drop_connections()
        gevent.sleep(0.001)

    assert [call.get() for call in calls] == list(range(300))
    request_queue = 'rpc_%s_request' % client.service_name
    eventually(lambda: broker.queues()[request_queue][:2] == (0, 0))
