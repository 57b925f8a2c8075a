"""The content header: body size and the fourteen properties of class basic, by hand.

Knows the order, the flag and the type of each property; not what anybody means by them.

Source: AMQP 0-9-1 specification, sections 2.3.5.2 ("Content headers") and 1.8 of the generated reference (class basic).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any

from amphora.amqp.errors import FrameError
from amphora.amqp.fields import field_table, read_field_table
from amphora.amqp.frames import FRAME_END, HEADER, pack_frame_header, speedups

#: property names in the order of their flags, highest flag first
NAMES = (
    'content_type',
    'content_encoding',
    'headers',
    'delivery_mode',
    'priority',
    'correlation_id',
    'reply_to',
    'expiration',
    'message_id',
    'timestamp',
    'type',
    'user_id',
    'app_id',
    'cluster_id',
)
_FLAGS = {name: 0x8000 >> position for position, name in enumerate(NAMES)}
_head = struct.Struct('>HHQH')
_OCTETS = ('delivery_mode', 'priority')
_LENGTHS = tuple(bytes((length,)) for length in range(256))

_decode_usual: Any = getattr(speedups, 'decode_header', None)

_Encode = Callable[[str, Any], bytes]
# The payload of the header, where the property begins in it -> its value and where it ends.
_Decode = Callable[[bytes, int], tuple[Any, int]]


def encode_header(channel: int, body_size: int, properties: Mapping[str, Any]) -> bytes:
    """The content header frame of a message. A property that is None is left out.

    :param properties: name -> value. ``headers`` is a dict; ``delivery_mode`` and ``priority`` are 0 to 255;
        ``timestamp`` is in seconds since 1970 or a `datetime`; all others are `str`.
    :raises ValueError: when a property does not exist or its value cannot be encoded; the error names it.
    """
    flags, out = 0, [b'']
    for name, encode in _encoders(tuple(properties)):
        value = properties[name]
        if value is not None:
            flags |= _FLAGS[name]
            out.append(encode(name, value))
    out[0] = _head.pack(60, 0, body_size, flags)
    payload = b''.join(out)
    return pack_frame_header(HEADER, channel, len(payload)) + payload + FRAME_END


# Remembered: a program's messages bear the same few sets of properties again and again.
@lru_cache(maxsize=256)
def _encoders(names: tuple[str, ...]) -> list[tuple[str, _Encode]]:
    """What encodes each of the properties of these names, in the order of the wire."""
    unknown = sorted(set(names).difference(NAMES))
    if unknown:
        raise ValueError('no such property: %s; AMQP knows %s' % (', '.join(unknown), ', '.join(NAMES)))
    return [(name, _ENCODE.get(name, _encode_text)) for name in NAMES if name in names]


def _encode_text(name: str, value: Any) -> bytes:
    if not isinstance(value, str):
        raise ValueError('the property %s must be a str, not %r' % (name, value))
    try:
        raw = value.encode('utf-8', 'surrogateescape')
    except UnicodeEncodeError as error:
        raise ValueError('the property %s cannot be encoded as UTF-8: %s' % (name, error)) from error
    if len(raw) > 255:
        raise ValueError('the property %s is %d bytes long; AMQP allows 255' % (name, len(raw)))
    return _LENGTHS[len(raw)] + raw


def _encode_octet(name: str, value: Any) -> bytes:
    if not isinstance(value, int) or not 0 <= value <= 255:
        raise ValueError('the property %s must be an integer from 0 to 255, not %r' % (name, value))
    return _LENGTHS[value]


def _encode_timestamp(name: str, value: Any) -> bytes:
    seconds = value.timestamp() if isinstance(value, datetime) else value
    if not isinstance(seconds, (int, float)) or not 0 <= seconds < 1 << 64:
        raise ValueError('the property %s must be seconds since 1970 or a datetime, not %r' % (name, value))
    return int(seconds).to_bytes(8, 'big')


def _encode_headers(name: str, value: Any) -> bytes:
    return field_table(value, 'the %s' % name)


_ENCODE: dict[str, _Encode] = {
    'headers': _encode_headers,
    'timestamp': _encode_timestamp,
    **dict.fromkeys(_OCTETS, _encode_octet),
}


def decode_header(payload: bytes) -> tuple[int, dict[str, Any]]:
    """Body size in bytes and the properties that are there, from the payload of a content header frame.

    Text that is not UTF-8 is kept by way of ``surrogateescape``, and headers that cannot be decoded stay bytes: the
    broker passes properties on as they are, and what another client put there must not cost us the connection.

    :raises FrameError: when the payload is cut short, is of another class, or a value in it does not fit.
    """
    if _decode_usual is not None:
        usual: tuple[int, dict[str, Any]] | None = _decode_usual(payload)
        if usual is not None:
            return usual
    if len(payload) < 14:
        raise FrameError('a content header of %d bytes' % len(payload))
    class_id, _, body_size, flags = _head.unpack_from(payload)
    if class_id != 60:
        raise FrameError('a content header of class %d; only class 60 (basic) carries content' % class_id)
    if flags & 1:
        raise FrameError('a content header with more than one word of flags; class basic has 14 properties')
    properties: dict[str, Any] = {}
    at = 14
    try:
        for name, decode in _decoders(flags):
            properties[name], at = decode(payload, at)
    except IndexError:
        at = len(payload) + 1
    # Slices end where the payload does, so one look at the end tells whether everything was there.
    if at > len(payload):
        raise FrameError('a content header ends in the middle of its properties')
    return body_size, properties


@lru_cache(maxsize=256)
def _decoders(flags: int) -> list[tuple[str, _Decode]]:
    return [(name, _DECODE.get(name, _decode_text)) for name in NAMES if flags & _FLAGS[name]]


def _decode_text(payload: bytes, at: int) -> tuple[str, int]:
    end = at + 1 + payload[at]
    return payload[at + 1 : end].decode('utf-8', 'surrogateescape'), end


def _decode_octet(payload: bytes, at: int) -> tuple[int, int]:
    return payload[at], at + 1


def _decode_timestamp(payload: bytes, at: int) -> tuple[int, int]:
    return int.from_bytes(payload[at : at + 8], 'big'), at + 8


def _decode_headers(payload: bytes, at: int) -> tuple[dict[str, Any] | bytes, int]:
    end = at + 4 + int.from_bytes(payload[at : at + 4], 'big')
    if at + 4 > len(payload) or end > len(payload):
        raise FrameError('a field table of %d bytes is longer than its frame' % (end - at - 4))
    try:
        return read_field_table(payload, at)
    except FrameError:
        return payload[at + 4 : end], end


_DECODE: dict[str, _Decode] = {
    'headers': _decode_headers,
    'timestamp': _decode_timestamp,
    **dict.fromkeys(_OCTETS, _decode_octet),
}
