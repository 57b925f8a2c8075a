"""A ``basic.deliver`` and its message where they have come in one piece, with one body frame, as nearly all do.

Source: AMQP 0-9-1 section 4.2.6.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from amphora.amqp.errors import FrameError
from amphora.amqp.frames import (
    BASIC_DELIVER,
    BODY,
    FRAME_OVERHEAD,
    HEADER,
    METHOD,
    decode_deliver,
    speedups,
    unpack_frame_header,
)
from amphora.amqp.properties import decode_header

# The head of a content header's frame, and of its payload the size of the body.
_unpack_content_head = struct.Struct('>BHI4xQ').unpack_from
_CONTENT_HEAD_SIZE = 19

#: where it ends, the channel, the method's payload, consumer tag, delivery tag, whether it is redelivered, where the
#: name of the exchange begins in the method, the message's properties and its body
Delivery = tuple[int, int, bytes, bytes, int, bool, int, dict[str, Any], bytes]


def _read_delivery(data: bytes, at: int, frame_max: int) -> Delivery | None:
    """The delivery that begins at an offset.

    None when not all of it is there, and for anything unusual: that is left to those who look at each frame by itself.
    """
    if data[at + 7 : at + 11] != BASIC_DELIVER:
        return None
    end = len(data)
    _, channel, size = unpack_frame_header(data, at)
    header = at + size + FRAME_OVERHEAD
    if end - header <= _CONTENT_HEAD_SIZE:
        return None
    kind, number, header_size, body_size = _unpack_content_head(data, header)
    body = header + header_size + FRAME_OVERHEAD
    stop = body + 7 + body_size
    if (
        data[at] != METHOD
        or kind != HEADER
        or number != channel
        or max(size, header_size, body_size) + FRAME_OVERHEAD > frame_max
        or stop >= end
        or unpack_frame_header(data, body) != (BODY, channel, body_size)
        or not data[header - 1] == data[body - 1] == data[stop] == 0xCE
    ):
        return None
    method = data[at + 7 : header - 1]
    try:
        consumer_tag, delivery_tag, redelivered, names = decode_deliver(method)
        _, properties = decode_header(data[header + 7 : body - 1])
    except FrameError:
        return None
    message = data[body + 7 : stop]
    return stop + 1, channel, method, consumer_tag, delivery_tag, redelivered, names, properties, message


if TYPE_CHECKING or speedups is None:
    read_delivery = _read_delivery
else:
    read_delivery = speedups.read_delivery
