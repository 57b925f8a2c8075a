"""Telling those who want to know: one listener that fails keeps nobody else from hearing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any

import gevent


def tell(listeners: Iterable[Callable[..., Any]], *args: Any) -> None:
    """Call each listener; what one raises is printed by gevent's hub, as for any greenlet."""
    for listener in list(listeners):
        try:
            listener(*args)
        except BaseException:
            gevent.get_hub().handle_error(listener, *sys.exc_info())
