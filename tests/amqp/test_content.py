"""A message as frames: what comes before the body, and the order and size the pieces may have."""

from __future__ import annotations

import struct
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import commands

from amphora.amqp.content import ContentAssembler, encode_message, encode_publish_head
from amphora.amqp.errors import FrameError, UnexpectedFrame
from amphora.amqp.properties import encode_header
from tests.amqp.scripted import content_header, method

DELIVER = b'\x00\x3c\x00\x3c...'


def header(size: int, properties: bytes = b'\x00\x00') -> bytes:
    return struct.pack('>HHQ', 60, 0, size) + properties


@given(st.lists(st.binary(max_size=8), max_size=8))
def test_a_body_is_whole_whatever_its_pieces(pieces: list[bytes]) -> None:
    whole = b''.join(pieces)
    assembler = ContentAssembler(1000)
    assembler.begin(DELIVER)
    complete = assembler.header(header(len(whole)))
    while not complete:
        complete = assembler.body(pieces.pop(0))

    assert assembler.content == whole
    assert assembler.take() == (DELIVER, {}, whole)
    assert assembler.method is None


def test_one_message_after_another_is_assembled_and_nothing_of_the_first_is_left() -> None:
    assembler = ContentAssembler(1000)
    for number, (size, body) in enumerate([(5, b'first'), (0, b''), (3, b'3rd')]):
        assembler.begin(b'%d' % number)
        properties = b'\x00\x80\x01a' if number == 0 else b'\x00\x00'
        assert assembler.header(header(size, properties)) is (size == 0)
        if size:
            assert assembler.body(body) is True
        assert assembler.take() == (b'%d' % number, {'message_id': 'a'} if number == 0 else {}, body)


def test_pieces_out_of_order_are_unexpected_and_say_what_was_expected() -> None:
    fresh, begun, announced = (ContentAssembler(1000) for _ in range(3))
    for assembler in (begun, announced):
        assembler.begin(DELIVER)
    announced.header(header(5))

    for assembler, expected in ((fresh, 'a method frame'), (begun, 'a content header'), (announced, 'a body frame')):
        if assembler is not fresh:
            with pytest.raises(UnexpectedFrame, match=f'a method frame where {expected} was expected'):
                assembler.begin(DELIVER)
        if assembler is not begun:
            with pytest.raises(UnexpectedFrame, match=f'a content header where {expected} was expected'):
                assembler.header(header(5))
        if assembler is not announced:
            with pytest.raises(UnexpectedFrame, match=f'a body frame where {expected} was expected'):
                assembler.body(b'x')


@pytest.mark.parametrize('size', [1001, 2**63, 2**64 - 1])
def test_a_body_over_the_limit_is_refused_by_its_header(size: int) -> None:
    assembler = ContentAssembler(1000)
    assembler.begin(DELIVER)
    with pytest.raises(FrameError, match=f'a body of {size} bytes was announced; at most 1000 are accepted'):
        assembler.header(header(size))


def test_a_body_of_the_limit_is_accepted() -> None:
    assembler = ContentAssembler(1000)
    assembler.begin(DELIVER)
    assert assembler.header(header(1000)) is False
    assert assembler.body(bytes(1000)) is True


def test_a_body_longer_than_announced_is_refused() -> None:
    assembler = ContentAssembler(1000)
    assembler.begin(DELIVER)
    assembler.header(header(5))
    assembler.body(b'abc')
    with pytest.raises(FrameError, match='2 bytes longer than its header announced'):
        assembler.body(b'defg')


@pytest.mark.parametrize('size', [5, 6])
def test_a_part_of_a_frame_is_never_the_end_of_a_body(size: int) -> None:
    assembler = ContentAssembler(1000)
    assembler.begin(DELIVER)
    assembler.header(header(5))
    with pytest.raises(FrameError, match='a body is longer than its header announced'):
        assembler.part(bytes(size))


def test_a_part_of_a_frame_without_a_header_is_refused() -> None:
    assembler = ContentAssembler(1000)
    assembler.begin(DELIVER)
    with pytest.raises(UnexpectedFrame, match='a body frame where a content header was expected'):
        assembler.part(b'abc')


def test_a_body_of_views_is_bytes() -> None:
    assembler = ContentAssembler(1000)
    for pieces in ([b'abcdef'], [b'ab', b'cdef'], [b'abcde', b'f']):
        assembler.begin(DELIVER)
        assembler.header(header(6))
        for piece in pieces[:-1]:
            assembler.part(memoryview(piece))
        assert assembler.body(memoryview(pieces[-1]))
        assert type(assembler.content) is bytes
        assert assembler.take()[2] == b'abcdef'


def test_empty_pieces_are_not_kept() -> None:
    assembler = ContentAssembler(1000)
    assembler.begin(DELIVER)
    assembler.header(header(2))
    tracemalloc.start()
    try:
        for _ in range(100_000):
            assert assembler.body(b'') is False
        kept = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()

    assert kept < 1000
    assert assembler.body(b'ab') is True


def test_the_head_of_a_publish_is_the_method_and_the_header() -> None:
    head = encode_publish_head(7, 'exchange', 'key', True, {'type': 'a'}, 5)
    assert head == method(7, commands.Basic.Publish(0, 'exchange', 'key', True)) + encode_header(7, 5, {'type': 'a'})
    assert encode_publish_head(7, '', 'k', False, {}, 0).endswith(content_header(7, 0))


@pytest.mark.parametrize('size', [10, 200_000])
def test_what_becomes_of_a_body_after_its_encoding_is_not_sent(size: int) -> None:
    body: Any = bytearray(size)
    frames = encode_message(1, '', 'k', False, {}, body)
    body[:] = b'x' * size
    assert b'x' not in bytes(frames)


@pytest.mark.parametrize('over', [0, 1])
def test_properties_fill_a_frame_and_no_more(over: int) -> None:
    # 22 bytes of frame and head, 4 of the table's length, 2 of the name, 5 of the value's type and length
    text = 'x' * (4096 - 22 - 4 - 2 - 5 + over)
    properties = {'headers': {'a': text}}
    assert len(encode_header(1, 0, properties)) == 4096 + over
    if over:
        with pytest.raises(ValueError, match='the properties take 4097 bytes; a frame holds at most 4096'):
            encode_publish_head(1, '', 'k', False, properties, 0, frame_max=4096)
    else:
        assert encode_publish_head(1, '', 'k', False, properties, 0, frame_max=4096).endswith(b'x\xce')


@pytest.mark.parametrize(
    ('exchange', 'key', 'size', 'says'),
    [
        ('x' * 256, 'k', 0, 'the exchange is 256 bytes long'),
        ('', 'x' * 256, 0, 'the routing key is 256 bytes long'),
        ('', 'k', 101, 'a body of 101 bytes; at most 100 are allowed'),
    ],
)
def test_what_the_broker_would_not_take_is_a_value_error(exchange: str, key: str, size: int, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        encode_publish_head(1, exchange, key, False, {}, size, max_message_size=100)


def test_pieces_of_two_bytes_take_little_more_than_their_bytes() -> None:
    count = 100_000
    assembler = ContentAssembler(10 * count)
    assembler.begin(DELIVER)
    assembler.header(header(2 * count + 2))
    tracemalloc.start()
    try:
        for _ in range(count):
            # not the same object each time
            assembler.body(bytes(bytearray(b'ab')))
        kept = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()

    assert kept < 3 * count
    assert assembler.body(b'cd') is True
    assert assembler.content == b'ab' * count + b'cd'
