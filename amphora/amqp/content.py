"""A message as frames: a method that announces content, a header, then bodies.

Knows the order they come in and the size they may have; used by either side of a connection.

Source: AMQP 0-9-1 section 4.2.6.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from amphora.amqp.body import Body
from amphora.amqp.errors import FrameError, UnexpectedFrame
from amphora.amqp.frames import encode_body, encode_publish, speedups
from amphora.amqp.gathered import Gathered, gather
from amphora.amqp.properties import decode_header, encode_header

#: RabbitMQ's own proposal, and ours: the largest frame, in bytes
FRAME_MAX = 131072
#: RabbitMQ 3.10's default limit for a message body, in bytes
MAX_MESSAGE_SIZE = 134217728

_encode_usual: Any = getattr(speedups, 'encode_message', None)


def encode_publish_head(
    channel: int,
    exchange: str,
    routing_key: str,
    mandatory: bool,
    properties: Mapping[str, Any],
    body_size: int,
    frame_max: int = FRAME_MAX,
    max_message_size: int = MAX_MESSAGE_SIZE,
) -> bytes:
    """The frames of a publish that come before its body.

    :raises ValueError: when something in them cannot be encoded, or a limit is broken that RabbitMQ would end the
        channel or the connection for; the error says which.
    """
    if body_size > max_message_size:
        raise ValueError('a body of %d bytes; at most %d are allowed' % (body_size, max_message_size))
    header = encode_header(channel, body_size, properties)
    if len(header) > frame_max:
        raise ValueError('the properties take %d bytes; a frame holds at most %d' % (len(header), frame_max))
    return encode_publish(channel, exchange, routing_key, mandatory) + header


def encode_message(
    channel: int,
    exchange: str,
    routing_key: str,
    mandatory: bool,
    properties: Mapping[str, Any],
    body: bytes,
    frame_max: int = FRAME_MAX,
    max_message_size: int = MAX_MESSAGE_SIZE,
) -> bytes | Gathered:
    """All frames of a publish; raises as `encode_publish_head`."""
    if _encode_usual is not None:
        usual: bytes | None = _encode_usual(
            channel, exchange, routing_key, mandatory, properties, body, frame_max, max_message_size
        )
        if usual is not None:
            return usual
    body = bytes(body)  # gathered, it is sent later than now, and nobody may change it meanwhile
    head = encode_publish_head(
        channel, exchange, routing_key, mandatory, properties, len(body), frame_max, max_message_size
    )
    return gather([head, *encode_body(channel, body, frame_max)], len(body))


class ContentAssembler:
    """The message that is under way on one channel.

    :param max_size: the largest body to accept, in bytes; checked against the header, before anything is kept.
    :ivar method: payload of the method frame that announced the content; None while none is under way.
    :ivar properties: the message's properties, once the header is there.
    :ivar content: the whole body, once `header` or `body` has returned True.
    """

    __slots__ = ('_body', '_missing', 'content', 'max_size', 'method', 'properties')

    def __init__(self, max_size: int) -> None:
        self.max_size = max_size
        self.method: bytes | None = None
        self.properties: dict[str, Any] = {}
        self.content = b''
        # From the header on.
        self._body: Body | None = None
        self._missing = 0

    def begin(self, method: bytes) -> None:
        """A method has announced content.

        :raises UnexpectedFrame: when the content before it is not complete.
        """
        if self.method is not None:
            raise UnexpectedFrame('a method frame where %s was expected' % self._expected())
        self.method = method

    def header(self, payload: bytes) -> bool:
        """The content header has come; True when there is no body to wait for.

        :raises UnexpectedFrame: when no method announced it.
        :raises FrameError: when it cannot be decoded, or announces a body above `max_size`.
        """
        if self.method is None or self._body is not None:
            raise UnexpectedFrame('a content header where %s was expected' % self._expected())
        self._missing, self.properties = decode_header(payload)
        if self._missing > self.max_size:
            raise self._too_large(self._missing)
        if self._missing == 0:
            self.content = b''
            return True
        self._body = Body(self._missing)
        return False

    def part(self, payload: bytes | memoryview) -> None:
        """A part of a body frame has come, and more of that frame is to come.

        :raises UnexpectedFrame: when no header came before.
        :raises FrameError: when the body grows longer than the header announced.
        """
        if self._grow(payload) <= 0:
            raise FrameError('a body is longer than its header announced')

    def body(self, payload: bytes | memoryview) -> bool:
        """A body frame has come, or what was left of it; True when it was the last.

        :raises UnexpectedFrame: when no header came before.
        :raises FrameError: when the body grows longer than the header announced.
        """
        missing = self._grow(payload)
        if missing > 0:
            return False
        if missing < 0:
            raise FrameError('a body is %d bytes longer than its header announced' % -missing)
        assert self._body is not None
        self.content = self._body.take()
        return True

    def _grow(self, payload: bytes | memoryview) -> int:
        """Add a piece to the body, unless that is too much; how many bytes are missing now."""
        if self._body is None:
            raise UnexpectedFrame('a body frame where %s was expected' % self._expected())
        self._missing -= len(payload)
        if self._missing >= 0 and payload:  # empty pieces are legal and endless
            self._body.add(payload)
        return self._missing

    def check_whole(self, body: bytes) -> None:
        """Take note of a message that has come in one piece.

        :raises UnexpectedFrame: when the content before it is not complete.
        :raises FrameError: when the body is larger than `max_size`.
        """
        if self.method is not None:
            raise UnexpectedFrame('a method frame where %s was expected' % self._expected())
        if len(body) > self.max_size:
            raise self._too_large(len(body))

    def take(self) -> tuple[bytes, dict[str, Any], bytes]:
        """The complete content: method payload, properties and body; the assembler is then free for the next."""
        method, properties, content = self.method, self.properties, self.content
        assert method is not None
        self.method, self._body, self.content = None, None, b''
        return method, properties, content

    def _too_large(self, size: int) -> FrameError:
        return FrameError('a body of %d bytes was announced; at most %d are accepted' % (size, self.max_size))

    def _expected(self) -> str:
        if self.method is None:
            return 'a method frame'
        return 'a content header' if self._body is None else 'a body frame'
