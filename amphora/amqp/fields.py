"""Field values: short strings and field tables, each checked against the room it has.

Knows how values look on the wire, not where they stand in a frame. `pamqp` encodes and decodes what is in a table.

Source: AMQP 0-9-1 section 4.2.5, and RabbitMQ's errata of the types in a table
(https://www.rabbitmq.com/amqp-0-9-1-errata#section_3).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any, cast

from pamqp import decode, encode

from amphora.amqp.errors import FrameError, SyntaxError_

_pack_length = struct.Struct('>I').pack


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


def read_short_string(payload: bytes, at: int) -> tuple[str, int]:
    """Decode the short string at an offset; gives the text and the offset behind it.

    :raises SyntaxError_: when it is not UTF-8.
    :raises FrameError: when it does not fit into the payload.
    """
    try:
        end = at + 1 + payload[at]
    except IndexError:
        raise FrameError('a short string begins behind the end of its frame') from None
    if end > len(payload):
        raise FrameError('a short string of %d bytes is longer than its frame' % (end - at - 1))
    try:
        return payload[at + 1 : end].decode(), end
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


def _value(value: Any, what: str) -> bytes:
    # By hand what pamqp loses: it makes single precision of a float, and cuts long names in nested tables.
    if isinstance(value, float):
        return b'd' + encode.double(value)
    if isinstance(value, Mapping):
        return b'F' + _table(value, what)
    if isinstance(value, (list, tuple)):
        raw = b''.join(_value(item, 'an item of %s' % what) for item in value)
        return b'A' + _pack_length(len(raw)) + raw
    try:
        return encode.encode_table_value(value)
    except (TypeError, ValueError, OverflowError, struct.error) as error:
        raise ValueError('%s cannot be encoded: %s' % (what, error)) from error


def read_field_table(payload: bytes, at: int) -> tuple[dict[str, Any], int]:
    """Decode the field table at an offset; gives the table and the offset behind it.

    :raises FrameError: when it does not fit into the payload or holds what cannot be decoded.
    """
    end = at + 4 + int.from_bytes(payload[at : at + 4], 'big')
    if at + 4 > len(payload) or end > len(payload):
        raise FrameError('a field table of %d bytes is longer than its frame' % (end - at - 4))
    try:
        return cast('dict[str, Any]', decode.field_table(payload[at:end])[1]), end
    except (ValueError, TypeError, KeyError, IndexError, struct.error, RecursionError, OverflowError) as error:
        raise FrameError('a field table cannot be decoded: %s' % error) from error
