"""How many bytes the broker's messages occupy, and whether that is too many.

Pure. Source of the idea: https://www.rabbitmq.com/docs/memory
"""

from __future__ import annotations

from collections.abc import Callable

# Publishing goes on below this share of the limit, so that one message to and fro does not block and unblock.
_LOW = 0.8


class Meter:
    """Counts bytes against a limit.

    :param limit: bytes.
    :param on_change: called with True when the limit is passed and with False when enough is free again.
    """

    __slots__ = ('_on_change', 'limit', 'over', 'used')

    def __init__(self, limit: int, on_change: Callable[[bool], None]) -> None:
        self.limit = limit
        self.used = 0
        self.over = False
        self._on_change = on_change

    def add(self, size: int) -> None:
        """Something is kept."""
        self.used += size
        if self.used > self.limit and not self.over:
            self.over = True
            self._on_change(True)

    def free(self, size: int) -> None:
        """Something is kept no longer."""
        self.used -= size
        if self.over and self.used <= self.limit * _LOW:
            self.over = False
            self._on_change(False)
