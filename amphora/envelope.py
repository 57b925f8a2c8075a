"""The values every layer speaks: a request and the reply to it. Knows nothing of how they look on the wire."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class Request:
    """A function to call, and where the answer goes. Not to be changed.

    :ivar id: names this request; a repeat of it bears the same. None: the peer gave none, so it cannot be answered.
    :ivar function: name of the remote function, dotted or not.
    :ivar args: its positional arguments.
    :ivar kwargs: its keyword arguments.
    :ivar reply_to: where the answer goes, in the dialect's own words. None: nobody wants one.
    """

    __slots__ = ('args', 'function', 'id', 'kwargs', 'reply_to')

    def __init__(
        self,
        id: str | None,
        function: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        reply_to: str | None = None,
    ) -> None:
        self.id = id
        self.function = function
        self.args = args
        self.kwargs = kwargs
        self.reply_to = reply_to


class Reply:
    """What became of a request: a value, or an error. Not to be changed.

    :ivar id: of the request; None when the peer gave none.
    :ivar value: what the function returned.
    :ivar error: what it raised, or why it was not called; None when all went well.
    """

    __slots__ = ('error', 'id', 'value')

    def __init__(self, id: str | None, value: Any = None, error: Exception | None = None) -> None:
        self.id = id
        self.value = value
        self.error = error
