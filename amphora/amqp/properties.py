"""The content header: body size and the fourteen properties of class basic, by hand.

Knows the order, the flag and the type of each property; not what anybody means by them.

Source: AMQP 0-9-1 specification, sections 2.3.5.2 ("Content headers") and 1.8 of the generated reference (class basic).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from amphora.amqp.errors import FrameError
from amphora.amqp.frames import HEADER, field_table, frame, read_field_table

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
#: delivery_mode of a message that the broker is to write to disk in a durable queue
PERSISTENT = 2

_FLAGS = {name: 0x8000 >> position for position, name in enumerate(NAMES)}
_FIELDS = tuple((name, flag) for name, flag in _FLAGS.items())
_head = struct.Struct('>HHQH')
_OCTETS = frozenset(('delivery_mode', 'priority'))
_KNOWN = frozenset(NAMES)


def encode_header(channel: int, body_size: int, properties: Mapping[str, Any]) -> bytes:
    """The content header frame of a message. A property that is None is left out.

    :param properties: name -> value. ``headers`` is a dict; ``delivery_mode`` and ``priority`` are 0 to 255;
        ``timestamp`` is in seconds since 1970 or a `datetime`; all others are `str`.
    :raises ValueError: when a property does not exist or its value cannot be encoded; the error names it.
    """
    flags, out = 0, [b'']
    rest = len(properties)
    for name, flag in _FIELDS:
        if not rest:
            break
        if name in properties:
            rest -= 1
            value = properties[name]
            if value is not None:
                flags |= flag
                out.append(_encode_property(name, value))
    if rest:
        unknown = sorted(set(properties) - _KNOWN)
        raise ValueError('no such property: %s; AMQP knows %s' % (', '.join(map(str, unknown)), ', '.join(NAMES)))
    out[0] = _head.pack(60, 0, body_size, flags)
    return frame(HEADER, channel, b''.join(out))


def _encode_property(name: str, value: Any) -> bytes:
    if name in _OCTETS:
        if not isinstance(value, int) or not 0 <= value <= 255:
            raise ValueError('the property %s must be an integer from 0 to 255, not %r' % (name, value))
        return bytes((value,))
    if name == 'headers':
        return field_table(value, 'the headers')
    if name == 'timestamp':
        seconds = int(value.timestamp() if isinstance(value, datetime) else value)
        if not 0 <= seconds < 1 << 64:
            raise ValueError('the property timestamp must be seconds since 1970, not %r' % (value,))
        return seconds.to_bytes(8, 'big')
    if not isinstance(value, str):
        raise ValueError('the property %s must be a str, not %r' % (name, value))
    raw = value.encode('utf-8', 'surrogateescape')
    if len(raw) > 255:
        raise ValueError('the property %s is %d bytes long; AMQP allows 255' % (name, len(raw)))
    return bytes((len(raw),)) + raw


def decode_header(payload: bytes) -> tuple[int, dict[str, Any]]:
    """Body size in bytes and the properties that are there, from the payload of a content header frame.

    Text that is not UTF-8 is kept by way of ``surrogateescape``; headers that cannot be decoded stay bytes.

    :raises FrameError: when the payload is cut short, is of another class, or a value in it does not fit.
    """
    if len(payload) < 14:
        raise FrameError('a content header of %d bytes' % len(payload))
    class_id, _, body_size, flags = _head.unpack_from(payload)
    if class_id != 60:
        raise FrameError('a content header of class %d; only class 60 (basic) carries content' % class_id)
    if flags & 1:
        raise FrameError('a content header with more than one word of flags; class basic has 14 properties')
    properties: dict[str, Any] = {}
    at = 14
    for name, flag in _FIELDS:
        if not flags & flag:
            continue
        if name in _OCTETS:
            if at >= len(payload):
                raise FrameError('a content header ends before its property %s' % name)
            properties[name] = payload[at]
            at += 1
        elif name == 'headers':
            properties[name], at = _read_headers(payload, at)
        elif name == 'timestamp':
            if at + 8 > len(payload):
                raise FrameError('a content header ends before its property timestamp')
            properties[name] = int.from_bytes(payload[at : at + 8], 'big')
            at += 8
        else:
            properties[name], at = _read_text(payload, at)
    return body_size, properties


# The broker passes properties on as they are: what another client put there must not cost us the connection.


def _read_text(payload: bytes, at: int) -> tuple[str, int]:
    end = at + 1 + (payload[at] if at < len(payload) else 255)
    if end > len(payload):
        raise FrameError('a content header ends in the middle of a property')
    return payload[at + 1 : end].decode('utf-8', 'surrogateescape'), end


def _read_headers(payload: bytes, at: int) -> tuple[dict[str, Any] | bytes, int]:
    end = at + 4 + int.from_bytes(payload[at : at + 4], 'big')
    if at + 4 > len(payload) or end > len(payload):
        raise FrameError('a field table of %d bytes is longer than its frame' % (end - at - 4))
    try:
        return read_field_table(payload, at)[0], end
    except FrameError:
        return payload[at + 4 : end], end
