"""The body of a message that comes in pieces."""

from __future__ import annotations

from typing import TYPE_CHECKING

from amphora.amqp.frames import Pieces, keep, speedups


class _Body:
    """Put together from what comes of it.

    :param size: bytes that it has when it is complete. Memory is taken for what has come, and little more.
    """

    __slots__ = ('_pieces',)

    def __init__(self, size: int) -> None:
        self._pieces: Pieces = []

    def add(self, piece: bytes | memoryview) -> None:
        """Add the next piece; the sum of them is at most the body's size."""
        keep(self._pieces, piece)

    def take(self) -> bytes:
        """The body, which is complete; nothing is added after that."""
        return b''.join(self._pieces)


if TYPE_CHECKING or speedups is None:
    Body = _Body
else:
    Body = speedups.Body
