"""The frame in which a remote function runs, by which the watchdog knows it.

Never compiled: what is compiled has no frames.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import FrameType
from typing import Any


def run(name: str, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Call a remote function.

    :param name: what clients call it.
    """
    return function(*args, **kwargs)


def running(frame: FrameType | None) -> str | None:
    """Name of the remote function that is running in a frame or beneath it; None: none is."""
    while frame is not None:
        if frame.f_code is run.__code__:
            name: str = frame.f_locals['name']
            return name
        frame = frame.f_back
    return None
