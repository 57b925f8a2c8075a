"""How many bytes the broker's messages occupy, those in queues and those on their way there, and whether that is too
many.

Pure. Source of the idea: https://www.rabbitmq.com/docs/memory
"""

from __future__ import annotations

from collections.abc import Callable

from amphora.amqp.errors import ContentTooLarge

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


class Allowance:
    """Bytes for messages that are in no queue yet: those that are not complete, and those that wait for a commit.

    They cannot just be blocked, as publishers are: what would make room may be among what is not read then.

    :param limit: bytes.
    """

    __slots__ = ('_limit', 'used')

    def __init__(self, limit: int) -> None:
        self.used = 0
        self._limit = limit

    def take(self, size: int) -> None:
        """So many more are kept.

        :raises ContentTooLarge: they are too many; none of them is counted.
        """
        if self.used + size > self._limit:
            raise ContentTooLarge('messages that are not complete or not committed take over %d bytes' % self._limit)
        self.used += size

    def give_back(self, size: int) -> None:
        """So many are kept no longer."""
        self.used -= size
