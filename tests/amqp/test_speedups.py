"""The usual message in C: None, or exactly what Python makes of it."""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime, timezone
from decimal import Decimal
from enum import IntEnum
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from amphora.amqp import content, properties
from amphora.amqp.errors import FrameError
from amphora.amqp.properties import NAMES, encode_header

speedups = pytest.importorskip('amphora.amqp.speedups')


class Text(str):
    """A `str` that is not only one."""

    __slots__ = ()


class Bytes(bytes):
    """`bytes` that are not only that."""

    __slots__ = ()


class Number(IntEnum):
    TWO = 2


# What amphora itself sends with a request.
USUAL: dict[str, Any] = {
    'content_type': 'application/json',
    'delivery_mode': 2,
    'priority': 0,
    'correlation_id': '8c5b8f0e2d4a4c0f',
    'reply_to': 'amq.rabbitmq.reply-to',
    'expiration': '10000',
    'message_id': '8c5b8f0e2d4a4c0f',
    'timestamp': 1700000000.75,
    'type': 'add',
    'user_id': None,
    'app_id': 'client',
}

lengths = st.sampled_from([0, 1, 254, 255, 256])
texts = st.one_of(
    st.text(st.characters(codec='ascii'), max_size=20),
    st.text(max_size=20),
    lengths.map(lambda length: 'x' * length),
    # 254, 255 and 256 bytes
    st.sampled_from(['é' * 127, 'é' * 127 + 'x', 'é' * 128, 'a\x00b', '\udc80', '\ud800', Text('text'), Text('')]),
)
numbers = st.one_of(
    st.integers(-1, 256),
    st.integers(-(2**65), 2**65),
    st.floats(),
    st.sampled_from([2**53 - 1, 2**53, 2**53 + 1, 2.0**53, 2**64 - 1, 2**64, -0.0, 0.99, True, False, Number.TWO]),
)
others = st.sampled_from([None, b'bytes', Decimal(2), datetime(2020, 1, 1, tzinfo=timezone.utc), {}, {'a': 1}, [], ()])
values = st.one_of(texts, numbers, others)
fitting: dict[str, st.SearchStrategy[Any]] = {
    **dict.fromkeys(NAMES, texts),
    'headers': st.sampled_from([None, {}, {'name': 'value'}]),
    'delivery_mode': numbers,
    'priority': numbers,
    'timestamp': numbers,
}
some_properties = st.one_of(
    st.fixed_dictionaries({}, optional=fitting),
    st.dictionaries(st.sampled_from([*NAMES, Text('type'), 'no such', 'é', '']), values, max_size=5),
)
kinds = st.sampled_from([dict, dict, dict, OrderedDict, MappingProxyType])
bodies = st.one_of(
    st.binary(max_size=40), st.sampled_from([b'', b'x' * 4088, b'x' * 5000, Bytes(b'bytes'), bytearray(b'bytes')])
)


def in_python(function: Callable[..., Any], *args: Any) -> Any:
    """What a function of these gives without its counterpart in C; the error when it raises one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(content, '_encode_usual', None)
        patch.setattr(properties, '_decode_usual', None)
        try:
            return function(*args)
        except (ValueError, FrameError) as error:
            return error


@given(
    st.integers(0, 65535),
    texts,
    texts,
    st.booleans(),
    st.tuples(kinds, some_properties),
    bodies,
    st.sampled_from([4096, 131072]),
    st.sampled_from([0, 40, 4096, 2**27]),
)
@example(1, '', 'queue', True, (dict, USUAL), b'body', 131072, 2**27)
def test_a_message_is_encoded_as_in_python_or_left_to_it(
    channel: int,
    exchange: str,
    routing_key: str,
    mandatory: bool,
    given_properties: tuple[Callable[[dict[str, Any]], Any], dict[str, Any]],
    body: bytes,
    frame_max: int,
    max_message_size: int,
) -> None:
    kind, some = given_properties
    message = (channel, exchange, routing_key, mandatory, kind(some), body, frame_max, max_message_size)

    usual = speedups.encode_message(*message)

    assert usual is None or usual == in_python(content.encode_message, *message)


@given(st.integers(-3, 3), st.integers(-3, 3), st.integers(0, 60), st.integers(0, 255))
def test_the_limits_are_the_same(frame: int, message: int, body_size: int, text_size: int) -> None:
    body, some = b'x' * body_size, {'type': 'x' * text_size, 'priority': 1}
    for frame_max in (body_size + 8 + frame, len(encode_header(1, body_size, some)) + frame):
        limits = (max(frame_max, 9), body_size + message)

        usual = speedups.encode_message(1, '', 'queue', False, some, body, *limits)

        python = in_python(content.encode_message, 1, '', 'queue', False, some, body, *limits)
        assert usual is None or usual == python
        fits = len(encode_header(1, body_size, some)) <= limits[0] and body_size + 8 <= limits[0]
        assert (usual is not None) == (fits and body_size <= limits[1])


@pytest.mark.parametrize('name', sorted(set(NAMES) - {'headers'}))
def test_each_property_but_headers_is_handled(name: str) -> None:
    value = {'delivery_mode': 255, 'priority': 0, 'timestamp': 2**53 - 1}.get(name, 'x' * 255)
    message = (65535, 'x' * 255, 'y' * 255, False, {name: value}, b'body', 131072, 2**27)

    usual = speedups.encode_message(*message)

    assert usual is not None
    assert usual == in_python(content.encode_message, *message)
    header = encode_header(1, 2**64 - 1, {name: value})[7:-1]
    assert speedups.decode_header(header) == (2**64 - 1, {name: value})


@pytest.mark.parametrize('body', [b'', b'body', b'x' * (131072 - 8)])
@pytest.mark.parametrize('some', [{}, USUAL, dict.fromkeys(NAMES)])
def test_the_usual_message_is_handled(some: dict[str, Any], body: bytes) -> None:
    message = (1, '', 'queue', True, some, body, 131072, 2**27)

    usual = speedups.encode_message(*message)

    assert usual is not None
    assert usual == in_python(content.encode_message, *message)
    # It is what those ask who encode and decode.
    assert content.encode_message(*message) == usual


def test_the_usual_header_is_handled() -> None:
    header = encode_header(1, 4, USUAL)[7:-1]
    there = {name: value for name, value in USUAL.items() if value is not None}

    assert speedups.decode_header(header) == (4, {**there, 'timestamp': 1700000000})
    assert properties.decode_header(header) == in_python(properties.decode_header, header)


@pytest.mark.parametrize(
    ('name', 'value'),
    [
        ('type', 'é'),
        ('type', Text('text')),
        ('type', 'x' * 256),
        ('type', 5),
        ('headers', {}),
        ('priority', True),
        ('priority', Number.TWO),
        ('priority', 256),
        ('priority', -1),
        ('priority', 1.0),
        ('timestamp', -1),
        ('timestamp', float('nan')),
        ('timestamp', float('inf')),
        ('timestamp', 2**53),
        ('timestamp', 2**64),
        ('timestamp', True),
        ('no such', 'text'),
        ('no such', None),
    ],
)
def test_what_is_not_usual_is_left_to_python(name: str, value: Any) -> None:
    assert speedups.encode_message(1, '', 'queue', True, {name: value}, b'body', 131072, 2**27) is None


def same_header(payload: bytes) -> None:
    usual = speedups.decode_header(payload)

    if usual is not None:
        python = in_python(properties.decode_header, payload)
        assert usual == python
        # In the same order, and of the same types.
        assert repr(usual) == repr(python)


valid = {**dict.fromkeys(NAMES, st.text(st.characters(codec='utf-8'), max_size=60)), 'headers': st.just({'name': 1})}
for octet in ('delivery_mode', 'priority'):
    valid[octet] = st.integers(0, 255)
valid['timestamp'] = st.integers(0, 2**64 - 1)


@given(st.integers(0, 2**64 - 1), st.fixed_dictionaries({}, optional=valid), st.data())
def test_a_header_is_decoded_as_in_python_or_left_to_it(size: int, some: dict[str, Any], data: st.DataObject) -> None:
    payload = encode_header(1, size, some)[7:-1]
    same_header(payload)
    assert (speedups.decode_header(payload) is None) == ('headers' in some)

    same_header(payload + data.draw(st.binary(max_size=3)))
    cut = payload[: data.draw(st.integers(0, len(payload) - 1))]
    same_header(cut)
    assert speedups.decode_header(cut) is None

    broken = bytearray(payload)
    broken[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    same_header(bytes(broken))


@given(st.integers(0, 65535), st.sampled_from([60, 60, 60, 0, 10]), st.binary(max_size=300))
def test_any_header_is_decoded_as_in_python_or_left_to_it(flags: int, class_id: int, rest: bytes) -> None:
    same_header(struct.pack('>HHQH', class_id, 0, 1, flags) + rest)
    same_header(rest)


@pytest.mark.parametrize('kind', [bytearray, memoryview, Bytes])
def test_a_header_in_anything_but_bytes_is_left_to_python(kind: Callable[[bytes], Any]) -> None:
    assert speedups.decode_header(kind(encode_header(1, 4, USUAL)[7:-1])) is None


def test_a_body_that_grows_too_long_or_is_not_complete_is_refused() -> None:
    body = speedups.Body(10)
    with pytest.raises(ValueError, match='a body is taken that is not complete'):
        body.take()
    body.add(b'12345')
    with pytest.raises(ValueError, match='6 bytes are more than is missing of a body'):
        body.add(b'678901')
    with pytest.raises(ValueError, match='a body is taken that is not complete'):
        body.take()
    body = speedups.Body(5)
    body.add(b'12345')
    assert body.take() == b'12345'
    with pytest.raises(ValueError, match='a body is taken that is not complete'):
        body.take()
    with pytest.raises(TypeError):
        body.add('text')
