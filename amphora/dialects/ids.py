"""Makers of ids for requests: each makes ids of its own, which nobody else makes."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from random import getrandbits
from uuid import uuid4


class CountedUuids:
    """A uuid4 whose last twelve digits count: as unique, and without the system call that a fresh one costs."""

    __slots__ = ('_number', '_prefix')

    def __init__(self) -> None:
        self._prefix = str(uuid4())[:24]
        self._number = 0

    def next(self) -> str:
        """The next id."""
        self._number += 1
        return f'{self._prefix}{self._number:012x}'


def decimal_ids() -> Callable[[], str]:
    """Makes numbers in decimal for ids. They begin anywhere: a late reply to an earlier program must find nobody."""
    numbers = count(getrandbits(62))
    return lambda: '%d' % next(numbers)
