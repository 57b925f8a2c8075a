"""What a worker process says of itself to the process that has started it."""

from __future__ import annotations

import msgspec


class Report(msgspec.Struct, omit_defaults=True):
    """What a worker says of itself.

    :ivar failure: why it cannot serve; None: it takes calls.
    """

    failure: str | None = None
