"""Frames: bytes to frames and back, beside pamqp's own codec, and with bytes that nobody meant to send."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pamqp import base, body, commands, frame, header

from amphora.amqp import frames
from amphora.amqp.content import ContentAssembler, encode_message
from amphora.amqp.deliveries import read_delivery
from amphora.amqp.errors import FrameError, SyntaxError_
from amphora.amqp.message import DeliveryInfo
from amphora.amqp.properties import decode_header
from tests.amqp.drawing import refused, tables
from tests.amqp.scripted import content_header, delivery, method, raw_frame

METHODS = sorted((kind for kind in commands.INDEX_MAPPING.values()), key=lambda kind: kind.index)

# Names that pamqp itself takes too: of a few characters, and short enough for a name that it limits to 127.
names = st.text('abcXYZ019-_.:', max_size=127)
short_strings = st.text(st.characters(codec='utf-8'), max_size=60)
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    'bit': st.booleans(),
    'octet': st.integers(0, 255),
    'short': st.integers(0, 2**16 - 1),
    'long': st.integers(0, 2**32 - 1),
    'longlong': st.integers(0, 2**63 - 1),
    'shortstr': names,
    'longstr': names,
    'table': tables,
}


def fields_of(kind: type[base.Frame]) -> st.SearchStrategy[dict[str, Any]]:
    """Values of a method's fields; what AMQP has withdrawn keeps pamqp's own value."""
    withdrawn = {'ticket', 'insist', 'out_of_band', 'known_hosts', 'capabilities', 'cluster_id', 'channel_id'}
    chosen: dict[str, st.SearchStrategy[Any]] = {}
    for name in kind.attributes():
        if name in withdrawn or (kind, name) in (
            (commands.Connection.Open, 'virtual_host'),
            (commands.Exchange.Declare, 'internal'),
            (commands.Exchange.Delete, 'exchange'),
        ):
            continue
        chosen[name] = FIELDS[kind.amqp_type(name)]
    return st.fixed_dictionaries(chosen)


def one_frame(data: bytes, frame_max: int = 1_000_000) -> frames.Frame:
    [only] = frames.Splitter(frame_max).feed(data)
    return only


# -- methods -----------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings('ignore:This command is deprecated')
@pytest.mark.parametrize('kind', METHODS, ids=lambda kind: kind.name)
@settings(max_examples=30)  # of each of some sixty methods
@given(data=st.data(), channel=st.integers(0, 65535))
def test_every_method_is_encoded_and_decoded_as_pamqp_does(
    kind: type[base.Frame], data: st.DataObject, channel: int
) -> None:
    fields = data.draw(fields_of(kind))
    theirs = kind(**fields)
    complete = {name: getattr(theirs, name) for name in kind.attributes()}

    # Tables in them may differ from pamqp's in order and in the type of a number, but it reads them as they were.
    encoded = frames.encode_method(channel, kind, **complete)
    without_tables = {name: None if kind.amqp_type(name) == 'table' else value for name, value in complete.items()}
    assert frames.encode_method(channel, kind, **without_tables) == frame.marshal(kind(**without_tables), channel)
    assert dict(frame.unmarshal(encoded)[2]) == complete

    number, got_channel, payload = one_frame(encoded)
    ours = frames.decode_method(payload)
    assert (number, got_channel, type(ours)) == (frames.METHOD, channel, kind)
    for name in kind.attributes():
        is_long = kind.amqp_type(name) == 'longstr' and isinstance(complete[name], str)
        # A long string is bytes on the wire.
        assert getattr(ours, name) == (complete[name].encode() if is_long else complete[name] or type(complete[name])())


@given(short_strings)
def test_names_beyond_what_pamqp_takes_come_back_as_they_were(name: str) -> None:
    payload = one_frame(frames.encode_method(1, commands.Queue.Declare, queue=name))[2]
    assert frames.decode_method(payload).queue == name


def test_fields_that_are_not_given_are_zero_empty_or_false() -> None:
    assert frames.encode_method(1, commands.Queue.Declare) == raw_frame(
        frames.METHOD, 1, b'\x00\x32\x00\x0a' + b'\x00\x00' + b'\x00' + b'\x00' + b'\x00\x00\x00\x00'
    )


@pytest.mark.parametrize(
    ('kind', 'fields', 'says'),
    [
        (commands.Queue.Declare, {'queue': 'x' * 256}, 'queue of Queue.Declare is 256 bytes long; AMQP allows 255'),
        (commands.Queue.Declare, {'queue': '\ud800'}, 'queue of Queue.Declare cannot be encoded as UTF-8'),
        (commands.Queue.Declare, {'arguments': {'a': object()}}, 'arguments of Queue.Declare cannot be encoded'),
        (commands.Basic.Qos, {'prefetch_count': 65536}, 'prefetch_count of Basic.Qos cannot be encoded'),
        (commands.Basic.Qos, {'prefetch_count': -1}, 'prefetch_count of Basic.Qos cannot be encoded'),
        (commands.Basic.Qos, {'prefetch_count': 'ten'}, 'prefetch_count of Basic.Qos cannot be encoded'),
        (commands.Basic.Nack, {'delivery_tag': 2**64}, 'delivery_tag of Basic.Nack cannot be encoded'),
        (commands.Basic.Nack, {'delivery_tag': -1}, 'delivery_tag of Basic.Nack cannot be encoded'),
    ],
)
def test_what_cannot_be_encoded_is_a_value_error_that_names_it(
    kind: type[base.Frame], fields: dict[str, Any], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        frames.encode_method(1, kind, **fields)


# -- the hot four ------------------------------------------------------------------------------------------------------


@given(st.integers(1, 65535), names, names, st.booleans())
def test_a_publish_is_encoded_as_pamqp_does(channel: int, exchange: str, key: str, mandatory: bool) -> None:
    expected = method(channel, commands.Basic.Publish(0, exchange, key, mandatory))
    assert frames.encode_publish(channel, exchange, key, mandatory) == expected


@given(st.integers(1, 65535), st.integers(0, 2**63 - 1), st.booleans())
def test_an_ack_is_encoded_as_pamqp_does_and_decoded_again(channel: int, tag: int, multiple: bool) -> None:
    expected = method(channel, commands.Basic.Ack(tag, multiple))
    assert frames.encode_ack(channel, tag, multiple) == expected
    assert frames.decode_ack(one_frame(expected)[2]) == (tag, int(multiple))


@given(st.integers(1, 65535), st.integers(0, 2**64 - 1), st.booleans(), st.binary(max_size=30), st.binary(max_size=30))
def test_an_ack_is_read_where_it_stands(channel: int, tag: int, multiple: bool, before: bytes, after: bytes) -> None:
    ack = frames.encode_ack(channel, tag, multiple)
    assert frames.read_ack(before + ack + after, len(before)) == (len(before + ack), channel, tag, int(multiple))
    for end in range(len(ack)):
        assert frames.read_ack(before + ack[:end], len(before)) is None


@pytest.mark.parametrize('at', [0, 3, 4, 5, 6, 7, 8, 9, 10, 20])
def test_what_is_no_ack_is_not_read_as_one(at: int) -> None:
    ack = bytearray(frames.encode_ack(1, 7))
    ack[at] ^= 1
    assert frames.read_ack(bytes(ack), 0) is None


@pytest.mark.parametrize('tag', [-1, 2**64, 1.0, '1', None])
def test_a_delivery_tag_that_is_none_is_refused(tag: Any) -> None:
    with pytest.raises(ValueError, match='a delivery tag must be an integer from 0 to') as refusal:
        frames.encode_ack(1, tag)
    assert repr(tag) in str(refusal.value)


@given(st.integers(0, 2**63 - 1), st.booleans(), st.booleans())
def test_a_nack_is_decoded(tag: int, multiple: bool, requeue: bool) -> None:
    payload = one_frame(method(1, commands.Basic.Nack(tag, multiple, requeue)))[2]
    assert frames.decode_ack(payload) == (tag, multiple | requeue << 1)


@given(names, st.integers(0, 2**63 - 1), st.booleans(), names, names)
def test_a_delivery_is_decoded(consumer: str, tag: int, redelivered: bool, exchange: str, key: str) -> None:
    payload = one_frame(method(1, commands.Basic.Deliver(consumer, tag, redelivered, exchange, key)))[2]
    info = DeliveryInfo(payload, *frames.decode_deliver(payload))
    assert (info.consumer_tag, info.delivery_tag, info.redelivered) == (consumer, tag, redelivered)
    assert (info.exchange, info.routing_key) == (exchange, key)


@given(st.binary(max_size=60), st.integers(9, 40))
def test_a_body_is_cut_into_frames_of_the_agreed_size(content: bytes, frame_max: int) -> None:
    data = b''.join(frames.encode_body(7, content, frame_max))
    pieces = list(frames.Splitter(frame_max).feed(data))
    assert b''.join(payload for _, _, payload in pieces) == content
    assert {(kind, channel) for kind, channel, _ in pieces} <= {(frames.BODY, 7)}
    assert len(pieces) == -(-len(content) // (frame_max - 8))
    if len(pieces) == 1:
        assert data == frame.marshal(body.ContentBody(content), 7)


@pytest.mark.parametrize(
    ('decode', 'payload'),
    [
        (frames.decode_ack, b'\x00\x3c\x00\x50' + bytes(8)),
        (frames.decode_deliver, b'\x00\x3c\x00\x3c'),
        (frames.decode_deliver, b'\x00\x3c\x00\x3c\x05tag' + bytes(9)),
    ],
)
def test_hot_frames_that_are_cut_short_are_frame_errors(decode: Callable[[bytes], Any], payload: bytes) -> None:
    with pytest.raises(FrameError, match=f'of {len(payload)} bytes'):
        decode(payload)


# -- splitting ---------------------------------------------------------------------------------------------------------

STREAM = (
    method(0, commands.Connection.Tune(2047, 131072, 60))
    + frames.HEARTBEAT_FRAME
    + delivery(1, 'tag', 1, b'hello')
    + raw_frame(frames.BODY, 3, b'')
    + method(2, commands.Queue.DeclareOk('queue', 1, 2))
)
EXPECTED = list(frames.Splitter().feed(STREAM))


def test_a_stream_is_cut_into_its_frames() -> None:
    assert [(kind, channel) for kind, channel, _ in EXPECTED] == [
        (1, 0),
        (8, 0),
        (1, 1),
        (2, 1),
        (3, 1),
        (3, 3),
        (1, 2),
    ]
    assert b''.join(raw_frame(*each) for each in EXPECTED) == STREAM


@pytest.mark.parametrize('at', range(len(STREAM) + 1))
def test_the_same_frames_come_wherever_the_stream_is_broken(at: int) -> None:
    splitter = frames.Splitter()
    assert [*splitter.feed(STREAM[:at]), *splitter.feed(STREAM[at:])] == EXPECTED


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_the_same_frames_come_in_whatever_pieces_the_stream_arrives(cuts: list[int]) -> None:
    splitter = frames.Splitter()
    borders = [0, *sorted(cuts), len(STREAM)]
    got = [each for begin, end in pairwise(borders) for each in splitter.feed(STREAM[begin:end])]
    assert got == EXPECTED


def test_the_same_frames_come_byte_by_byte_each_as_soon_as_it_is_complete() -> None:
    splitter = frames.Splitter()
    ends, end = [], 0
    for _, _, payload in EXPECTED:
        end += len(payload) + 8
        ends.append(end)
    came = [(at + 1, each) for at in range(len(STREAM)) for each in splitter.feed(STREAM[at : at + 1])]
    assert came == list(zip(ends, EXPECTED, strict=True))


def test_a_frame_in_pieces_of_two_bytes_takes_little_more_than_its_bytes() -> None:
    data = raw_frame(frames.HEADER, 1, bytes(100_000))
    splitter = frames.Splitter(131072)
    tracemalloc.start()
    try:
        for at in range(0, 100_000, 2):
            assert list(splitter.feed(data[at : at + 2])) == []
        kept = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()

    assert kept < 200_000
    assert list(splitter.feed(data[100_000:])) == [(frames.HEADER, 1, bytes(100_000))]


BODY = bytes(range(256)) * 390


def test_a_large_body_frame_comes_in_parts_its_last_byte_with_the_end_octet() -> None:
    data = raw_frame(frames.BODY, 1, BODY) + frames.HEARTBEAT_FRAME
    end = 7 + len(BODY)
    splitter = frames.Splitter(131072)
    borders = [0, 5, 20_000, 20_001, 30_000, 40_000, end - 1, end, end + 1, len(data)]
    came, told = [], []
    for start, stop in pairwise(borders):
        came.append([(kind, channel, bytes(payload)) for kind, channel, payload in splitter.feed(data[start:stop])])
        told.append((splitter.begun, splitter.pending))

    assert (
        came
        == [
            [],
            [(frames.PART, 1, BODY[:19_993])],
            [],  # waits until there is more
            [],
            [(frames.PART, 1, BODY[19_993:39_993])],
            [(frames.PART, 1, BODY[39_993:-1])],
            [],
            [(frames.BODY, 1, BODY[-1:])],
            [(frames.HEARTBEAT, 0, b'')],
        ]
    )
    assert told == [(1, stop) for stop in borders[1:-2]] + [(1, 0), (1, 0)]


@pytest.mark.parametrize('size', [16_383, 16_384, 16_385, 50_000])
def test_a_body_comes_whole_wherever_its_stream_is_broken(size: int) -> None:
    data = raw_frame(frames.BODY, 1, BODY[:size]) + raw_frame(frames.BODY, 2, b'next')
    for at in (*range(20), *range(16_370, 16_410), *range(size, size + 20)):
        splitter = frames.Splitter(131072)
        came = [*splitter.feed(data[:at]), *splitter.feed(data[at:])]
        assert came[-1] == (frames.BODY, 2, b'next')
        assert b''.join(payload for _, _, payload in came[:-1]) == BODY[:size]
        *parts, last = ((kind, channel) for kind, channel, _ in came[:-1])
        assert set(parts) <= {(frames.PART, 1)}
        assert last == (frames.BODY, 1)
        assert splitter.pending == 0


@given(st.lists(st.integers(0, 120_000), max_size=8))
def test_a_message_is_the_same_in_whatever_pieces_its_body_frames_arrive(cuts: list[int]) -> None:
    data = encode_message(1, 'e', 'k', True, {'type': 't'}, BODY, frame_max=40_000) + raw_frame(3, 2, BODY[:1000])
    splitter = frames.Splitter(40_000)
    assembler = ContentAssembler(len(BODY))
    whole = []
    for start, stop in pairwise([0, *sorted(cuts), len(data)]):
        for kind, channel, payload in splitter.feed(data[start:stop]):
            if channel == 2:
                whole.append(payload)
            elif kind == frames.METHOD:
                assembler.begin(payload)
            elif kind == frames.HEADER:
                assert not assembler.header(payload)
            elif kind == frames.PART:
                assembler.part(payload)
            elif assembler.body(payload):
                whole.append(assembler.take()[1:])
    assert whole == [({'type': 't'}, BODY), BODY[:1000]]


def test_a_body_frame_that_came_in_parts_and_does_not_end_is_never_complete() -> None:
    splitter = frames.Splitter(131072)
    data = raw_frame(frames.BODY, 1, BODY, end=b'\xcd')
    assert list(splitter.feed(data[:-1])) == [(frames.PART, 1, BODY[:-1])]
    with pytest.raises(FrameError, match='octet 0xcd, not with 0xce'):
        list(splitter.feed(data[-1:]))


def test_a_body_frame_of_no_channel_comes_whole() -> None:
    data = raw_frame(frames.BODY, 0, BODY)
    splitter = frames.Splitter(131072)
    assert list(splitter.feed(data[:-1])) == []
    assert list(splitter.feed(data[-1:])) == [(frames.BODY, 0, BODY)]


def test_a_frame_that_is_too_large_is_refused_by_its_first_seven_bytes() -> None:
    head = struct.pack('>BHI', 3, 1, 4089)
    splitter = frames.Splitter()
    assert list(splitter.feed(head[:6])) == []
    with pytest.raises(FrameError, match='a frame of 4097 bytes; at most 4096'):
        list(splitter.feed(head[6:]))

    assert one_frame(raw_frame(3, 1, bytes(4088)), 4096) == (3, 1, bytes(4088))
    assert one_frame(raw_frame(3, 1, bytes(4089)), 4097) == (3, 1, bytes(4089))


def test_a_content_header_may_be_larger_than_other_frames_where_that_is_allowed() -> None:
    splitter = frames.Splitter(4096)
    splitter.header_max = 6000
    assert list(splitter.feed(raw_frame(frames.HEADER, 1, bytes(5992)))) == [(frames.HEADER, 1, bytes(5992))]
    for kind, size, most in ((frames.HEADER, 5993, 6000), (frames.BODY, 4089, 4096)):
        with pytest.raises(FrameError, match=f'at most {most} are accepted'):
            list(splitter.feed(raw_frame(kind, 1, bytes(size))))


def test_a_splitter_tells_how_far_a_frame_has_come() -> None:
    splitter = frames.Splitter()
    told = []
    data = frames.HEARTBEAT_FRAME + raw_frame(3, 1, b'body') + raw_frame(3, 1, b'more')
    for piece in (data[:8], data[8:11], data[11:15], data[15:18], data[18:22], data[22:]):
        list(splitter.feed(piece))
        told.append((splitter.begun, splitter.pending))
    assert told == [(0, 0), (1, 3), (1, 7), (1, 10), (2, 2), (2, 0)]


def test_frames_before_a_broken_one_still_come() -> None:
    feeding = frames.Splitter().feed(frames.HEARTBEAT_FRAME + raw_frame(1, 0, b'x', end=b'\xcd'))
    assert next(feeding) == (8, 0, b'')
    with pytest.raises(FrameError, match='octet 0xcd, not with 0xce'):
        next(feeding)


def taking(whole: list[Any]) -> frames.Splitter:
    """A splitter that puts what comes as a whole message into a list."""

    def take(data: bytes, at: int, frame_max: int) -> int:
        delivery = read_delivery(data, at, frame_max)
        if delivery is None:
            return 0
        stop, *rest = delivery
        whole.append(rest)
        return stop

    return frames.Splitter(take=take)


def whole_deliveries(*pieces: bytes) -> tuple[list[Any], list[frames.Frame]]:
    """What comes as a whole message, and what as frames."""
    whole: list[Any] = []
    splitter = taking(whole)
    return whole, [each for piece in pieces for each in splitter.feed(piece)]


DELIVERY = delivery(1, 'tag', 1, b'hello')
DELIVERY_FRAMES = list(frames.Splitter().feed(DELIVERY))
MESSAGE = [
    1,
    DELIVERY_FRAMES[0][2],
    *frames.decode_deliver(DELIVERY_FRAMES[0][2]),
    decode_header(DELIVERY_FRAMES[1][2])[1],
    b'hello',
]


def test_deliveries_that_come_in_one_piece_come_as_whole_messages_between_the_other_frames() -> None:
    order: list[Any] = []
    splitter = taking(order)
    order.extend(each[:2] for each in splitter.feed(frames.HEARTBEAT_FRAME))
    for each in splitter.feed(DELIVERY + method(1, commands.Basic.Ack(7)) + DELIVERY + frames.HEARTBEAT_FRAME):
        order.append(each[:2])

    assert order == [(8, 0), MESSAGE, (1, 1), MESSAGE, (8, 0)]


METHOD_FRAME, HEADER_FRAME, BODY_FRAME = (raw_frame(*each) for each in DELIVERY_FRAMES)


@pytest.mark.parametrize('at', range(1, len(DELIVERY)))
def test_a_delivery_comes_as_its_frames_when_more_than_the_first_is_in_two_pieces(at: int) -> None:
    whole, others = whole_deliveries(DELIVERY[:at], DELIVERY[at:])
    if at < len(METHOD_FRAME):
        assert whole == [MESSAGE]
    else:
        assert others == DELIVERY_FRAMES
    assert bool(whole) != bool(others)


@pytest.mark.parametrize(
    'data',
    [
        pytest.param(
            METHOD_FRAME + raw_frame(2, 3, DELIVERY_FRAMES[1][2]) + BODY_FRAME, id='header of another channel'
        ),
        pytest.param(METHOD_FRAME + HEADER_FRAME + raw_frame(3, 3, b'hello'), id='body of another channel'),
        pytest.param(METHOD_FRAME + HEADER_FRAME + raw_frame(3, 1, b'hell') + raw_frame(3, 1, b'o'), id='two bodies'),
        pytest.param(METHOD_FRAME + HEADER_FRAME + raw_frame(3, 1, b'hello!'), id='a longer body'),
        pytest.param(METHOD_FRAME + BODY_FRAME + HEADER_FRAME, id='body before header'),
        pytest.param(METHOD_FRAME + METHOD_FRAME + HEADER_FRAME + BODY_FRAME[:-1], id='two methods'),
        pytest.param(METHOD_FRAME + raw_frame(2, 1, b'') + BODY_FRAME + BODY_FRAME, id='an empty header'),
        pytest.param(delivery(1, 'tag', 1, b''), id='no body'),
    ],
)
def test_what_follows_a_deliver_and_is_not_its_message_comes_as_frames(data: bytes) -> None:
    assert whole_deliveries(data) == ([], list(frames.Splitter().feed(data)))


@pytest.mark.parametrize('at', [len(METHOD_FRAME), len(METHOD_FRAME) + len(HEADER_FRAME), len(DELIVERY)])
def test_each_frame_of_a_message_must_end_as_frames_do(at: int) -> None:
    data = DELIVERY[: at - 1] + b'\xcd' + DELIVERY[at:]
    with pytest.raises(FrameError, match='octet 0xcd, not with 0xce'):
        whole_deliveries(data)


def test_a_body_larger_than_a_frame_is_refused_in_a_whole_message_too() -> None:
    with pytest.raises(FrameError, match='a frame of 4097 bytes; at most 4096'):
        whole_deliveries(delivery(1, 'tag', 1, bytes(4089)))


# -- bytes that nobody meant to send -----------------------------------------------------------------------------------

WELL_FORMED = [
    method(0, commands.Connection.Start(0, 9, {'product': 'x', 'nested': {'list': [1, True, 's']}}, 'PLAIN', 'en_US')),
    method(0, commands.Connection.Close(320, 'goodbye', 50, 10)),
    method(1, commands.Queue.DeclareOk('queue', 1, 2)),
    method(1, commands.Channel.Close(404, 'NOT_FOUND', 50, 10)),
    delivery(1, 'consumer', 7, b'hello'),
    method(1, commands.Basic.GetOk(1, True, 'exchange', 'key', 5))
    + frame.marshal(
        header.ContentHeader(
            0,
            5,
            commands.Basic.Properties(
                'text/plain', 'utf-8', {'a': {'b': [1, 2.5, None, 'c']}}, 2, 9, 'c', 'r', '1', 'm', None, 't'
            ),
        ),
        1,
    )
    + raw_frame(frames.BODY, 1, b'hello'),
    method(1, commands.Basic.Return(312, 'NO_ROUTE', 'exchange', 'key')) + content_header(1, 0),
    method(1, commands.Basic.Ack(7, True)) + method(1, commands.Basic.Nack(7, True, True)),
]


def read_everything(data: bytes) -> None:
    """Do with bytes what a connection does with them."""
    assembler = ContentAssembler(1000)
    for kind, _, payload in frames.Splitter(131072).feed(data):
        if kind == frames.HEADER:
            if assembler.header(payload):
                assembler.take()
        elif kind == frames.BODY:
            if assembler.body(payload):
                assembler.take()
        elif kind == frames.METHOD:
            name = payload[:4]
            if name in (frames.BASIC_ACK, frames.BASIC_NACK):
                frames.decode_ack(payload)
                continue
            if name == frames.BASIC_DELIVER:
                info = DeliveryInfo(payload, *frames.decode_deliver(payload))
                repr((info, info.consumer_tag))
            else:
                frames.decode_method(payload)
            if name in (frames.BASIC_DELIVER, frames.BASIC_GET_OK, frames.BASIC_RETURN):
                assembler.begin(payload)


@pytest.mark.parametrize('data', WELL_FORMED)
def test_what_is_well_formed_is_read_without_an_error(data: bytes) -> None:
    read_everything(data)


@pytest.mark.parametrize('data', WELL_FORMED)
def test_one_wrong_byte_anywhere_is_an_error_of_amqp_or_none(data: bytes) -> None:
    errors = []
    for at in range(len(data)):
        for wrong in {0, 1, 0x7F, 0x80, 0xCE, 0xFF, *b'AFSTD', data[at] ^ 1}:
            errors.append(refused(read_everything, data[:at] + bytes((wrong,)) + data[at + 1 :]))
    assert None in errors
    assert {error.code for error in errors if error is not None} <= {501, 502, 505}
    assert all(error.text for error in errors if error is not None)


@pytest.mark.limit(30)
@given(st.sampled_from(WELL_FORMED), st.data())
def test_many_wrong_bytes_are_an_error_of_amqp_or_none(data: bytes, draw: st.DataObject) -> None:
    mutated = bytearray(data)
    for at in draw.draw(st.lists(st.integers(7, len(data) - 1), min_size=1, max_size=6)):
        mutated[at] = draw.draw(st.integers(0, 255))
    error = refused(read_everything, bytes(mutated))
    assert error is None or error.text


@pytest.mark.limit(30)
@given(st.sampled_from([kind.index for kind in METHODS]), st.binary(max_size=60))
def test_any_payload_of_any_method_is_an_error_of_amqp_or_none(index: int, payload: bytes) -> None:
    error = refused(frames.decode_method, struct.pack('>I', index) + payload)
    assert error is None or isinstance(error, (FrameError, SyntaxError_))
