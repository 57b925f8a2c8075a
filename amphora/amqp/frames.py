"""Bytes to frames and back, for either side of a connection.

Splits a byte stream into frames, checks every limit before it allocates, encodes and decodes the hot frames (publish,
deliver, ack and content body) by hand, and all other methods by the field lists of `pamqp`. Field values are in
`amphora.amqp.fields`, content headers in `amphora.amqp.properties`. Knows no socket, and not which side of the
connection it is on.

Source: AMQP 0-9-1 specification, section 2.3 ("General frame format") and section 4.2.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

from pamqp import base, commands

from amphora.amqp.errors import FrameError, SyntaxError_
from amphora.amqp.fields import field_table, read_field_table, read_short_string, short_string

try:
    from amphora.amqp import speedups as speedups  # for those above as well
except ImportError:  # nothing could be compiled where this was installed
    speedups = None  # type: ignore[assignment]  # a module otherwise

METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8
#: what a `Splitter` calls a part of a body frame when more of that frame is to come; none of AMQP's types
PART = 256

#: what a client says first: AMQP 0-9-1
PROTOCOL_HEADER = b'AMQP\x00\x00\x09\x01'
#: the largest frame either side may send before `connection.tune` has been agreed on, in bytes with its 8 of overhead
FRAME_MIN_SIZE = 4096
#: what surrounds a payload: type, channel and size before it, the end octet after it
FRAME_OVERHEAD = 8
FRAME_END = b'\xce'
HEARTBEAT_FRAME = b'\x08\x00\x00\x00\x00\x00\x00\xce'

# The first four payload bytes of the hot methods: class and method number.
BASIC_PUBLISH = b'\x00\x3c\x00\x28'
BASIC_RETURN = b'\x00\x3c\x00\x32'
BASIC_DELIVER = b'\x00\x3c\x00\x3c'
BASIC_GET_OK = b'\x00\x3c\x00\x47'
BASIC_ACK = b'\x00\x3c\x00\x50'
BASIC_NACK = b'\x00\x3c\x00\x78'

_frame_header = struct.Struct('>BHI')
#: unpacks type, channel and size of the payload
unpack_frame_header = _frame_header.unpack_from
_tag_and_bits = struct.Struct('>QB')
_unpack_tag_and_bits = _tag_and_bits.unpack_from
#: packs type, channel and size of the payload
pack_frame_header = _frame_header.pack
_ack = struct.Struct('>BHI4sQBB')

# Pieces below this size, in bytes, are gathered in one buffer.
_SMALL = 1024
# What is large of a body, in bytes.
_LARGE = 16384

#: type, channel, payload: bytes, but a view of them for what is large of a body
Frame = tuple[int, int, Any]
#: what `keep` gathers, to be joined
Pieces = list[bytes | bytearray | memoryview]
#: gets bytes, where a frame begins in them, and how large one may be; gives where what it has taken ends, or 0
Taker = Callable[[bytes, int, int], int]


def keep(parts: Pieces, piece: bytes | memoryview) -> None:
    """Add a piece to those that will be joined.

    Small ones share a buffer: objects of their own would take twenty times the bytes that are in them, and the peer
    says how small they are.
    """
    if len(piece) >= _SMALL:
        parts.append(piece)
    elif parts and isinstance(parts[-1], bytearray):
        parts[-1] += piece
    else:
        parts.append(bytearray(piece))


class Splitter:
    """Cuts a byte stream into frames, whatever pieces it arrives in.

    Of a large body frame what has come is yielded at once, as parts, and when it is complete what is left of it, as the
    frame: to join it here, before whoever puts the body together does, takes as long as to receive it. For the same
    reason what is large of a body is mostly a view of the bytes that came.

    :param frame_max: the largest frame to accept, in bytes with its overhead; raise it once tune is agreed on.
    :param take: is shown each frame first, in the bytes that came, and may take it and others after it at once: those
        are not yielded then.
    :ivar header_max: the largest content header to accept, in the same bytes, where that is more than `frame_max`.
    :ivar begun: how many frames have not come in one piece; the last of them may be under way.
    """

    __slots__ = (
        '_channel',
        '_left',
        '_needed',
        '_parts',
        '_size',
        '_take',
        '_yielded',
        'begun',
        'frame_max',
        'header_max',
    )

    def __init__(self, frame_max: int = FRAME_MIN_SIZE, take: Taker | None = None) -> None:
        self.frame_max = frame_max
        self._take = take
        self.header_max = 0
        self.begun = 0
        # What waits for more, and how much it must be until something can be made of it.
        self._parts: Pieces = []
        self._size = 0
        self._needed = 0
        # Of a body frame that comes in parts: how many bytes of it were yielded, and of its payload were not.
        self._yielded = 0
        self._left = 0
        self._channel = 0

    @property
    def pending(self) -> int:
        """Bytes of a frame that is not complete; 0 when none is."""
        return self._yielded + self._size

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Yield ``(type, channel, payload)`` for each frame that is now complete, and for parts of large body frames.

        :raises FrameError: when a frame is too large (known from its first seven bytes, before anything is kept for it)
            or does not end with the end octet. The stream is of no use from there on.
        """
        at = 0
        if self._take is not None and not (self._yielded or self._parts):
            # Without a generator, where there is nothing for it to yield.
            end = len(data)
            while at < end:
                stop = self._take(data, at, self.frame_max)
                if not stop:
                    return self._split(data, at)
                at = stop
            return iter(())
        return self._split(data, 0)

    def _split(self, data: bytes, at: int) -> Iterator[Frame]:
        is_new = not self._yielded and not self._parts
        if self._parts:
            # They are joined once, when the last has come: byte-wise arrival stays linear.
            keep(self._parts, data)
            self._size += len(data)
            if self._size < self._needed:
                return
            data = b''.join(self._parts)
            self._parts.clear()
            self._size = 0
        end, needed = len(data), 7
        unpack = unpack_frame_header
        while self._left or end - at >= 7:
            if self._left:
                start, kind, channel, size = at, BODY, self._channel, self._left
            else:
                if self._take is not None:
                    stop = self._take(data, at, self.frame_max)
                    if stop:
                        at, is_new = stop, True
                        continue
                start = at + 7
                kind, channel, size = unpack(data, at)
                largest = max(self.frame_max, self.header_max) if kind == HEADER else self.frame_max
                if size + FRAME_OVERHEAD > largest:
                    raise FrameError('a frame of %d bytes; at most %d are accepted' % (size + FRAME_OVERHEAD, largest))
            stop = start + size
            if stop < end:
                if data[stop] != 0xCE:
                    raise FrameError('a frame ends with octet %#04x, not with 0xce' % data[stop])
                at, is_new = stop + 1, True
                self._left = self._yielded = 0
                yield kind, channel, _piece(data, start, stop) if kind == BODY else data[start:stop]
            elif kind == BODY and channel and end - start >= _LARGE:
                # The last byte waits for the end octet.
                stop = min(end, stop - 1)
                self._yielded += stop - at
                self._left, self._channel = size - (stop - start), channel
                at = stop
                yield PART, channel, _piece(data, start, stop)
            else:
                needed = (min(stop + 1, start + _LARGE) if kind == BODY and channel else stop + 1) - at
                break
        if at < end:
            self._parts.append(data[at:] if at else data)
            self._size, self._needed = end - at, needed
        if self._yielded or at < end:
            self.begun += is_new


def _piece(data: bytes, start: int, stop: int) -> bytes | memoryview:
    """What has come of a body: a view where that is large, and not small beside all that came with it and is kept."""
    size = stop - start
    return memoryview(data)[start:stop] if size >= _LARGE and 4 * size >= len(data) else data[start:stop]


# -- methods -----------------------------------------------------------------------------------------------------------


_FIXED = {
    kind: struct.Struct(fmt) for kind, fmt in (('octet', '>B'), ('short', '>H'), ('long', '>I'), ('longlong', '>Q'))
}


_NOT_GIVEN: dict[str, Any] = {'shortstr': '', 'longstr': b'', 'table': None, **dict.fromkeys(_FIXED, 0)}


def encode_method(channel: int, method: type[base.Frame], **fields: Any) -> bytes:
    """Encode a method frame from the fields given; those not given are zero, empty or false.

    `pamqp` knows the fields and their types. Its own `marshal` is passed by because it refuses names that RabbitMQ
    takes (anything beyond ``a-zA-Z0-9-_.:@#,/+`` and the blank).

    :param method: a class of `pamqp.commands`, such as ``commands.Queue.Declare``.
    :raises ValueError: when a value cannot be encoded; the error names the field.
    """
    out = [struct.pack('>I', method.index)]
    bits, count = 0, 0
    for name in method.attributes():
        kind = method.amqp_type(name)
        if kind == 'bit':
            bits |= bool(fields.get(name)) << count
            count += 1
            continue
        if count:
            out.append(bytes((bits,)))
            bits = count = 0
        value = fields.get(name, _NOT_GIVEN[kind])
        out.append(_encode_field(kind, value, '%s of %s' % (name, method.name)))
    if count:
        out.append(bytes((bits,)))
    return frame(METHOD, channel, b''.join(out))


def _encode_field(kind: str, value: Any, what: str) -> bytes:
    if kind == 'shortstr':
        return short_string(value, what)
    if kind == 'table':
        return field_table(value, what)
    if kind == 'longstr':
        raw = value if isinstance(value, bytes) else str(value).encode()
        return struct.pack('>I', len(raw)) + raw
    try:
        return _FIXED[kind].pack(value)
    except struct.error as error:
        raise ValueError('%s cannot be encoded: %s' % (what, error)) from error


# RabbitMQ cuts a long reply text wherever the room ends, also in the middle of a letter. And a routing key may be any
# bytes: what another client has published with it must not cost us the connection.
_NOT_UTF_8 = {
    (commands.Connection.Close, 'reply_text'): 'replace',
    (commands.Channel.Close, 'reply_text'): 'replace',
    (commands.Basic.Return, 'reply_text'): 'replace',
    (commands.Basic.GetOk, 'routing_key'): 'surrogateescape',
}


def decode_method(payload: bytes) -> base.Frame:
    """Decode the payload of a method frame into an object of `pamqp.commands`.

    :raises FrameError: when a field does not fit into the frame.
    :raises SyntaxError_: when the method is unknown or a name is not UTF-8.
    """
    kind: Any = commands.INDEX_MAPPING.get(int.from_bytes(payload[:4], 'big'))
    if kind is None or len(payload) < 4:
        raise SyntaxError_('an unknown method: %s' % payload[:4].hex(' '))
    method: base.Frame = kind.__new__(kind)
    at, bit = 4, 0
    for name in kind.attributes():
        field = kind.amqp_type(name)
        value: Any
        if field == 'bit':
            if at >= len(payload):
                raise FrameError('%s ends before its field %s' % (kind.name, name))
            value = bool(payload[at] & 1 << bit)
            bit += 1
        else:
            if bit:
                at, bit = at + 1, 0
            if field == 'shortstr':
                value, at = read_short_string(payload, at, _NOT_UTF_8.get((kind, name), 'strict'))
            elif field == 'table':
                value, at = read_field_table(payload, at)
            elif field == 'longstr':
                end = at + 4 + int.from_bytes(payload[at : at + 4], 'big')
                if at + 4 > len(payload) or end > len(payload):
                    raise FrameError('%s of %s is longer than its frame' % (name, kind.name))
                value, at = payload[at + 4 : end], end
            else:
                fixed = _FIXED[field]
                if at + fixed.size > len(payload):
                    raise FrameError('%s ends before its field %s' % (kind.name, name))
                (value,), at = fixed.unpack_from(payload, at), at + fixed.size
        setattr(method, name, value)
    return method


def frame(kind: int, channel: int, payload: bytes) -> bytes:
    """One frame around a payload."""
    return pack_frame_header(kind, channel, len(payload)) + payload + FRAME_END


# -- the hot four ------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=4096)
def encode_publish(channel: int, exchange: str, routing_key: str, mandatory: bool) -> bytes:
    """The ``basic.publish`` method frame; remembered, because a program publishes to few addresses again and again.

    :raises ValueError: when the exchange or the routing key is over 255 bytes or not valid Unicode.
    """
    return frame(
        METHOD,
        channel,
        b''.join(
            (
                BASIC_PUBLISH,
                b'\x00\x00',
                short_string(exchange, 'the exchange'),
                short_string(routing_key, 'the routing key'),
                b'\x01' if mandatory else b'\x00',
            )
        ),
    )


def encode_body(channel: int, body: bytes, frame_max: int) -> list[bytes | memoryview]:
    """The body frames of a message, in order and ready to be joined; none for an empty body."""
    size = frame_max - FRAME_OVERHEAD
    if len(body) <= size:
        return [pack_frame_header(BODY, channel, len(body)), body, FRAME_END] if body else []
    out: list[bytes | memoryview] = []
    view = memoryview(body)
    for at in range(0, len(body), size):
        piece = view[at : at + size]
        out += (pack_frame_header(BODY, channel, len(piece)), piece, FRAME_END)
    return out


def _encode_ack(channel: int, delivery_tag: int, multiple: bool = False) -> bytes:
    """A ``basic.ack`` frame.

    :raises ValueError: when the delivery tag cannot be one.
    """
    try:
        return _ack.pack(METHOD, channel, 13, BASIC_ACK, delivery_tag, multiple, 0xCE)
    except struct.error as error:
        raise ValueError('a delivery tag must be an integer from 0 to 2^64 - 1, not %r' % (delivery_tag,)) from error


def _read_ack(data: bytes, at: int) -> tuple[int, int, int, int] | None:
    """The ``basic.ack`` frame that begins at an offset: where it ends, its channel, its delivery tag and its bits.

    None when not all of it is there, and for anything else.
    """
    if len(data) - at < _ack.size:
        return None
    kind, channel, size, name, delivery_tag, bits, last = _ack.unpack_from(data, at)
    if (kind, size, name, last) != (METHOD, 13, BASIC_ACK, 0xCE):
        return None
    return at + _ack.size, channel, delivery_tag, bits


def _decode_ack(payload: bytes) -> tuple[int, int]:
    """The delivery tag and the bits of a ``basic.ack`` (bit 0: multiple) or ``basic.nack`` (bit 1: requeue).

    :raises FrameError: when the payload is too short.
    """
    if len(payload) < 13:
        raise FrameError('a basic.ack or basic.nack of %d bytes' % len(payload))
    return cast('tuple[int, int]', _unpack_tag_and_bits(payload, 4))


def _decode_deliver(payload: bytes) -> tuple[bytes, int, bool, int]:
    """Of a ``basic.deliver``: raw consumer tag, delivery tag, redelivered, and where its exchange name begins.

    :raises FrameError: when the payload is too short.
    """
    at = 5 + payload[4] if len(payload) > 4 else 5
    if at + 9 > len(payload):
        raise FrameError('a basic.deliver of %d bytes' % len(payload))
    delivery_tag, redelivered = _unpack_tag_and_bits(payload, at)
    return payload[5:at], delivery_tag, redelivered == 1, at + 9


if TYPE_CHECKING or speedups is None:
    encode_ack, read_ack = _encode_ack, _read_ack
    decode_ack, decode_deliver = _decode_ack, _decode_deliver
else:
    encode_ack, read_ack = speedups.encode_ack, speedups.read_ack
    decode_ack, decode_deliver = speedups.decode_ack, speedups.decode_deliver
