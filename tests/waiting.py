"""Waiting in tests: for an event, with a limit."""

from collections.abc import Callable
from time import monotonic
from typing import TypeVar

import gevent

T = TypeVar('T')

LIMIT = 10.0


def wait_for(condition: Callable[[], T], limit: float = LIMIT) -> T:
    """Wait until a condition holds; gives what it gave.

    :param condition: asked every few milliseconds.
    :param limit: seconds.
    """
    give_up = monotonic() + limit
    while not (result := condition()):
        assert monotonic() < give_up, 'waited %g s in vain' % limit
        gevent.sleep(0.005)
    return result
