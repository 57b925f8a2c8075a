"""Serializers on both sides: amphora's two, and classes of users' own, as of 2013 and of today."""

from __future__ import annotations

import ast
import json
import pickle
from typing import Any

import msgspec
import pytest

from amphora import RemoteException, RpcJsonSerializer, RpcMsgPackSerializer, WrongRequest, WrongResult
from amphora.serializer import AbstractRpcSerializer
from tests.parties import Client, Server
from tests.rpc.peer import Peer


class JsonOf2013(AbstractRpcSerializer):
    """As people wrote them for the first release: text, and an exception told by its class."""

    @staticmethod
    def serialize_call(func: str, args: Any, kwargs: Any) -> str:
        return json.dumps({'func': func, 'args': args, 'kwargs': kwargs, 'by': 'JsonOf2013'})

    @staticmethod
    def deserialize_call(body: Any) -> Any:
        try:
            call = json.loads(body)
            return call['func'], call['args'], call['kwargs']
        except (ValueError, KeyError, TypeError):
            raise WrongRequest('malformed') from None

    @staticmethod
    def serialize_result(obj: Any) -> str:
        if isinstance(obj, Exception):
            return json.dumps({'exception': {'type': obj.__class__.__name__, 'args': obj.args}})
        return json.dumps({'result': obj})

    @staticmethod
    def deserialize_result(body: Any) -> Any:
        try:
            reply = json.loads(body)
            if 'result' in reply:
                return reply['result']
            error_type, args = reply['exception']['type'], reply['exception']['args']
        except (ValueError, KeyError, TypeError):
            raise WrongResult('malformed') from None
        if error_type == 'WrongRequest':
            raise WrongRequest(*args)
        raise RemoteException(error_type, tuple(args))


class Literals:
    """A class that inherits nothing and speaks neither JSON nor MessagePack: Python's own literals."""

    @staticmethod
    def serialize_call(func: str, args: Any, kwargs: Any) -> bytes:
        return repr(('call', func, tuple(args), dict(kwargs))).encode()

    @staticmethod
    def deserialize_call(body: bytes) -> Any:
        try:
            _, func, args, kwargs = ast.literal_eval(body.decode())
        except (ValueError, SyntaxError) as error:
            raise WrongRequest(str(error)) from None
        return func, args, kwargs

    @staticmethod
    def serialize_result(obj: Any) -> bytes:
        if isinstance(obj, Exception):
            return repr(('raised', type(obj).__name__, obj.args)).encode()
        return repr(('returned', obj)).encode()

    @staticmethod
    def deserialize_result(body: bytes) -> Any:
        try:
            kind, *rest = ast.literal_eval(body.decode())
        except (ValueError, SyntaxError) as error:
            raise WrongResult(str(error)) from None
        if kind == 'returned':
            return rest[0]
        if rest[0] == 'WrongRequest':
            raise WrongRequest(*rest[1])
        raise RemoteException(*rest)


SERIALIZERS = [RpcJsonSerializer, RpcMsgPackSerializer, JsonOf2013, Literals]
EACH = pytest.mark.parametrize('serializer', SERIALIZERS)


def divide(x: int, y: int) -> float:
    if x < 0:
        raise ValueError('x', x)
    return x / y


@EACH
def test_calls_and_exceptions_go_through_it(server: Server, client: Client, serializer: Any) -> None:
    server(divide, named={'echo': lambda *args, **kwargs: [list(args), kwargs]}, serializer=serializer)
    calling = client(serializer=serializer)

    assert calling.call.divide(6, 3) == 2
    assert calling.call.echo(1, 'zwei', None, [3.5], four={'five': '\N{SNOWMAN}'}) == [
        [1, 'zwei', None, [3.5]],
        {'four': {'five': '\N{SNOWMAN}'}},
    ]
    with pytest.raises(RemoteException) as caught:
        calling.call.divide(-5, 5)
    assert (caught.value.error_type, caught.value.args) == ('ValueError', ('x', -5))
    with pytest.raises(WrongRequest):
        calling.call.missing()


@EACH
def test_a_malformed_request_is_answered_with_it(peer: Peer, server: Server, serializer: Any) -> None:
    replies = peer.declare_reply_queue('old')
    server(serializer=serializer)

    peer.request(b'\xc1 nothing that anybody reads', reply_to='old', message_id='1')

    with pytest.raises(WrongRequest):
        serializer.deserialize_result(peer.take(replies).body)


@EACH
def test_a_malformed_reply_is_a_wrong_result_through_it(peer: Peer, client: Client, serializer: Any) -> None:
    peer.declare_service()
    result = client(serializer=serializer).defer.divide(6, 3)

    peer.reply(peer.take(), b'\xc1 nothing that anybody reads')

    with pytest.raises(WrongResult):
        result.get(timeout=5)


@EACH
def test_an_object_will_do_as_well_as_a_class(server: Server, client: Client, serializer: Any) -> None:
    server(divide, serializer=serializer())

    assert client(serializer=serializer()).call.divide(6, 3) == 2


def test_a_class_of_ones_own_makes_the_bodies(client: Client, peer: Peer) -> None:
    client(serializer=Literals).defer(wait_publish=True).divide(6, y=3)

    assert peer.take().body == b"('call', 'divide', (6,), {'y': 3})"


def test_json_is_the_default(client: Client, peer: Peer) -> None:
    client().defer(wait_publish=True).divide(6, y=3)

    assert json.loads(peer.take().body) == {'func': 'divide', 'args': [6], 'kwargs': {'y': 3}}


def test_message_pack_is_message_pack(client: Client, peer: Peer) -> None:
    client(serializer=RpcMsgPackSerializer).defer(wait_publish=True).divide(6, y=b'\x00\xff')

    message = peer.take()
    assert msgspec.msgpack.decode(message.body) == {'func': 'divide', 'args': [6], 'kwargs': {'y': b'\x00\xff'}}
    assert message.properties['content_type'] == 'application/msgpack'


def test_message_pack_keeps_what_json_does_not(server: Server, client: Client) -> None:
    server(named={'echo': lambda value: value}, serializer=RpcMsgPackSerializer)
    calling = client(serializer=RpcMsgPackSerializer)

    for value in (b'\x00\xff', {1: 'one'}, float('inf'), 2**64 - 1, -(2**63)):
        assert calling.call.echo(value) == value


def test_a_2013_serializer_and_todays_json_understand_each_other(server: Server, client: Client) -> None:
    server(divide, serializer=JsonOf2013)
    with pytest.raises(RemoteException):
        client().call.divide(-5, 5)
    assert client().call.divide(6, 3) == 2


class Refusing(JsonOf2013):
    """A class whose methods fail in ways that nobody agreed on."""

    @staticmethod
    def serialize_result(obj: Any) -> str:
        if obj == 'refuse':
            raise RuntimeError('not this one')
        return JsonOf2013.serialize_result(obj)

    @staticmethod
    def deserialize_call(body: Any) -> Any:
        if b'poison' in body:
            raise RuntimeError('not that one')
        return JsonOf2013.deserialize_call(body)


def test_a_class_that_fails_at_the_server_costs_one_request_only(server: Server, client: Client) -> None:
    server(named={'echo': lambda value: value}, serializer=Refusing)
    calling = client(timeout=5)

    with pytest.raises(RemoteException, match='not this one'):
        calling.call.echo('refuse')
    with pytest.raises((WrongRequest, RemoteException), match='not that one'):
        calling.call.echo('poison')
    assert calling.call.echo('well') == 'well'


def test_a_class_that_fails_at_the_client_costs_one_call_only(server: Server, client: Client) -> None:
    class Failing(JsonOf2013):
        @staticmethod
        def deserialize_result(body: Any) -> Any:
            if b'refuse' in body:
                raise RuntimeError('not this one')
            return JsonOf2013.deserialize_result(body)

    server(named={'echo': lambda value: value})
    calling = client(serializer=Failing, timeout=5)

    with pytest.raises((WrongResult, RuntimeError), match='not this one'):
        calling.call.echo('refuse')
    assert calling.call.echo('well') == 'well'


@pytest.mark.parametrize('make', ['server', 'client'])
@pytest.mark.parametrize('wrong', ['json', 5, object])
def test_what_is_no_serializer_is_refused(server: Server, client: Client, make: str, wrong: Any) -> None:
    makers = {'server': server, 'client': client}

    with pytest.raises(TypeError, match='serializer'):
        makers[make](serializer=wrong)


def test_nothing_that_arrives_is_unpickled(peer: Peer, server: Server) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return exec, ('raise SystemExit',)

    replies = peer.declare_reply_queue('old')
    server()
    for content_type in ('application/python-pickle', 'application/json', 'application/x-python-serialize'):
        # Of an id of its own: one that comes again before the answer is confirmed shares that answer.
        peer.request(pickle.dumps(Bomb()), reply_to='old', message_id=content_type, content_type=content_type)

        with pytest.raises(WrongRequest):
            RpcJsonSerializer.deserialize_result(peer.take(replies).body)


class Packed(bytes):
    """Bytes of a class of somebody's own."""


class Packing(RpcJsonSerializer):
    @staticmethod
    def serialize_call(func: str, args: Any, kwargs: Any) -> bytes:
        return Packed(RpcJsonSerializer.serialize_call(func, args, kwargs))

    @staticmethod
    def serialize_result(obj: Any) -> bytes:
        return Packed(RpcJsonSerializer.serialize_result(obj))


def test_a_body_may_be_of_a_class_derived_from_bytes(server: Server, client: Client) -> None:
    server(named={'echo': lambda value: value}, serializer=Packing)

    assert client(serializer=Packing).call.echo(7) == 7


class Unlooking(AbstractRpcSerializer):
    """As one for 0.1.3, which takes a request apart and does not look at the parts."""

    serialize_call = RpcJsonSerializer.serialize_call
    serialize_result = RpcJsonSerializer.serialize_result
    deserialize_result = RpcJsonSerializer.deserialize_result

    @staticmethod
    def deserialize_call(body: bytes) -> Any:
        request = json.loads(body)
        return request['func'], request['args'], request['kwargs']


@pytest.mark.parametrize('name', ['["one"]', '{"one": 1}', '1', 'null'])
def test_a_name_that_is_no_text_is_refused_whatever_the_serializer_makes_of_it(
    peer: Peer, server: Server, name: str
) -> None:
    replies = peer.declare_reply_queue('old')
    server(named={'one': lambda: 1}, serializer=Unlooking)

    peer.request(b'{"func": %s, "args": [], "kwargs": {}}' % name.encode(), reply_to='old', message_id='1')

    with pytest.raises(WrongRequest, match='the name of a function is a text, not a '):
        Unlooking.deserialize_result(peer.take(replies).body)
