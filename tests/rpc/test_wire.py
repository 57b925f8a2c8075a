"""Amphora's own protocol on the wire, seen and spoken by a peer made by hand; also by one of 2013."""

from __future__ import annotations

import datetime
import json
import re
import time
import uuid
from typing import Any

import pytest

from amphora import RemoteException, WrongRequest
from amphora.amqp import Message, PublishReturned
from tests.parties import Client, Gate, Server
from tests.rabbitmq import RabbitNode
from tests.rpc.peer import Peer, body_of
from tests.waiting import eventually

UUID4_SHAPED = re.compile(r'[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}')


def add(x: int, y: int) -> int:
    return x + y


# -- exchanges and queues ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize('side', ['server', 'client'])
def test_each_side_declares_all_that_a_call_needs(side: str, server: Server, client: Client, peer: Peer) -> None:
    {'server': server, 'client': client}[side]()
    eventually(lambda: peer.exists(peer.request_queue))

    # The broker refuses a declaration that differs; the exchanges are there before the queue is bound.
    with peer.fresh_channel() as channel:
        channel.queue.declare(peer.request_queue, durable=True)
        channel.exchange.declare(peer.request_exchange, 'direct', passive=True)
        channel.exchange.declare(peer.request_exchange, 'direct', durable=True)
    eventually(lambda: bound(peer))
    with peer.fresh_channel() as channel:
        channel.exchange.declare(peer.response_exchange, 'direct', durable=True)


def bound(peer: Peer) -> bool:
    """Whether a request by the default routing key, which is empty, gets into a queue."""
    with peer.fresh_channel() as channel:
        channel.confirm.select()
        try:
            channel.basic.publish(Message(b'{}'), peer.request_exchange, '', mandatory=True, wait=True)
        except PublishReturned:
            return False
    return True


def test_the_reply_queue_is_durable_not_exclusive_and_expires(
    client: Client, rabbit: RabbitNode, vhost: str, service: str
) -> None:
    calling = client(uuid='me', amqp_url=rabbit.url_of(vhost))
    calling.defer(wait_publish=True).add(1, 2)
    wanted = f'rpc_{service}_me_response'
    eventually(lambda: wanted in rabbit.list_queues(vhost), 10)

    fields = ('name', 'durable', 'exclusive', 'auto_delete', 'arguments')
    listed = json.loads(rabbit.ctl('list_queues', '-p', vhost, *fields, '--formatter', 'json'))

    [queue] = [queue for queue in listed if queue['name'] == wanted]
    assert queue['durable']
    assert not queue['exclusive']
    assert not queue['auto_delete']
    arguments = queue['arguments']
    expires = (
        arguments['x-expires'] if isinstance(arguments, dict) else {row[0]: row[2] for row in arguments}['x-expires']
    )
    assert expires > 0


# -- the request -------------------------------------------------------------------------------------------------------


def test_a_request_has_the_properties_and_the_body_of_the_protocol(client: Client, peer: Peer) -> None:
    client(uuid='me').defer(wait_publish=True, timeout=20).send.sms('+123', urgent=True)

    request = peer.take()

    properties = request.properties
    assert properties['reply_to'] == 'me'
    assert UUID4_SHAPED.fullmatch(properties['message_id'])
    assert properties['correlation_id'] == properties['message_id']
    assert properties['delivery_mode'] == 2
    assert properties['content_type'] == 'application/json'
    assert 15_000 < int(properties['expiration']) <= 20_000
    assert abs(seconds(properties['timestamp']) - time.time()) < 5
    assert body_of(request) == {'func': 'send.sms', 'args': ['+123'], 'kwargs': {'urgent': True}}
    assert request.delivery_info.exchange == peer.request_exchange
    assert request.delivery_info.routing_key == ''


def seconds(timestamp: Any) -> float:
    return timestamp.timestamp() if isinstance(timestamp, datetime.datetime) else timestamp


def test_every_request_has_an_id_of_its_own(client: Client, peer: Peer) -> None:
    callings = [client() for _ in range(2)]
    for number in range(100):
        callings[number % 2].defer(wait_publish=True).add(number, 1)

    ids = {peer.take().properties['message_id'] for _ in range(100)}

    assert len(ids) == 100
    assert all(UUID4_SHAPED.fullmatch(one) for one in ids)


def test_a_request_that_expires_leaves_the_queue(client: Client, peer: Peer) -> None:
    client().defer(wait_publish=True, timeout=0.3).add(2, 3)

    eventually(lambda: peer.ready() == 0)


# -- the reply ---------------------------------------------------------------------------------------------------------


def test_a_reply_has_the_properties_and_the_body_of_the_protocol(server: Server, peer: Peer) -> None:
    replies = peer.declare_reply_queue('me')
    server(add)
    id = str(uuid.uuid4())

    body = {'func': 'add', 'args': [2, 3], 'kwargs': {}}
    peer.request(body, reply_to='me', message_id=id, correlation_id=id, content_type='application/json')
    reply = peer.take(replies)

    assert body_of(reply) == {'result': 5}
    assert reply.properties['message_id'] == id
    assert reply.properties['correlation_id'] == id
    assert reply.properties['content_type'] == 'application/json'
    assert reply.properties['delivery_mode'] == 2
    assert reply.delivery_info.exchange == peer.response_exchange
    assert reply.delivery_info.routing_key == 'me'


def test_the_reply_of_a_function_that_raises_names_class_and_arguments(server: Server, peer: Peer) -> None:
    def fail() -> None:
        raise ValueError('x', -5)

    replies = peer.declare_reply_queue('me')
    server(fail)

    peer.call('fail', reply_to='me', message_id='1')

    exception = body_of(peer.take(replies))['exception']
    assert (exception['type'], exception['args']) == ('ValueError', ['x', -5])


MALFORMED = [
    b'',
    b'not JSON',
    b'\xff\xfe\x00',
    b'null',
    b'[]',
    b'"text"',
    b'{}',
    b'{"func": "add"}',
    b'{"args": [], "kwargs": {}}',
    b'{"func": 5, "args": [], "kwargs": {}}',
    b'{"func": "add", "args": 5, "kwargs": {}}',
    b'{"func": "add", "args": [2, 3], "kwargs": 5}',
    b'{"func": "add", "args": [2, 3], "kwargs": []}',
    b'[' * 100_000,
]


@pytest.mark.parametrize('body', [*MALFORMED, b'{"func": "missing", "args": [], "kwargs": {}}'])
def test_a_malformed_request_or_an_unknown_function_is_answered_with_wrong_request(
    server: Server, peer: Peer, body: bytes
) -> None:
    replies = peer.declare_reply_queue('me')
    serving = server(add)

    peer.request(body, reply_to='me', message_id='1')
    reply = peer.take(replies)
    peer.call('add', 2, 3, reply_to='me', message_id='2')

    assert body_of(reply)['exception']['type'] == 'WrongRequest'
    assert reply.properties['message_id'] == '1'
    assert body_of(peer.take(replies)) == {'result': 5}
    serving.stop()
    assert peer.ready() == 0


@pytest.mark.parametrize('body', [MALFORMED[0], MALFORMED[1], b'{"func": "add", "args": [2, 3], "kwargs": {}}'])
@pytest.mark.parametrize('properties', [{}, {'message_id': '1'}, {'reply_to': 'nobody', 'message_id': '1'}])
def test_a_request_that_nobody_can_be_told_of_is_acked(
    server: Server, peer: Peer, body: bytes, properties: dict[str, str]
) -> None:
    replies = peer.declare_reply_queue('me')
    serving = server(add)

    peer.request(body, **properties)
    peer.call('add', 2, 3, reply_to='me', message_id='2')

    assert body_of(peer.take(replies)) == {'result': 5}
    serving.stop()
    assert peer.ready() == 0


def test_a_repeated_request_is_answered_again_and_not_run_again(server: Server, peer: Peer) -> None:
    run: list[int] = []
    replies = peer.declare_reply_queue('me')
    serving = server(named={'remember': lambda value: run.append(value) or len(run)})

    for _ in range(3):
        peer.call('remember', 7, reply_to='me', message_id='the same')
        assert body_of(peer.take(replies)) == {'result': 1}
        # Until the broker has confirmed the answer, a repeat shares it.
        eventually(lambda: not serving._native._in_hand)

    assert run == [7]


def test_a_request_repeated_while_it_runs_is_not_run_twice(server: Server, peer: Peer, gate: Gate) -> None:
    replies = peer.declare_reply_queue('me')
    server(gate.function(), add)

    for _ in range(2):
        peer.call('wait', 7, reply_to='me', message_id='the same')
    peer.call('add', 2, 3, reply_to='me', message_id='another')
    assert body_of(peer.take(replies)) == {'result': 5}
    gate.open()

    # One answer for both: whoever asked twice needs it once.
    assert body_of(peer.take(replies)) == {'result': 7}
    assert gate.entered == [7]


def test_two_clients_may_use_the_same_message_id(server: Server, peer: Peer) -> None:
    queues = [peer.declare_reply_queue(name) for name in ('one', 'two')]
    server(add)

    peer.call('add', 1, 1, reply_to='one', message_id='1')
    peer.call('add', 2, 2, reply_to='two', message_id='1')

    assert [body_of(peer.take(queue)) for queue in queues] == [{'result': 2}, {'result': 4}]


# -- peers of 2013 -----------------------------------------------------------------------------------------------------


def test_a_client_of_2013_is_answered(server: Server, peer: Peer) -> None:
    replies = peer.declare_reply_queue('old')
    server(add)

    peer.call('add', 2, 3, reply_to='old', message_id='no-uuid-at-all')

    reply = peer.take(replies)
    assert reply.properties['message_id'] == 'no-uuid-at-all'
    assert body_of(reply) == {'result': 5}


def test_a_server_of_2013_is_understood(client: Client, peer: Peer) -> None:
    peer.declare_service()
    calling = client()
    results = [calling.defer.add(2, 3), calling.defer.divide(1, 0), calling.defer.missing()]
    bodies = [
        {'result': 5},
        {'exception': {'type': 'ZeroDivisionError', 'args': ['division by zero']}},
        {'exception': {'type': 'WrongRequest', 'args': []}},
    ]

    for body in bodies:
        peer.reply(peer.take(), body)

    assert results[0].get(timeout=5) == 5
    with pytest.raises(RemoteException) as caught:
        results[1].get(timeout=5)
    assert (caught.value.error_type, caught.value.args) == ('ZeroDivisionError', ('division by zero',))
    with pytest.raises(WrongRequest):
        results[2].get(timeout=5)


# -- tolerance ---------------------------------------------------------------------------------------------------------


def test_keys_and_headers_of_a_request_that_nobody_knows_are_ignored(server: Server, peer: Peer) -> None:
    replies = peer.declare_reply_queue('me')
    server(add)

    body = {'func': 'add', 'args': [2, 3], 'kwargs': {}, 'trace': {'id': 1}, 'result': 7}
    headers = {'trace': 'x', 'nested': {'list': [1, 'two']}}
    peer.request(body, reply_to='me', message_id='1', headers=headers, type='what', app_id='who', priority=3)

    assert body_of(peer.take(replies)) == {'result': 5}


def test_keys_and_headers_of_a_reply_that_nobody_knows_are_ignored(client: Client, peer: Peer) -> None:
    peer.declare_service()
    calling = client()
    results = [calling.defer.add(2, 3), calling.defer.fail()]

    peer.reply(peer.take(), {'result': 5, 'took': 0.1}, headers={'trace': 'x'}, type='what', app_id='who')
    fault = {'type': 'ValueError', 'args': [1], 'traceback': 'Traceback ...', 'more': {}}
    peer.reply(peer.take(), {'exception': fault, 'took': 0.1})

    assert results[0].get(timeout=5) == 5
    with pytest.raises(RemoteException) as caught:
        results[1].get(timeout=5)
    assert (caught.value.error_type, caught.value.args) == ('ValueError', (1,))


def test_replies_to_nothing_and_second_replies_are_ignored(client: Client, peer: Peer) -> None:
    peer.declare_service()
    calling = client(uuid='me')
    first, second = calling.defer.add(1, 1), calling.defer.add(2, 2)
    requests = [peer.take(), peer.take()]
    stray = Message(b'', message_id='of nobody', reply_to='me')
    nameless = Message(b'{"result": 1}')

    peer.reply(stray, {'result': 'stray'})
    peer.reply(stray, b'not JSON')
    peer.channel.basic.publish(nameless, peer.response_exchange, 'me')
    for _ in range(2):
        peer.reply(requests[0], {'result': 2})
    peer.reply(requests[0], {'result': 'too late'})
    peer.reply(requests[1], {'result': 4})

    assert first.get(timeout=5) == 2
    assert second.get(timeout=5) == 4
