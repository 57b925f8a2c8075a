"""A message as a dialect makes it."""

from __future__ import annotations

from typing import Any


class Encoded:
    """A message that is ready to be published: where to, its AMQP properties and its body. Not to be changed.

    :ivar exchange: name of the exchange; empty for the default exchange.
    :ivar routing_key: at most 255 bytes of UTF-8.
    :ivar properties: AMQP's, by name.
    :ivar body: what the message carries.
    """

    __slots__ = ('body', 'exchange', 'properties', 'routing_key')

    def __init__(self, exchange: str, routing_key: str, properties: dict[str, Any], body: bytes) -> None:
        self.exchange = exchange
        self.routing_key = routing_key
        self.properties = properties
        self.body = body

    def __len__(self) -> int:
        """Bytes of the body."""
        return len(self.body)
