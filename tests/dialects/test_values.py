"""Values on other systems' wires: the same as on amphora's own, as far as these have them."""

from __future__ import annotations

from enum import Enum
from typing import Any

import pytest

from amphora.dialects import Json, MsgPack, Tutorial
from tests.parties import Client, Server


class Text(str):
    __slots__ = ()


class Number(float):
    __slots__ = ()


class Colour(str, Enum):
    RED = 'red'


class Level(int, Enum):
    LOW = 1


@pytest.mark.parametrize('format', [Json, MsgPack])
def test_classes_derived_from_text_and_numbers_go_as_these(format: Any) -> None:
    assert format.unpack(format.pack([Text('a'), Number(1.5), {Text('b'): 1}])) == ['a', 1.5, {'b': 1}]


@pytest.mark.parametrize(
    ('value', 'arrives'),
    [
        (Colour.RED, 'red'),
        # More than 64 bits.
        (354224848179261915075, 354224848179261915075),
        ('9' * 1001, '9' * 1001),
        ('04', '04'),
    ],
    ids=['enum', 'large number', 'digits without end', 'no usual number'],
)
def test_the_tutorials_text_is_what_it_looks_like(
    serving: Server, client: Client, service: str, value: Any, arrives: Any
) -> None:
    dialect = Tutorial(queue=service + '-queue', function='echo')
    serving(named={'echo': lambda argument: argument}, dialects=[dialect])

    assert client(dialect=dialect).call.echo(value) == arrives


def test_the_tutorials_results_are_what_they_are_and_not_what_they_are_called(
    serving: Server, client: Client, service: str
) -> None:
    dialect = Tutorial(queue=service + '-queue', function='get')
    serving(named={'get': {'colour': Colour.RED, 'level': Level.LOW, 'yes': True}.get}, dialects=[dialect])
    calling = client(dialect=dialect)

    assert [calling.call.get(what) for what in ('colour', 'level', 'yes')] == ['red', 1, 'True']
