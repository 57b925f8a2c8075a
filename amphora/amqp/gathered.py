"""Frames of a large message in pieces, which the system gathers when they are sent.

To join them first takes as long as to encode what is in them: a megabyte is more than the caches next to a core hold.
"""

from __future__ import annotations

from typing import Any

#: bytes of a body above which its frames are gathered: below, to join them costs less than to hand over each
GATHER_FROM = 131072
# What Linux, macOS and the BSDs take at once (POSIX's IOV_MAX).
_MOST = 1024


def gather(pieces: list[bytes | memoryview], body_size: int) -> bytes | Gathered:
    """The frames of a message, in pieces where its body, of so many bytes, is large, and else joined."""
    return Gathered(pieces) if body_size > GATHER_FROM else b''.join(pieces)


class Gathered:
    """Pieces, to be sent one after the other.

    :param pieces: `bytes`, or views of them; more than `GATHER_FROM` bytes in all, so that nobody joins them to others.
    """

    __slots__ = ('_pieces', '_size')

    def __init__(self, pieces: list[bytes | memoryview]) -> None:
        self._pieces = pieces
        self._size = sum(map(len, pieces))

    def __len__(self) -> int:
        return self._size

    def __bytes__(self) -> bytes:
        return b''.join(self._pieces)

    def send(self, sock: Any) -> int:
        """Hand them to a socket; returns how many bytes of them it has taken.

        :raises OSError: as its ``sendmsg`` does.
        """
        sent: int = sock.sendmsg(self._pieces[:_MOST])
        return sent

    def skip(self, sent: int) -> None:
        """Forget of them what was sent."""
        self._size -= sent
        count = 0
        for piece in self._pieces:
            if sent < len(piece):
                break
            sent -= len(piece)
            count += 1
        del self._pieces[:count]
        if sent:
            self._pieces[0] = memoryview(self._pieces[0])[sent:]
