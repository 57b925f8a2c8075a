"""A message on its way in: ``basic.publish``, then a header, then bodies; kept as the publisher's own bytes.

Pure. The client's side has `amphora.amqp.content`, which decodes the properties at once; a broker rarely needs them.
"""

from __future__ import annotations

from amphora.amqp.errors import FrameError, PreconditionFailed, UnexpectedFrame
from amphora.amqp.frames import Pieces, keep
from amphora.broker.meter import Allowance

_EXPECTED_HEADER = 'expected content header for class 60, got %s instead'
_EXPECTED_BODY = 'expected content body, got non content body frame instead'
# The longest basic.publish, in bytes: two names of 255 bytes.
_MAX_METHOD = 519
# Headers up to this size, in bytes, are not counted: nearly all are, and each channel keeps at most one.
_SMALL_HEADER = 4096


class Assembly:
    """The message that is under way on one channel.

    :param max_size: the largest body to accept, in bytes; checked against the header, before anything is kept.
    :param allowance: what the pieces of bodies are taken from until the last has come.
    """

    __slots__ = ('_allowance', '_body', '_header', '_kept', '_max_size', '_method', '_missing', '_parts')

    def __init__(self, max_size: int, allowance: Allowance) -> None:
        self._max_size = max_size
        self._allowance = allowance
        self._method: bytes | None = None
        self._header: bytes | None = None
        self._missing = 0
        self._parts: Pieces = []
        self._kept = 0
        self._body = b''

    def check_method(self) -> None:
        """A method frame has come.

        :raises UnexpectedFrame: a message is under way.
        """
        if self._method is not None:
            if self._header is None:
                raise UnexpectedFrame(_EXPECTED_HEADER % 'non content header frame')
            raise UnexpectedFrame(_EXPECTED_BODY)

    def begin(self, method: bytes) -> None:
        """A method has announced a message.

        :raises UnexpectedFrame: another is under way.
        :raises FrameError: the method is longer than it can be.
        """
        self.check_method()
        if len(method) > _MAX_METHOD:
            raise FrameError('a basic.publish of %d bytes' % len(method))
        self._method = method

    def header(self, payload: bytes) -> bool:
        """The content header has come; True when there is no body to wait for.

        :raises UnexpectedFrame: no method announced it.
        :raises FrameError: it cannot be decoded.
        :raises PreconditionFailed: the body is too large.
        :raises ContentTooLarge: too much is under way already.
        """
        if self._method is None:
            raise UnexpectedFrame('expected method frame, got non method frame instead')
        if self._header is not None:
            raise UnexpectedFrame(_EXPECTED_BODY)
        if len(payload) < 14:
            raise FrameError('a content header of %d bytes' % len(payload))
        class_id = payload[0] << 8 | payload[1]
        if class_id != 60:
            raise UnexpectedFrame(_EXPECTED_HEADER % ('one for class %d' % class_id))
        size = int.from_bytes(payload[4:12], 'big')
        if size > self._max_size:
            raise PreconditionFailed('message size %d is larger than configured max size %d' % (size, self._max_size))
        if size and len(payload) > _SMALL_HEADER:
            self._keep(len(payload))
        self._header, self._missing = payload, size
        return size == 0

    def part(self, payload: bytes | memoryview) -> None:
        """A part of a body frame has come, and more of that frame is to come; raises as `body`."""
        if self._grow(payload) <= 0:
            raise UnexpectedFrame(_EXPECTED_BODY)

    def body(self, payload: bytes | memoryview) -> bool:
        """A body frame has come, or what was left of it; True when it was the last.

        :raises UnexpectedFrame: no header came before, or the body is longer than it said.
        :raises ContentTooLarge: too much is under way already.
        """
        missing = self._grow(payload)
        if missing > 0:
            return False
        if missing < 0:
            raise UnexpectedFrame(_EXPECTED_BODY)
        self._body = b''.join((*self._parts, payload)) if self._parts else bytes(payload)
        if self._kept:
            self.drop()
        return True

    def _grow(self, payload: bytes | memoryview) -> int:
        """Keep something of a body, unless it is the end of it; how many bytes are missing now."""
        if self._method is None:
            raise UnexpectedFrame('expected method frame, got non method frame instead')
        if self._header is None:
            raise UnexpectedFrame(_EXPECTED_HEADER % 'non content header frame')
        self._missing -= len(payload)
        if self._missing > 0 and payload:  # empty pieces are legal and endless
            self._keep(len(payload))
            # A view would keep more than is counted.
            keep(self._parts, bytes(payload))
        return self._missing

    def take(self) -> tuple[bytes, bytes, bytes]:
        """The payloads of method and header, and the body; free for the next message."""
        method, header, body = self._method, self._header, self._body
        assert method is not None
        assert header is not None
        self._method, self._header, self._body = None, None, b''
        return method, header, body

    def drop(self) -> None:
        """Keep nothing of a body that is under way."""
        self._allowance.give_back(self._kept)
        self._parts, self._kept = [], 0

    def _keep(self, size: int) -> None:
        self._allowance.take(size)
        self._kept += size
