"""What became of a call, as a value: for who prefers a look at it to an ``except``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from msgspec import Struct


class Outcome(Struct, frozen=True):
    """A call's value or its error; unpacks as ``ok, value = outcome``, where `value` is the error when not `ok`.

    :ivar value: what the function returned; None when there is an error.
    :ivar error: what `AmqpRpcClient.call` would have raised; None when all went well.
    """

    value: Any = None
    error: Exception | None = None

    @property
    def ok(self) -> bool:
        """Whether the function returned."""
        return self.error is None

    def __iter__(self) -> Iterator[Any]:
        return iter((self.ok, self.value if self.error is None else self.error))

    def __bool__(self) -> bool:
        """As `ok`; False also tells a call that failed from one that returned None."""
        return self.ok
