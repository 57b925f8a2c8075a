"""What servers say of themselves, as any fanout client can ask; and that it is never in a service's way."""

import functools
import os
import socket

import gevent
import pytest

from amphora import AmqpRpcFanoutClient, AmqpRpcFanoutServer, AmqpRpcServer, NoResult, Unroutable, WrongRequest
from amphora.amqp import Connection, Message, PreconditionFailed
from amphora.dispatch import FunctionTable
from amphora.introspection import describe_server
from tests.waiting import eventually

LIMIT = 10


def add(x: int, y: int = 1) -> int:
    """The sum.

    Of two numbers.
    """
    return x + y


class Odd:
    """Not the doc of its instances."""

    def __call__(self, one):
        return one


class Unshowable:
    def __repr__(self):
        raise RuntimeError('no')


def described(*functions):
    table = FunctionTable()
    for number, function in enumerate(functions):
        table.add(function, 'f%d' % number)
    said = describe_server('service', 'uuid', False, table)
    return [(function.signature, function.doc) for function in said.functions]


@pytest.fixture
def amqp_url(rabbit, vhost):
    """Of a virtual host of the test's own, where nobody else answers."""
    return rabbit.url_of(vhost)


@pytest.fixture
def numbers(serving):
    """Makes servers of a service with that name."""
    return functools.partial(serving, service='numbers')


@pytest.fixture
def asking(client):
    return client(kind=AmqpRpcFanoutClient, service='amphora')


def test_signatures_and_the_first_lines_of_docstrings():
    assert described(add, lambda: None) == [('(x: int, y: int = 1) -> int', 'The sum.'), ('()', '')]


def test_what_has_no_docstring_of_its_own_has_none():
    assert described(Odd(), functools.partial(add, 1)) == [('(one)', ''), ('(y: int = 1) -> int', '')]


def test_what_python_does_not_know_is_left_open():
    def broken(x=Unshowable()):  # noqa: B008  # the default that cannot be shown
        return x

    assert [signature for signature, _ in described(print, broken, dict.fromkeys, type)][1:2] == ['(...)']


def test_a_default_of_any_size_is_shortened():
    def large(x='-' * 10_000):
        return x

    ((signature, _),) = described(large)
    assert len(signature) < 600
    assert signature.endswith('...')


@pytest.mark.parametrize(('kind', 'fanout'), [(AmqpRpcServer, False), (AmqpRpcFanoutServer, True)])
def test_a_server_describes_itself(numbers, asking, kind, fanout):
    server = numbers(kind=kind)
    server.add_function(add, name='plus')

    assert asking.call.describe() == {
        'service': 'numbers',
        'uuid': server.uuid,
        'host': socket.gethostname(),
        'pid': os.getpid(),
        'fanout': fanout,
        'functions': [{'name': 'plus', 'signature': '(x: int, y: int = 1) -> int', 'doc': 'The sum.'}],
    }


def test_nothing_else_can_be_called(numbers, asking):
    numbers().add_function(add)

    with pytest.raises(WrongRequest):
        asking.call.add(1)


def test_a_server_that_has_stopped_leaves_no_queue_and_may_serve_again(numbers, asking, rabbit, vhost):
    server = numbers()
    assert f'rpc_amphora_{server.uuid}_request' in rabbit.list_queues(vhost)

    server.stop()
    assert f'rpc_amphora_{server.uuid}_request' not in rabbit.list_queues(vhost)
    with pytest.raises(Unroutable):
        asking.call.describe()

    server.serve()
    assert server.wait_ready(LIMIT)
    assert asking.call.describe()['uuid'] == server.uuid


def test_one_that_is_stopped_while_it_declares_leaves_no_queue_either(numbers, rabbit, vhost):
    server = numbers()
    introspection = server._introspection
    introspection.stop()
    starting = gevent.spawn(introspection.start)
    gevent.sleep(0)

    introspection.stop()
    starting.get(timeout=LIMIT)

    assert f'rpc_amphora_{server.uuid}_request' not in rabbit.list_queues(vhost)


def test_a_server_that_is_refused_its_queues_does_not_answer_and_says_nothing(rabbit, vhost, server, client, capfd):
    url = rabbit.url_of(vhost)
    with Connection.from_url(url) as connection:
        connection.channel().queue.declare('rpc_numbers_request', durable=True, arguments={'x-max-length': 5})
    refused = server(service='numbers')
    with pytest.raises(PreconditionFailed):
        refused.wait_ready(LIMIT)

    with pytest.raises(NoResult):
        client(kind=AmqpRpcFanoutClient, service='amphora', timeout=2).call.describe()

    assert 'Traceback' not in capfd.readouterr().err


def test_it_can_be_switched_off(numbers, asking, rabbit, vhost):
    server = numbers(introspection=False)

    with pytest.raises(Unroutable):
        asking.call.describe()
    assert f'rpc_amphora_{server.uuid}_request' not in rabbit.list_queues(vhost)


def test_it_comes_back_after_the_connection_was_lost(numbers, asking, rabbit, vhost):
    server = numbers()

    rabbit.ctl('close_all_connections', '--vhost', vhost, 'tested')

    assert eventually(lambda: asking.call.describe()['uuid'] == server.uuid, LIMIT)


def test_requests_that_make_no_sense_are_passed_over(numbers, asking, rabbit, vhost):
    server = numbers()
    with Connection.from_url(rabbit.url_of(vhost)) as connection:
        channel = connection.channel()
        channel.basic.publish(Message(b'what?'), 'rpc_amphora_request')
        channel.basic.publish(Message(b'what?', message_id='1', reply_to='nobody'), 'rpc_amphora_request')
        channel.basic.publish(
            Message(b'{"func": "describe", "args": [], "kwargs": {}}', message_id='1', reply_to='nobody'),
            'rpc_amphora_request',
        )

    assert asking.call.describe()['uuid'] == server.uuid


def test_a_server_works_where_the_broker_does_not_allow_it(numbers, client, asking, rabbit, vhost):
    rabbit.ctl('add_user', 'narrow', 'word')
    try:
        rabbit.ctl('set_permissions', '-p', vhost, 'narrow', *(['^rpc_numbers_'] * 3))
        url = rabbit.url_of(vhost).replace('guest:guest', 'narrow:word')
        server = numbers(amqp_url=url)
        server.add_function(add)
        calling = client(service='numbers', amqp_url=url)

        assert calling.call.add(2) == 3
        with pytest.raises(Unroutable):
            asking.call.describe()
        calling.stop()
        server.stop()
    finally:
        rabbit.ctl('delete_user', 'narrow')


def test_its_requests_are_not_the_services(numbers, client, asking):
    server = numbers()
    server.add_function(add)
    calling = client(service='numbers')
    calling.defer.add(1)
    asking.call.describe()

    assert server.receive_from_queue('numbers', max_calls=1, timeout=LIMIT, block=False) is None
    asking.call.describe()
    assert calling.call.add(2) == 3


@pytest.mark.parametrize('introspection', [True, False])
@pytest.mark.parametrize('kind', [AmqpRpcServer, AmqpRpcFanoutServer])
def test_its_own_name_is_refused_as_that_of_a_service(kind, introspection):
    with pytest.raises(ValueError, match="the service 'amphora' is introspection's own: take another name"):
        kind('amphora', introspection=introspection)


def test_a_client_that_would_declare_its_exchange_with_another_type_is_refused(client):
    with pytest.raises(ValueError, match="the service 'amphora' is introspection's own: ask it with AmqpRpcFanout"):
        client(service='amphora')
