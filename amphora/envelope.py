"""The values every layer speaks: a request and the reply to it. Knows nothing of how they look on the wire."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct


class Request(Struct, frozen=True, gc=False):
    """A function to call, and where the answer goes.

    :ivar id: names this request; a repeat of it bears the same. None: the peer gave none, so it cannot be answered.
    :ivar function: name of the remote function, dotted or not.
    :ivar args: its positional arguments.
    :ivar kwargs: its keyword arguments.
    :ivar reply_to: where the answer goes, in the dialect's own words. None: nobody wants one.
    """

    id: str | None
    function: str
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    reply_to: str | None = None


class Reply(Struct, frozen=True):
    """What became of a request: a value, or an error.

    :ivar id: of the request; None when the peer gave none.
    :ivar value: what the function returned.
    :ivar error: what it raised, or why it was not called; None when all went well.
    """

    id: str | None
    value: Any = None
    error: Exception | None = None


class Address(Struct, frozen=True, gc=False):
    """Where a message is published to.

    :ivar exchange: name of the exchange; empty for the default exchange.
    :ivar routing_key: at most 255 bytes of UTF-8.
    """

    exchange: str
    routing_key: str
