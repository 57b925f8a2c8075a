"""A message: its body, its properties, and how it came here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from amphora.amqp.fields import read_short_string

#: delivery modes: whether the broker writes a message to disk, in a queue that is durable
TRANSIENT, PERSISTENT = 1, 2


def headers_of(properties: Mapping[str, Any]) -> dict[str, Any]:
    """The application headers among a message's properties; an empty dict when there are none, or none that can be
    decoded: the properties have them as bytes then."""
    headers = properties.get('headers')
    return headers if isinstance(headers, dict) else {}


class DeliveryInfo(Struct, eq=False):
    """How a message was delivered; exchange and routing key are only decoded when somebody asks.

    :param method: payload of the method that it came with.
    :param at: where the name of the exchange begins in it.

    :ivar raw_consumer_tag: of the consumer it was delivered to, in UTF-8; empty after a get.
    :ivar delivery_tag: what to ack it by, on its channel only.
    :ivar redelivered: whether it, or an earlier delivery of it, may have been handed out before.
    :ivar message_count: messages that remained in the queue; only after a get.
    """

    method: bytes
    raw_consumer_tag: bytes
    delivery_tag: int
    redelivered: bool
    at: int
    message_count: int | None = None

    @property
    def consumer_tag(self) -> str:
        """The consumer's tag."""
        return self.raw_consumer_tag.decode(errors='replace')

    @property
    def exchange(self) -> str:
        """The exchange it was published to; empty for the default exchange."""
        return read_short_string(self.method, self.at)[0]

    @property
    def routing_key(self) -> str:
        """The routing key it was published with; what is not UTF-8 in it is kept by way of ``surrogateescape``."""
        return read_short_string(self.method, read_short_string(self.method, self.at)[1], 'surrogateescape')[0]

    def __repr__(self) -> str:
        return '<DeliveryInfo %d%s exchange=%r routing_key=%r>' % (
            self.delivery_tag,
            ' redelivered' if self.redelivered else '',
            self.exchange,
            self.routing_key,
        )


class ReturnInfo:
    """Why a message was returned.

    :ivar code: 312 when no queue was bound to the routing key, 313 when nobody consumed.
    :ivar text: the broker's words.
    :ivar exchange: the exchange it had been published to.
    :ivar routing_key: the routing key it had been published with.
    """

    __slots__ = ('code', 'exchange', 'routing_key', 'text')

    def __init__(self, code: int, text: str, exchange: str, routing_key: str) -> None:
        self.code = code
        self.text = text
        self.exchange = exchange
        self.routing_key = routing_key

    def __repr__(self) -> str:
        return '<ReturnInfo %d %s exchange=%r routing_key=%r>' % (self.code, self.text, self.exchange, self.routing_key)


class Message:
    """A body and its properties.

    :param body: bytes, or text: that becomes UTF-8 (or what ``content_encoding`` says) and is labelled so.
    :param properties: AMQP's fourteen, by name: content_type, content_encoding, headers (haigha's
        ``application_headers`` is the same), delivery_mode (2: persistent), priority, correlation_id, reply_to,
        expiration (milliseconds, as text), message_id, timestamp (seconds since 1970 or a datetime), type, user_id,
        app_id, cluster_id.
    :raises TypeError: when the body is neither bytes nor text.

    Source: AMQP 0-9-1, class basic; the constructor is haigha's.
    """

    __slots__ = ('body', 'delivery_info', 'properties', 'return_info')

    def __init__(
        self,
        body: bytes | bytearray | memoryview | str = b'',
        delivery_info: DeliveryInfo | None = None,
        return_info: ReturnInfo | None = None,
        **properties: Any,
    ) -> None:
        if isinstance(body, str):
            body = body.encode(properties.setdefault('content_encoding', 'utf-8'))
        elif not isinstance(body, bytes):
            if not isinstance(body, (bytearray, memoryview)):
                raise TypeError('a body must be bytes or str, not %r' % type(body).__name__)
            body = bytes(body)
        if 'application_headers' in properties:
            properties['headers'] = properties.pop('application_headers')
        self.body: bytes = body
        self.properties: dict[str, Any] = properties
        self.delivery_info = delivery_info
        self.return_info = return_info

    @classmethod
    def received(cls, body: bytes, properties: dict[str, Any], delivery_info: DeliveryInfo | None) -> Message:
        """A message off the wire: everything is of the right type already."""
        message = cls.__new__(cls)
        message.body = body
        message.properties = properties
        message.delivery_info = delivery_info
        message.return_info = None
        return message

    @property
    def headers(self) -> dict[str, Any]:
        """The application headers; an empty dict when there are none, or none that can be decoded."""
        return headers_of(self.properties)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Message):
            return NotImplemented
        return self.body == other.body and self.properties == other.properties

    __hash__ = None  # type: ignore[assignment]  # mutable and compared by value

    def __len__(self) -> int:
        return len(self.body)

    def __bool__(self) -> bool:
        # A message with an empty body is still a message: `if channel.basic.get(...)` must see it.
        return True

    def __repr__(self) -> str:
        shown = self.body if len(self.body) <= 60 else self.body[:57] + b'...'
        return '<Message %r %s>' % (shown, ' '.join('%s=%r' % item for item in self.properties.items()))
