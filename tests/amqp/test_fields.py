"""Short strings and field tables: what goes in comes out, and what cannot is an error that says why."""

from __future__ import annotations

import struct
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import decode

from amphora.amqp import fields
from amphora.amqp.errors import FrameError, SyntaxError_
from tests.amqp.drawing import refused, sized, tables


@given(tables)
def test_tables_come_back_as_they_were(table: dict[str, Any]) -> None:
    raw = fields.field_table(table, 'a table')
    assert fields.read_field_table(b'before' + raw + b'behind', 6) == (table, 6 + len(raw))
    assert decode.field_table(raw) == (len(raw), table)


@given(st.text(st.characters(codec='utf-8'), max_size=60))
def test_short_strings_come_back_as_they_were(text: str) -> None:
    raw = fields.short_string(text, 'a name')
    assert fields.read_short_string(b'before' + raw + b'behind', 6) == (text, 6 + len(raw))


@pytest.mark.parametrize(
    ('table', 'says'),
    [
        ({'a': object()}, "'a' of the headers cannot be encoded"),
        ({'a': 2**63}, "'a' of the headers cannot be encoded"),
        ({'a': '\ud800'}, "'a' of the headers cannot be encoded"),
        ({'a': float('inf')}, "'a' of the headers cannot be encoded: inf is no finite number"),
        ({'a': [float('nan')]}, "an item of 'a' of the headers cannot be encoded: nan is no finite number"),
        ({'a': [1, {'b': object()}]}, r"'b' of .*'a' of the headers cannot be encoded"),
        ({1: 'a'}, "a name in the headers must be a str, not 'int'"),
        ({'a': {1: 'b'}}, "a name in 'a' of the headers must be a str"),
        ({'x' * 129: 1}, r"the name 'x+.* in the headers is longer than 128 bytes"),
        ({'a': {'ü' * 65: 1}}, "in 'a' of the headers is longer than 128 bytes"),
        (['a'], "the headers must be a dict, not 'list'"),
    ],
)
def test_what_cannot_be_encoded_is_a_value_error_that_names_it(table: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        fields.field_table(table, 'the headers')


def test_a_table_that_contains_itself_is_a_value_error() -> None:
    table: dict[str, Any] = {}
    table['self'] = table
    with pytest.raises(ValueError, match=r'the headers .*refers to itself'):
        fields.field_table(table, 'the headers')


@pytest.mark.parametrize(
    ('text', 'says'),
    [(b'name', "the exchange must be a str, not 'bytes'"), ('ü' * 128, 'is 256 bytes long'), ('\ud800', 'as UTF-8')],
)
def test_what_is_no_short_string_is_a_value_error(text: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        fields.short_string(text, 'the exchange')


@pytest.mark.parametrize(
    ('payload', 'kind'), [(b'', FrameError), (b'\x05abc', FrameError), (b'\x02\xff\xfe', SyntaxError_)]
)
def test_a_short_string_that_does_not_fit_or_is_no_text_is_an_error_of_amqp(payload: bytes, kind: type) -> None:
    with pytest.raises(kind):
        fields.read_short_string(payload, 0)


@pytest.mark.limit(30)
@given(st.lists(st.sampled_from(b'tbBUusIiLlfdDSATFVx'), min_size=1).map(bytes) | st.binary(max_size=60))
def test_any_table_is_a_frame_error_or_none(payload: bytes) -> None:
    for table in (payload, b'\x01a' + payload, b'\x01aA' + sized(payload), b'\x01aF' + sized(payload)):
        error = refused(fields.read_field_table, sized(table), 0)
        assert error is None or isinstance(error, FrameError)


@pytest.mark.parametrize('seconds', [2**63, 2**64 - 1, 2**56])
def test_a_time_beyond_what_python_knows_stays_a_number_of_seconds(seconds: int) -> None:
    table, _ = fields.read_field_table(sized(b'\x01aT' + struct.pack('>Q', seconds)), 0)
    assert table == {'a': seconds}


def test_bytes_arrive_as_bytes_and_text_that_is_none_too() -> None:
    raw = fields.field_table({'a': b'\xff\xfe'}, 'a table')
    assert fields.read_field_table(raw, 0)[0] == {'a': b'\xff\xfe'}
    assert fields.read_field_table(raw.replace(b'x', b'S'), 0)[0] == {'a': b'\xff\xfe'}


@pytest.mark.parametrize('kind', [b'F', b'A'])
def test_what_nests_without_end_is_a_frame_error(kind: bytes) -> None:
    payload = b''
    for _ in range(1000):
        payload = kind + sized(payload if kind == b'A' else b'\x01a' + payload if payload else b'')
    with pytest.raises(FrameError, match='nested'):
        fields.read_field_table(sized(b'\x01a' + payload), 0)


@pytest.mark.limit(5)
@pytest.mark.parametrize('length', [11, 0xFFFF, 0xFFFFFFFF])
def test_an_array_longer_than_its_table_is_a_frame_error_at_once(length: int) -> None:
    with pytest.raises(FrameError, match='longer than its frame or table'):
        fields.read_field_table(sized(b'\x01aA' + struct.pack('>I', length) + b't\x01' * 5), 0)


def test_a_moment_before_1970_is_refused_and_does_not_become_another() -> None:
    with pytest.raises(ValueError, match='is before 1970'):
        fields.field_table({'born': datetime(1969, 7, 20, tzinfo=timezone.utc)}, 'headers')


@pytest.mark.limit(5)
def test_a_decimal_of_millions_of_digits_is_refused_without_writing_them_down() -> None:
    with pytest.raises(ValueError, match=r'a table holds no 1E\+30000000'):
        fields.field_table({'x': Decimal('1E+30000000')}, 'headers')
