"""Waiting for something to become true, with a limit."""

import time
from collections.abc import Callable
from typing import TypeVar

import gevent

T = TypeVar('T')

PAUSE = 0.01
# Seconds in which a request certainly reaches its server, and its function begins, even where the machine stumbles: for
# calls that time out while it runs.
AMPLE = 1.5


def eventually(condition: Callable[[], T], limit: float = 5) -> T:
    """Wait until the condition is true and return what it gave; an AssertionError says what it gave last."""
    give_up = time.monotonic() + limit
    while True:
        outcome = condition()
        if outcome:
            return outcome
        if time.monotonic() > give_up:
            raise AssertionError(f'still {outcome!r} after {limit} s')
        gevent.sleep(PAUSE)
