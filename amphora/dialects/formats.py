"""Formats of bodies that other systems use: an object that packs a value and unpacks it again.

Whatever has these two methods will do; the exceptions of a format of the user's own are taken for its verdict on the
value or the body.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import msgspec

from amphora.amqp.content import MAX_MESSAGE_SIZE
from amphora.compression import compress, decompress
from amphora.dialects import pickles
from amphora.values import builtin, encode_msgpack, hides_not_finite

_encode_json = msgspec.json.Encoder(enc_hook=builtin).encode


@runtime_checkable
class Format(Protocol):
    """What packs and unpacks bodies. One with an attribute ``content_type`` has its messages labelled with it, in
    dialects that label them."""

    def pack(self, value: Any, /) -> bytes:
        """The body for a value."""

    def unpack(self, body: bytes, /) -> Any:
        """The value in a body."""


class Json:
    """JSON. Infinite floats and NaN are refused: it has none."""

    content_type = 'application/json'

    @staticmethod
    def pack(value: Any) -> bytes:
        """See `Format`."""
        body = _encode_json(value)
        if hides_not_finite(body, value, (value,)):
            raise ValueError('a float in it is infinite or not a number, which JSON cannot carry')
        return body

    @staticmethod
    def unpack(body: bytes) -> Any:
        """See `Format`."""
        return msgspec.json.decode(body)


class MsgPack:
    """MessagePack."""

    content_type = 'application/msgpack'

    @staticmethod
    def pack(value: Any) -> bytes:
        """See `Format`."""
        return encode_msgpack(value)

    @staticmethod
    def unpack(body: bytes) -> Any:
        """See `Format`."""
        return msgspec.msgpack.decode(body)


class Pickle:
    """Plain data in Python's pickle format; read without executing or importing anything. A class becomes its name."""

    content_type = 'application/python-pickle'

    @staticmethod
    def pack(value: Any) -> bytes:
        """See `Format`."""
        return pickles.dump(value)

    @staticmethod
    def unpack(body: bytes) -> Any:
        """See `Format`."""
        return pickles.load(body)


class GzipJson:
    """JSON, compressed with gzip."""

    content_type = 'application/json;compression=gzip'

    @staticmethod
    def pack(value: Any) -> bytes:
        """See `Format`."""
        return compress('gzip', Json.pack(value))

    @staticmethod
    def unpack(body: bytes) -> Any:
        """See `Format`."""
        return Json.unpack(decompress('gzip', body, MAX_MESSAGE_SIZE))


def packed(format: Format, value: Any) -> bytes:
    """The body for a value; text that a format gives, as `json.dumps` does, goes as UTF-8.

    :raises TypeError: the format gives something else.
    :raises Exception: it cannot say the value; which depends on the format.
    """
    body: object = format.pack(value)
    if isinstance(body, str):
        return body.encode()
    if isinstance(body, (bytes, bytearray, memoryview)):
        return bytes(body)
    raise TypeError('a format must pack to bytes, and %r gives a %s' % (format, type(body).__name__))


def check_format(format: object) -> Format:
    """The format, when it is one.

    :raises TypeError: it has no `pack` or no `unpack`.
    """
    if not isinstance(format, Format):
        raise TypeError('a format must have the methods pack and unpack, which %r has not' % (format,))
    return format


def content_type_of(format: Format) -> dict[str, str]:
    """The property that labels a body of this format; none when it has no name."""
    content_type = getattr(format, 'content_type', None)
    return {'content_type': content_type} if content_type else {}
