"""Field values: short strings and field tables, each checked against the room it has.

Knows how values look on the wire, not where they stand in a frame. Tables are done by hand: of the two releases of
`pamqp` that are in use, one decodes a broken array without end, and both make single precision of a float.

Source: AMQP 0-9-1 section 4.2.5, and RabbitMQ's errata of the types in a table
(https://www.rabbitmq.com/amqp-0-9-1-errata#section_3).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from datetime import datetime, timezone
from decimal import Decimal
from math import isfinite
from typing import Any

from amphora.amqp.errors import FrameError, SyntaxError_

_pack_length = struct.Struct('>I').pack
_double = struct.Struct('>cd')
_timestamp = struct.Struct('>cQ')
_decimal = struct.Struct('>cBi')
_scaled = struct.Struct('>Bi')

# How deep tables and arrays may nest; RabbitMQ's own need two or three levels.
_DEPTH = 100

# Types of a fixed size that are what they are unpacked to.
_FIXED = {
    b'b': struct.Struct('>b'),
    b'B': struct.Struct('>B'),
    b's': struct.Struct('>h'),
    b'u': struct.Struct('>H'),
    b'I': struct.Struct('>i'),
    b'i': struct.Struct('>I'),
    b'l': struct.Struct('>q'),
    b'L': struct.Struct('>q'),
    b'f': struct.Struct('>f'),
    b'd': struct.Struct('>d'),
}


def short_string(text: str, what: str) -> bytes:
    """Encode an AMQP short string: one length octet and at most 255 bytes of UTF-8.

    :param what: how to call the value in an error.
    :raises ValueError: when the text is longer than 255 bytes, is not valid Unicode, or is no `str`.
    """
    if not isinstance(text, str):
        raise ValueError('%s must be a str, not %r' % (what, type(text).__name__))
    try:
        raw = text.encode()
    except UnicodeEncodeError as error:
        raise ValueError('%s cannot be encoded as UTF-8: %s' % (what, error)) from error
    if len(raw) > 255:
        raise ValueError('%s is %d bytes long; AMQP allows 255' % (what, len(raw)))
    return bytes((len(raw),)) + raw


def read_short_string(payload: bytes, at: int, errors: str = 'strict') -> tuple[str, int]:
    """Decode the short string at an offset; gives the text and the offset behind it.

    :param errors: what to do where it is not UTF-8, as for `bytes.decode`.
    :raises SyntaxError_: when it is not UTF-8, unless `errors` says otherwise.
    :raises FrameError: when it does not fit into the payload.
    """
    try:
        end = at + 1 + payload[at]
    except IndexError:
        raise FrameError('a short string begins behind the end of its frame') from None
    if end > len(payload):
        raise FrameError('a short string of %d bytes is longer than its frame' % (end - at - 1))
    try:
        return payload[at + 1 : end].decode(errors=errors), end
    except UnicodeDecodeError as error:
        raise SyntaxError_('a short string is not UTF-8: %s' % error) from error


def field_table(table: Mapping[str, Any] | None, what: str) -> bytes:
    """Encode an AMQP field table.

    :param what: how to call the table in an error.
    :raises ValueError: when a name or value in it cannot be encoded; the error names it.
    """
    if table is None:
        return _pack_length(0)
    if not isinstance(table, Mapping):
        raise ValueError('%s must be a dict, not %r' % (what, type(table).__name__))
    try:
        return _table(table, what)
    except RecursionError as error:
        raise ValueError('%s is nested too deeply, or refers to itself' % what) from error


def _table(table: Mapping[str, Any], what: str) -> bytes:
    out = []
    for name, value in table.items():
        key = short_string(name, 'a name in %s' % what)
        if len(key) > 129:
            raise ValueError('the name %.40r... in %s is longer than 128 bytes' % (name, what))
        out.append(key + _value(value, '%r of %s' % (name, what)))
    raw = b''.join(out)
    return _pack_length(len(raw)) + raw


# Of each kind of integer its least and its greatest value, smallest kind first.
_INTEGERS = (
    (-(2**7), 2**7 - 1, struct.Struct('>cb'), b'b'),
    (-(2**15), 2**15 - 1, struct.Struct('>ch'), b's'),
    (0, 2**16 - 1, struct.Struct('>cH'), b'u'),
    (-(2**31), 2**31 - 1, struct.Struct('>ci'), b'I'),
    (0, 2**32 - 1, struct.Struct('>cI'), b'i'),
    (-(2**63), 2**63 - 1, struct.Struct('>cq'), b'l'),
)


def _value(value: Any, what: str) -> bytes:
    if isinstance(value, str):
        try:
            raw = value.encode()
        except UnicodeEncodeError as error:
            raise ValueError('%s cannot be encoded: %s' % (what, error)) from error
        return b'S' + _pack_length(len(raw)) + raw
    if isinstance(value, bool):
        return b't\x01' if value else b't\x00'
    if isinstance(value, int):
        for least, greatest, packing, kind in _INTEGERS:
            if least <= value <= greatest:
                return packing.pack(kind, value)
        raise ValueError('%s cannot be encoded: an integer in a table has at most 64 bits' % what)
    if isinstance(value, float):
        if not isfinite(value):
            # RabbitMQ ends the connection for it, with 541 or without a word: Erlang has no such numbers.
            raise ValueError('%s cannot be encoded: %r is no finite number' % (what, value))
        return _double.pack(b'd', value)
    if value is None:
        return b'V'
    if isinstance(value, Mapping):
        return b'F' + _table(value, what)
    if isinstance(value, (list, tuple)):
        raw = b''.join(_value(item, 'an item of %s' % what) for item in value)
        return b'A' + _pack_length(len(raw)) + raw
    if isinstance(value, (bytes, bytearray)):
        return b'x' + _pack_length(len(value)) + value
    if isinstance(value, datetime):
        seconds = int(value.timestamp())
        if seconds < 0:
            raise ValueError('%s cannot be encoded: %s is before 1970' % (what, value))
        return _timestamp.pack(b'T', seconds)
    if isinstance(value, Decimal):
        return _decimal_value(value, what)
    raise ValueError('%s cannot be encoded: a table holds no %s' % (what, type(value).__name__))


def _decimal_value(value: Decimal, what: str) -> bytes:
    sign, digits, exponent = value.as_tuple()
    if not isinstance(exponent, int) or exponent > 10:  # 32 bits hold no more digits, and 10 ** 10 ** 9 takes for ever
        raise ValueError('%s cannot be encoded: a table holds no %s' % (what, value))
    unscaled = int(''.join(map(str, digits))) * 10 ** max(0, exponent) * (-1 if sign else 1)
    try:
        return _decimal.pack(b'D', max(0, -exponent), unscaled)
    except struct.error as error:
        raise ValueError('%s cannot be encoded: %s' % (what, error)) from error


def read_field_table(payload: bytes, at: int) -> tuple[dict[str, Any], int]:
    """Decode the field table at an offset; gives the table and the offset behind it.

    Text that is not UTF-8 is given as bytes, a timestamp as a `datetime` in UTC.

    :raises FrameError: when it does not fit into the payload, holds an unknown type, or nests more than 100 deep.
    """
    return _read_table(payload, at, len(payload), 0)


def _read_table(payload: bytes, at: int, limit: int, depth: int) -> tuple[dict[str, Any], int]:
    at, end = _read_extent(payload, at, limit, 'a field table')
    _check_depth(depth)
    table: dict[str, Any] = {}
    while at < end:
        size = payload[at]
        if at + 1 + size >= end:
            raise FrameError('a name in a field table is longer than the table')
        name = payload[at + 1 : at + 1 + size].decode('utf-8', 'replace')
        table[name], at = _read_value(payload, at + 1 + size, end, depth)
    return table, end


def _read_array(payload: bytes, at: int, limit: int, depth: int) -> tuple[list[Any], int]:
    at, end = _read_extent(payload, at, limit, 'a field array')
    _check_depth(depth)
    array = []
    while at < end:
        value, at = _read_value(payload, at, end, depth)
        array.append(value)
    return array, end


def _read_value(payload: bytes, at: int, limit: int, depth: int) -> tuple[Any, int]:
    kind = payload[at : at + 1]
    at += 1
    fixed = _FIXED.get(kind)
    if fixed is not None:
        end = at + fixed.size
        if end > limit:
            raise FrameError('a value of type %r in a field table is cut short' % kind)
        return fixed.unpack_from(payload, at)[0], end
    if kind == b'S' or kind == b'x':
        at, end = _read_extent(payload, at, limit, 'a long string')
        raw = payload[at:end]
        return (_text(raw) if kind == b'S' else raw), end
    if kind == b'F':
        return _read_table(payload, at, limit, depth + 1)
    if kind == b'A':
        return _read_array(payload, at, limit, depth + 1)
    if kind == b't' and at < limit:
        return payload[at] != 0, at + 1
    if kind == b'V' or kind == b'\0':  # some brokers write the latter
        return None, at
    if kind == b'T' and at + 8 <= limit:
        return _moment(int.from_bytes(payload[at : at + 8], 'big')), at + 8
    if kind == b'D' and at + 5 <= limit:
        scale, unscaled = _scaled.unpack_from(payload, at)
        return Decimal(unscaled).scaleb(-scale), at + 5
    raise FrameError('a value of type %r in a field table is cut short, or of no known type' % kind)


def _read_extent(payload: bytes, at: int, limit: int, what: str) -> tuple[int, int]:
    """Where the content that a length announces begins and ends."""
    if at + 4 > limit:
        raise FrameError('%s begins behind the end of what holds it' % what)
    end = at + 4 + int.from_bytes(payload[at : at + 4], 'big')
    if end > limit:
        raise FrameError('%s of %d bytes is longer than its frame or table' % (what, end - at - 4))
    return at + 4, end


def _check_depth(depth: int) -> None:
    if depth > _DEPTH:
        raise FrameError('a field table is nested more than %d deep' % _DEPTH)


def _text(raw: bytes) -> str | bytes:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


def _moment(seconds: int) -> datetime | int:
    try:
        return datetime.fromtimestamp(seconds, timezone.utc)
    except (ValueError, OverflowError, OSError):  # beyond the year 9999
        return seconds
