"""The content header: size and properties, beside pamqp's own encoder and decoder."""

from __future__ import annotations

import struct
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import commands, frame, header

from amphora.amqp.errors import FrameError
from amphora.amqp.frames import Splitter
from amphora.amqp.properties import NAMES, decode_header, encode_header
from tests.amqp.drawing import refused, tables

text = st.text(st.characters(codec='utf-8'), max_size=60)
octets = st.integers(0, 255)
everything: dict[str, st.SearchStrategy[Any]] = {
    **dict.fromkeys(NAMES, text),
    'headers': tables,
    'delivery_mode': octets,
    'priority': octets,
    'timestamp': st.integers(0, 2**64 - 1),
}
some_properties = st.fixed_dictionaries({}, optional=everything)


def payload_of(data: bytes) -> bytes:
    [(kind, _, payload)] = Splitter(10_000_000).feed(data)
    assert kind == 2
    return payload


@given(st.integers(0, 2**64 - 1), st.fixed_dictionaries(everything))
def test_all_fourteen_properties_come_back_as_they_were(size: int, properties: dict[str, Any]) -> None:
    assert len(properties) == 14
    assert decode_header(payload_of(encode_header(1, size, properties))) == (size, properties)


@given(st.integers(0, 2**63 - 1), some_properties)
def test_any_of_them_come_back_as_they_were(size: int, properties: dict[str, Any]) -> None:
    assert decode_header(payload_of(encode_header(1, size, properties))) == (size, properties)


@given(
    st.integers(0, 2**32),
    st.fixed_dictionaries(
        {},
        # pamqp takes a delivery mode of 1 or 2, datetimes, and leaves out what is empty
        optional={
            **dict.fromkeys(set(NAMES) - {'cluster_id', 'user_id'}, text.filter(bool)),
            'headers': st.dictionaries(st.just('name'), st.text(max_size=9), min_size=1),
            'delivery_mode': st.sampled_from([1, 2]),
            'priority': st.integers(1, 9),
            'timestamp': st.integers(1, 2**31).map(lambda seconds: datetime.fromtimestamp(seconds, timezone.utc)),
        },
    ),
)
def test_the_bytes_are_those_of_pamqp(size: int, properties: dict[str, Any]) -> None:
    named_by_pamqp = {'message_type' if name == 'type' else name: value for name, value in properties.items()}
    theirs = frame.marshal(header.ContentHeader(0, size, commands.Basic.Properties(**named_by_pamqp)), 9)
    assert encode_header(9, size, properties) == theirs


def test_a_property_that_is_none_is_left_out() -> None:
    assert encode_header(1, 0, {'message_id': None, 'type': 'a'}) == encode_header(1, 0, {'type': 'a'})
    assert encode_header(1, 0, {'message_id': 'm', 'type': 'a'}) != encode_header(1, 0, {'type': 'a'})


def test_a_time_may_be_given_as_a_datetime() -> None:
    moment = datetime(2024, 2, 29, 12, 0, 0, 999_999, tzinfo=timezone.utc)
    properties = decode_header(payload_of(encode_header(1, 0, {'timestamp': moment})))[1]
    assert properties == {'timestamp': 1709208000}


@pytest.mark.parametrize(
    ('properties', 'says'),
    [
        ({'colour': 'red'}, 'no such property: colour; AMQP knows content_type, .*cluster_id'),
        ({'message_id': 7}, 'property message_id must be a str, not 7'),
        ({'message_id': b'm'}, 'property message_id must be a str'),
        ({'message_id': 'x' * 256}, 'property message_id is 256 bytes long; AMQP allows 255'),
        ({'message_id': '\ud800'}, 'message_id'),
        ({'delivery_mode': 256}, 'property delivery_mode must be an integer from 0 to 255, not 256'),
        ({'priority': -1}, 'property priority'),
        ({'priority': '1'}, 'property priority'),
        ({'delivery_mode': 2.0}, 'property delivery_mode must be an integer from 0 to 255, not 2.0'),
        ({'expiration': 1000}, 'property expiration must be a str, not 1000'),
        ({'timestamp': -1}, 'property timestamp'),
        ({'timestamp': 2**64}, 'property timestamp'),
        ({'timestamp': float('nan')}, 'property timestamp'),
        ({'timestamp': float('inf')}, 'property timestamp'),
        ({'timestamp': 'now'}, 'property timestamp'),
        ({'timestamp': Decimal(5)}, 'property timestamp must be seconds since 1970'),
        ({'timestamp': object()}, 'property timestamp'),
        ({'headers': {'a': object()}}, 'headers'),
        ({'headers': {1: 'a'}}, 'headers'),
        ({'headers': {'a': {1: 'b'}}}, 'headers'),
        ({'headers': {'a': {'b' * 129: 1}}}, 'headers'),
        ({'headers': ['a']}, 'headers'),
        ({'headers': 5}, 'headers'),
        ({'headers': 'text'}, 'headers'),
    ],
)
def test_what_cannot_be_encoded_is_a_value_error_that_names_the_property(properties: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        encode_header(1, 0, properties)


def test_text_that_is_not_utf8_is_kept_octet_by_octet() -> None:
    raw = b'\xff\xfe caf\xe9'
    payload = struct.pack('>HHQH', 60, 0, 0, 0x0080) + bytes((len(raw),)) + raw
    _, properties = decode_header(payload)
    assert properties['message_id'].encode('utf-8', 'surrogateescape') == raw
    assert payload_of(encode_header(1, 0, properties)) == payload


def test_headers_that_cannot_be_decoded_stay_bytes_and_the_rest_is_read() -> None:
    payload = struct.pack('>HHQH', 60, 0, 3, 0x2080) + b'\x00\x00\x00\x04\x01a\xff\xff' + b'\x02id'
    assert decode_header(payload) == (3, {'headers': b'\x01a\xff\xff', 'message_id': 'id'})


FULL = payload_of(
    encode_header(
        1,
        5,
        dict.fromkeys(NAMES, 'text')
        | {'headers': {'a': 'b'}, 'delivery_mode': 2, 'priority': 1, 'timestamp': 1700000000},
    )
)


@pytest.mark.parametrize('length', range(len(FULL)))
def test_a_header_that_is_cut_short_is_a_frame_error(length: int) -> None:
    with pytest.raises(FrameError):
        decode_header(FULL[:length])


@given(st.binary(max_size=80), st.integers(0, 0xFFFF))
def test_any_bytes_are_a_header_or_a_frame_error(payload: bytes, flags: int) -> None:
    for data in (payload, struct.pack('>HHQH', 60, 0, 1, flags) + payload):
        error = refused(decode_header, data)
        assert error is None or isinstance(error, FrameError)


@pytest.mark.parametrize(
    ('payload', 'says'),
    [
        (struct.pack('>HHQH', 50, 0, 0, 0), 'of class 50; only class 60'),
        (struct.pack('>HHQH', 60, 0, 0, 1), 'more than one word of flags'),
        (bytes(13), 'a content header of 13 bytes'),
    ],
)
def test_a_header_of_another_kind_is_a_frame_error_that_says_so(payload: bytes, says: str) -> None:
    with pytest.raises(FrameError, match=says):
        decode_header(payload)
