"""Values beside JSON's own as arguments and results; and those that are refused, where and with which words."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import threading
import uuid
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from amphora import RemoteException, RpcJsonSerializer, RpcMsgPackSerializer
from tests.parties import Client, Server
from tests.rpc.peer import Peer


class Colour(enum.Enum):
    RED = 'red'


class Level(enum.IntEnum):
    HIGH = 3


@dataclasses.dataclass
class Point:
    x: int
    y: int


class Line(msgspec.Struct):
    start: Point
    end: Point | None = None


UTC = datetime.timezone.utc
MOMENT = datetime.datetime(2013, 5, 6, 7, 8, 9, 123456)
SOME_UUID = uuid.UUID('12345678-1234-4678-9234-567812345678')

# A value, and what it is at the other end.
VALUES = {
    'none': (None, None),
    'true': (True, True),
    'integer': (-7, -7),
    'large integer': (2**53 + 1, 2**53 + 1),
    'float': (0.1, 0.1),
    'text': ('\N{SNOWMAN} \x00 "\\', '\N{SNOWMAN} \x00 "\\'),
    'nested': ({'a': [1, {'b': None}]}, {'a': [1, {'b': None}]}),
    'tuple': ((1, (2,)), [1, [2]]),
    'date': (datetime.date(2013, 5, 6), '2013-05-06'),
    'time': (datetime.time(7, 8, 9), '07:08:09'),
    'datetime': (MOMENT, '2013-05-06T07:08:09.123456'),
    'decimal': (Decimal('1.10'), '1.10'),
    'uuid': (SOME_UUID, str(SOME_UUID)),
    'set': ({1}, [1]),
    'frozenset': (frozenset({'a'}), ['a']),
    'enum': (Colour.RED, 'red'),
    'enum of integers': (Level.HIGH, 3),
    'dataclass': (Point(1, 2), {'x': 1, 'y': 2}),
    'struct': (Line(Point(1, 2)), {'start': {'x': 1, 'y': 2}, 'end': None}),
    'all together': ([{'when': MOMENT, 'who': {SOME_UUID}}], [{'when': MOMENT.isoformat(), 'who': [str(SOME_UUID)]}]),
}

EACH_VALUE = pytest.mark.parametrize(('value', 'received'), VALUES.values(), ids=VALUES.keys())
EACH_SERIALIZER = pytest.mark.parametrize('serializer', [RpcJsonSerializer, RpcMsgPackSerializer])


@EACH_SERIALIZER
@EACH_VALUE
def test_a_value_may_be_an_argument(server: Server, client: Client, serializer: Any, value: Any, received: Any) -> None:
    given: list[Any] = []
    server(named={'take': lambda *args, **kwargs: given.extend([*args, kwargs])}, serializer=serializer)

    client(serializer=serializer).call.take(value, key=value)

    assert given == [received, {'key': received}]


@EACH_SERIALIZER
@EACH_VALUE
def test_a_value_may_be_a_result(server: Server, client: Client, serializer: Any, value: Any, received: Any) -> None:
    server(named={'give': lambda: value}, serializer=serializer)

    assert client(serializer=serializer).call.give() == received


@EACH_VALUE
def test_a_value_may_be_an_argument_of_an_exception(server: Server, client: Client, value: Any, received: Any) -> None:
    def fail() -> None:
        raise ValueError('before', value)

    server(fail)

    with pytest.raises(RemoteException) as caught:
        client().call.fail()
    assert caught.value.args == ('before', received)


def test_a_moment_with_a_zone_keeps_it(server: Server, client: Client) -> None:
    moment = MOMENT.replace(tzinfo=UTC)
    server(named={'echo': lambda value: value})

    assert datetime.datetime.fromisoformat(client().call.echo(moment).replace('Z', '+00:00')) == moment


class Thing:
    """Nothing that serialises."""


REFUSED = {
    'object': Thing(),
    'class': Thing,
    'function': len,
    'lambda': lambda: None,
    'generator': (number for number in range(3)),
    'lock': threading.Lock(),
    'complex': 1j,
    'module': dataclasses,
    'inside a list': [1, [Thing()]],
    'inside a dict': {'a': {'b': Thing()}},
    'inside a dataclass': Point(Thing(), 2),
}


@EACH_SERIALIZER
@pytest.mark.parametrize('verb', ['call', 'defer'])
@pytest.mark.parametrize('value', REFUSED.values(), ids=REFUSED.keys())
def test_any_other_argument_is_a_type_error_and_nothing_is_sent(
    client: Client, peer: Peer, serializer: Any, verb: str, value: Any
) -> None:
    calling = client(serializer=serializer)

    with pytest.raises(TypeError):
        getattr(calling, verb).add(1, value)

    calling.defer(wait_publish=True).marker()
    assert b'marker' in peer.take().body
    assert peer.ready() == 0


@pytest.mark.parametrize(
    ('args', 'kwargs', 'named'),
    [((1, Thing()), {}, r'\b[12]\b'), ((1,), {'recipient': Thing()}, 'recipient')],
    ids=['positional', 'keyword'],
)
@pytest.mark.parametrize('verb', ['call', 'defer'])
def test_the_type_error_names_the_argument_and_its_type(
    client: Client, verb: str, args: tuple[Any, ...], kwargs: dict[str, Any], named: str
) -> None:
    with pytest.raises(TypeError, match=named) as caught:
        getattr(client(), verb).send(*args, **kwargs)

    assert 'Thing' in str(caught.value)


@pytest.mark.parametrize('value', REFUSED.values(), ids=REFUSED.keys())
def test_any_other_result_is_a_remote_exception_and_the_server_goes_on(
    server: Server, client: Client, value: Any
) -> None:
    server(named={'give': lambda: value, 'well': lambda: 'well'})
    calling = client()

    with pytest.raises(RemoteException) as caught:
        calling.call.give()

    assert caught.value.error_type == 'TypeError'
    assert calling.call.well() == 'well'


def test_a_cycle_is_refused_and_nothing_is_sent(client: Client, peer: Peer) -> None:
    cycle: list[Any] = []
    cycle.append(cycle)
    calling = client()

    with pytest.raises((TypeError, ValueError)):
        calling.call.add(cycle)

    calling.defer(wait_publish=True).marker()
    assert b'marker' in peer.take().body


def test_a_large_value_goes_there_and_back(server: Server, client: Client) -> None:
    server(named={'echo': lambda value: value})
    large = 'x' * 5_000_000

    assert client().call.echo(large) == large
