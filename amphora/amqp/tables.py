"""Field tables to bytes.

By hand, because `pamqp` would change what it is given: it sends a float with the precision of four bytes, and its
3.3.0, which others pin, cannot send -1. Integers go as four or eight signed bytes: the two types that every client and
RabbitMQ agree on. Decoding is `pamqp`'s.

Source: https://www.rabbitmq.com/amqp-0-9-1-errata#section_3 (what the types really are).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

from pamqp import encode

_long = struct.Struct('>ci').pack
_long_long = struct.Struct('>cq').pack
_double = struct.Struct('>cd').pack
_size = struct.Struct('>I').pack


def encode_table(table: Mapping[str, Any] | None) -> bytes:
    """A field table with its length; names in their order.

    :raises TypeError: when a value's type has no counterpart in AMQP.
    :raises ValueError: when a name is over 255 bytes or not valid Unicode.
    :raises struct.error: when an integer does not fit into eight bytes.
    """
    out: list[bytes] = []
    for name, value in (table or {}).items():
        raw = name.encode()
        if len(raw) > 255:
            raise ValueError('a name of %d bytes' % len(raw))
        out += (bytes((len(raw),)), raw, _encode_value(value))
    body = b''.join(out)
    return _size(len(body)) + body


def _encode_value(value: Any) -> bytes:
    if isinstance(value, str):
        raw = value.encode()
        return b'S' + _size(len(raw)) + raw
    if isinstance(value, bool):
        return b't\x01' if value else b't\x00'
    if isinstance(value, int):
        return _long(b'I', value) if -0x80000000 <= value <= 0x7FFFFFFF else _long_long(b'l', value)
    if value is None:
        return b'V'
    if isinstance(value, float):
        return _double(b'd', value)
    if isinstance(value, Mapping):
        return b'F' + encode_table(value)
    if isinstance(value, (list, tuple)):
        items = b''.join(map(_encode_value, value))
        return b'A' + _size(len(items)) + items
    if isinstance(value, (bytes, bytearray)):
        return b'x' + _size(len(value)) + value
    if isinstance(value, (datetime, Decimal)):
        return encode.encode_table_value(value)
    raise TypeError('AMQP has no type for %r' % type(value).__name__)
