"""How a running function is ended when its time is over."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import gevent


class Timeout(gevent.Timeout):
    """A function ran longer than it may.

    :param seconds: how long that is.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.args = ('it ran longer than %g s' % seconds,)

    def __str__(self) -> str:
        return str(self.args[0])


def limited(function: Callable[..., Any], seconds: float) -> Callable[..., Any]:
    """A function in which a `Timeout` is raised when it has run so long; unless it never lets the hub run."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        with Timeout(seconds):
            return function(*args, **kwargs)

    return call
