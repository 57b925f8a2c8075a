"""The peers of amqprpc that are made by hand: each pair understands one another, and speaks as the real ones do."""

import pytest

from tests.peers.amqprpc import (
    GO_JSON,
    GO_MSGPACK,
    PYTHON_JSON,
    PYTHON_MSGPACK,
    GoClient,
    GoServer,
    PythonClient,
    PythonServer,
    RPCError,
    Shutdown,
)
from tests.waiting import eventually


def fail(_):
    raise ValueError('bad')


FUNCTIONS = {'Server.mul': lambda args: args['A'] * args['B'], 'Server.echo': lambda value: value, 'Server.fail': fail}
VALUES = [None, True, 0, -1, 127, 2**40, -(2**63), 1.5, '', '<ü> & ', 'ä' * 300, [], list(range(20)), {'a': {'b': [1]}}]


def outcome(call, *args):
    """What a call returned, or the error."""
    try:
        return call(*args)
    except Exception as error:
        return error


@pytest.mark.parametrize('server', [PythonServer, GoServer])
@pytest.mark.parametrize('client', [PythonClient, GoClient])
@pytest.mark.parametrize(
    ('formatter', 'others'),
    [(PYTHON_JSON, GO_JSON), (GO_JSON, PYTHON_JSON), (PYTHON_MSGPACK, GO_MSGPACK), (GO_MSGPACK, PYTHON_MSGPACK)],
    ids=['json', 'json of go', 'msgpack', 'msgpack of go'],
)
def test_clients_and_servers_understand_one_another(broker, in_thread, client, server, formatter, others):
    def run():
        with client(broker.url, 'testrpc', formatter) as calling:
            product = calling.call('Server.mul', {'A': 2, 'B': 3})
            echoed = [calling.call('Server.echo', value) for value in VALUES]
            numbers = [calling.start('Server.mul', {'A': number, 'B': 2}) for number in range(100)]
            doubled = [calling.finish(number) for number in reversed(numbers)]
            failed = [outcome(calling.call, 'Server.' + name, 1) for name in ('fail', 'nothing')]
            return product, echoed, doubled, failed, calling.replies

    with server(broker.url, 'testrpc', others, FUNCTIONS):
        product, echoed, doubled, failed, replies = in_thread(run)

    assert (product, echoed, doubled) == (6, VALUES, [2 * number for number in reversed(range(100))])
    assert [type(error) for error in failed] == [RPCError, RPCError]
    unknown = 'unknown function ' if server is PythonServer else "rpc: can't find method "
    assert [str(error) for error in failed] == ['bad', unknown + 'Server.nothing']
    empty = others.pack(None if server is PythonServer else {})
    assert replies[max(replies)].body == empty


def test_a_request_says_its_method_its_reply_queue_and_its_number(broker, in_thread):
    def run(client, formatter):
        with client(broker.url, 'testrpc', formatter) as calling:
            calling.call('Server.echo', {'A': 2, 'B': ['<ü>']})
            return calling.reply_queue

    with GoServer(broker.url, 'testrpc', GO_JSON, FUNCTIONS) as server:
        queues = [in_thread(run, (client, f)) for client, f in ((PythonClient, PYTHON_JSON), (GoClient, GO_JSON))]

    assert [(p.reply_to, p.correlation_id, p.message_id, body) for p, body in server.requests] == [
        ('Server.echo', queues[0], '1', b'{"A": 2, "B": ["<\\u00fc>"]}'),
        ('Server.echo', queues[1], '0', b'{"A":2,"B":["\\u003c\xc3\xbc\\u003e"]}'),
    ]
    for properties, _ in server.requests:
        said = {name for name, value in vars(properties).items() if value is not None}
        assert said == {'reply_to', 'correlation_id', 'message_id'}


def test_go_does_not_call_where_nobody_serves(broker, in_thread):
    assert str(in_thread(outcome, (GoClient, broker.url, 'testrpc', GO_JSON))) == 'no consumers in queue'


def test_a_go_server_ends_at_a_request_without_correlation_id(broker, in_thread):
    def run():
        with PythonClient(broker.url, 'testrpc', PYTHON_JSON) as calling:
            calling.reply_queue, queue = '', calling.reply_queue
            calling.start('Server.echo', 1)
            calling.reply_queue = queue

    with (  # noqa: PT012 - it is raised when the server is left
        pytest.raises(Shutdown, match='no routing key'),
        GoServer(broker.url, 'testrpc', GO_JSON, FUNCTIONS) as server,
    ):
        in_thread(run)
        eventually(lambda: server.requests)


def test_the_formatters_of_messagepack_differ_as_those_of_the_packages_do():
    assert GO_MSGPACK.pack({'a': 1}) == b'\x81\xa1a\xd3\0\0\0\0\0\0\0\x01'
    assert PYTHON_MSGPACK.pack({'a': 1}) == b'\x81\xa1a\x01'
    assert GO_MSGPACK.pack('a' * 40) == b'\xd9\x28' + b'a' * 40
    assert PYTHON_MSGPACK.pack('a' * 40) == b'\xda\0\x28' + b'a' * 40
    assert PYTHON_MSGPACK.pack(b'a') == b'\xa1a'
