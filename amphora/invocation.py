"""The frames in which remote functions run, by which the watchdog knows them.

Never compiled: what is compiled has no frames.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import FrameType
from typing import Any


def run(name: str, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Call a remote function.

    :param name: what clients call it.
    """
    return function(*args, **kwargs)


async def run_async(
    name: str, function: Callable[..., Awaitable[Any]], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Any:
    """Await a remote function.

    :param name: what clients call it.
    """
    return await function(*args, **kwargs)


_FRAMES = (run.__code__, run_async.__code__)


def running(frame: FrameType | None) -> str | None:
    """Name of the remote function that is running in a frame or beneath it; None: none is."""
    while frame is not None:
        if frame.f_code in _FRAMES:
            name: str = frame.f_locals['name']
            return name
        frame = frame.f_back
    return None
