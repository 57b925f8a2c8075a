"""What the broker writes that is hot or carries a message: deliver, get-ok and return; and the words of an error.

Pure. A message's content header is passed on as the publisher wrote it, and so are the bytes of its exchange and
routing key.

Source: AMQP 0-9-1, class basic.
"""

from __future__ import annotations

import struct
from functools import lru_cache

from amphora.amqp.errors import Closed, FrameError
from amphora.amqp.fields import read_short_string, short_string
from amphora.amqp.frames import (
    BASIC_DELIVER,
    BASIC_GET_OK,
    BASIC_RETURN,
    BODY,
    FRAME_OVERHEAD,
    HEADER,
    METHOD,
    encode_body,
    pack_frame_header,
)
from amphora.amqp.gathered import Gathered, gather
from amphora.broker.stored import StoredMessage

_tag_and_flag = struct.Struct('>QB').pack
# The end of a frame and the beginning of the next.
_end_and_head = struct.Struct('>BBHI').pack
_code = struct.Struct('>H').pack
_count = struct.Struct('>I').pack

# The constants' names with which RabbitMQ begins its texts (AMQP 0-9-1, "Constants").
_NAMES = {
    311: 'CONTENT_TOO_LARGE',
    312: 'NO_ROUTE',
    313: 'NO_CONSUMERS',
    320: 'CONNECTION_FORCED',
    402: 'INVALID_PATH',
    403: 'ACCESS_REFUSED',
    404: 'NOT_FOUND',
    405: 'RESOURCE_LOCKED',
    406: 'PRECONDITION_FAILED',
    501: 'FRAME_ERROR',
    502: 'SYNTAX_ERROR',
    503: 'COMMAND_INVALID',
    504: 'CHANNEL_ERROR',
    505: 'UNEXPECTED_FRAME',
    530: 'NOT_ALLOWED',
    540: 'NOT_IMPLEMENTED',
    541: 'INTERNAL_ERROR',
}


def reply_text(error: Closed) -> str:
    """What a close says of an error, in at most 255 bytes: the name of its code, and why."""
    name = _NAMES.get(error.code, 'INTERNAL_ERROR')
    text = '%s - %s' % (name, error.text) if error.text else name
    # What a client has sent, and is told of, need not be UTF-8.
    return text.encode(errors='backslashreplace')[:255].decode(errors='ignore')


@lru_cache(maxsize=4096)
def decode_publish(payload: bytes) -> tuple[str, str, bool, bool, bytes]:
    """Of a ``basic.publish``: exchange, routing key, mandatory, immediate, and the raw bytes of the first two.

    Remembered, because a program publishes to few addresses again and again.

    :raises FrameError: when the payload is too short or too long.
    :raises SyntaxError_: when a name is not UTF-8.
    """
    exchange, at = read_short_string(payload, 6)
    routing_key, end = read_short_string(payload, at)
    if end + 1 != len(payload):
        # Too long is refused as well, as by RabbitMQ: what is remembered must not be as large as a frame.
        raise FrameError('a basic.publish of %d bytes' % len(payload))
    bits = payload[end]
    return exchange, routing_key, bool(bits & 1), bool(bits & 2), payload[6:end]


def deliver_prefix(consumer_tag: str) -> bytes:
    """What all deliveries to a consumer begin with."""
    return BASIC_DELIVER + short_string(consumer_tag, 'the consumer tag')


def encode_deliver(
    channel: int, prefix: bytes, delivery_tag: int, redelivered: bool, message: StoredMessage, frame_max: int
) -> bytes | Gathered:
    """The frames of a delivery.

    :param prefix: of the consumer, from `deliver_prefix`.
    """
    return encode_content(
        channel, b''.join((prefix, _tag_and_flag(delivery_tag, redelivered), message.address)), message, frame_max
    )


def encode_get_ok(
    channel: int, delivery_tag: int, redelivered: bool, message: StoredMessage, left: int, frame_max: int
) -> bytes | Gathered:
    """The frames that answer ``basic.get``.

    :param left: messages that remain ready in the queue.
    """
    method = BASIC_GET_OK + _tag_and_flag(delivery_tag, redelivered) + message.address + _count(left)
    return encode_content(channel, method, message, frame_max)


def encode_return(channel: int, code: int, message: StoredMessage, frame_max: int) -> bytes | Gathered:
    """The frames that give a message back to its publisher.

    :param code: such as 312, NO_ROUTE.
    """
    method = BASIC_RETURN + _code(code) + short_string(_NAMES[code], 'the reply text') + message.address
    return encode_content(channel, method, message, frame_max)


def encode_content(channel: int, method: bytes, message: StoredMessage, frame_max: int) -> bytes | Gathered:
    """A method with content: its frame, the header's, the body's."""
    header, body = message.header, message.body
    if 0 < len(body) <= frame_max - FRAME_OVERHEAD:
        return b''.join(
            (
                pack_frame_header(METHOD, channel, len(method)),
                method,
                _end_and_head(0xCE, HEADER, channel, len(header)),
                header,
                _end_and_head(0xCE, BODY, channel, len(body)),
                body,
                b'\xce',
            )
        )
    pieces = [
        pack_frame_header(METHOD, channel, len(method)),
        method,
        _end_and_head(0xCE, HEADER, channel, len(header)),
        header,
        b'\xce',
        *encode_body(channel, body, frame_max),
    ]
    return gather(pieces, len(body))
