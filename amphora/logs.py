"""Loggers that may be used in gevent's hub, whatever their handlers do."""

from __future__ import annotations

import logging

import gevent
from gevent import monkey
from gevent.hub import Hub
from greenlet import getcurrent


class _Logger(logging.Logger):
    def callHandlers(self, record: logging.LogRecord) -> None:  # the standard library's
        # Where the program is patched, a handler's lock is one of greenlets. Waiting for it raises in the hub, and what
        # follows the line there would not be done.
        if isinstance(getcurrent(), Hub) and monkey.is_module_patched('threading'):
            gevent.spawn(super().callHandlers, record)
        else:
            super().callHandlers(record)


def get_logger(name: str) -> logging.Logger:
    """As `logging.getLogger`, for what runs in the hub."""
    logger = logging.getLogger(name)
    if type(logger) is logging.Logger:  # and not of a class that the program has chosen
        logger.__class__ = _Logger
    return logger
