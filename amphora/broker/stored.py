"""A message as the broker holds it: the publisher's own bytes, decoded only as far as somebody asks.

Pure: knows frames' payloads, no connection. One object is shared by every queue the message was routed to.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from amphora.amqp.errors import FrameError, PreconditionFailed
from amphora.amqp.fields import field_table, short_string
from amphora.amqp.frames import FRAME_OVERHEAD
from amphora.amqp.properties import decode_header, encode_header
from amphora.broker.arguments import MAX_MILLISECONDS

# Flags of a content header (AMQP 0-9-1, class basic) for which the broker must look inside.
_HEADERS, _PRIORITY, _REPLY_TO, _EXPIRATION, _USER_ID = 0x2000, 0x0800, 0x0200, 0x0100, 0x0010
_OF_INTEREST = _HEADERS | _PRIORITY | _EXPIRATION | _USER_ID

#: bytes that a message takes beside its body and header, roughly: the objects around them
OVERHEAD = 500
_INTEGER = re.compile(r'[+-]?\d+\Z')
# Headers that name more routing keys; the second is taken out before delivery
# (https://www.rabbitmq.com/docs/sender-selected).
_CC, _BCC = 'CC', 'BCC'
# How often a message is said to have died at most: a field table's integers have 64 bits.
_MAX_DEATHS = 2**62


class StoredMessage:
    """A published message.

    :param exchange: the exchange it was published to.
    :param routing_key: the routing key it was published with.
    :param header: payload of its content header frame.
    :param body: its body.
    :param address: exchange and routing key as two short strings, as ``basic.deliver`` wants them; None: encode them.

    :ivar size: bytes it is taken to occupy.
    """

    __slots__ = ('_properties', 'address', 'body', 'exchange', 'header', 'routing_key', 'size')

    def __init__(
        self, exchange: str, routing_key: str, header: bytes, body: bytes, address: bytes | None = None
    ) -> None:
        self.exchange = exchange
        self.routing_key = routing_key
        self.header = header
        self.body = body
        self.address = (
            address
            if address is not None
            else short_string(exchange, 'the exchange') + short_string(routing_key, 'the routing key')
        )
        self.size = len(body) + len(header) + OVERHEAD
        self._properties: dict[str, Any] | None = None

    @classmethod
    def compose(cls, exchange: str, routing_key: str, properties: Mapping[str, Any], body: bytes) -> StoredMessage:
        """A message from decoded properties."""
        return cls(exchange, routing_key, header_payload(len(body), properties), body)

    @property
    def flags(self) -> int:
        """Which properties there are, as the content header says it."""
        return self.header[12] << 8 | self.header[13]

    @property
    def properties(self) -> dict[str, Any]:
        """The decoded properties; decoded once, until they are forgotten. Not to be changed.

        :raises FrameError: the header cannot be decoded.
        """
        if self._properties is None:
            self._properties = decode_header(self.header)[1]
        return self._properties

    def forget_properties(self) -> None:
        """Nobody asks for the decoded properties for now: as objects they may take twenty times their bytes."""
        self._properties = None

    @property
    def headers(self) -> dict[str, Any]:
        """The application headers; empty when there are none."""
        if not self.flags & _HEADERS:
            return {}
        headers = self.properties.get('headers')
        return headers if isinstance(headers, dict) else {}

    @property
    def routing_keys(self) -> list[str]:
        """The routing key and those in the headers CC and BCC."""
        if not self.flags & _HEADERS:
            return [self.routing_key]
        headers = self.headers
        return [self.routing_key, *headers.get(_CC, ()), *headers.get(_BCC, ())]

    @property
    def visible_keys(self) -> list[str]:
        """The routing keys that a dead letter tells of: not those of BCC."""
        return [self.routing_key, *self.headers.get(_CC, ())]

    @property
    def priority(self) -> int:
        """The priority; 0 when there is none."""
        return self.properties.get('priority', 0) if self.flags & _PRIORITY else 0

    @property
    def expiration(self) -> float | None:
        """Seconds that it lives in a queue; None: as long as the queue lets it."""
        return int(self.properties['expiration']) / 1000 if self.flags & _EXPIRATION else None

    def is_answered_at(self, name: str) -> bool:
        """Whether this is where its answer goes; a header that does not contain the name is not decoded."""
        if not self.flags & _REPLY_TO or name.encode() not in self.header:
            return False
        return bool(self.properties.get('reply_to') == name)

    def check(self, user: str) -> None:
        """Refuse what RabbitMQ refuses in a published message.

        :param user: whom the publisher logged in as.
        :raises PreconditionFailed: a property has a value it cannot have.
        :raises FrameError: the header cannot be decoded, or the headers in it.
        """
        if not self.flags:
            return
        # Decoded even when nothing in it is of interest here: its consumers would close their connections, one after
        # the other, over one that cannot be decoded.
        properties = self.properties
        if isinstance(properties.get('headers'), bytes):
            raise FrameError('the headers of a message cannot be decoded')
        if not self.flags & _OF_INTEREST:
            return
        if properties.get('user_id', user) != user:
            raise PreconditionFailed(
                "user_id property set to '%s' but authenticated user was '%s'" % (properties['user_id'], user)
            )
        expiration = properties.get('expiration')
        if expiration is not None and (fault := _expiration_fault(expiration)) is not None:
            raise PreconditionFailed("invalid expiration '%s': %s" % (expiration, fault))
        headers = self.headers
        for name in (_CC, _BCC):
            keys = headers.get(name, [])
            if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
                raise PreconditionFailed('invalid message: {unacceptable_type_in_header,"%s",longstr}' % name)

    def without_bcc(self) -> StoredMessage:
        """The message as others may see it."""
        headers = self.headers
        if _BCC not in headers:
            return self
        return self.changed(headers={name: value for name, value in headers.items() if name != _BCC})

    def changed(self, exchange: str | None = None, routing_key: str | None = None, **properties: Any) -> StoredMessage:
        """A copy with another address or other properties; a property that is None is left out."""
        changed = {**self.properties, **properties}
        exchange = self.exchange if exchange is None else exchange
        routing_key = self.routing_key if routing_key is None else routing_key
        try:
            return StoredMessage.compose(exchange, routing_key, changed, self.body)
        except ValueError:
            # Not all headers that can be decoded can be encoded again: a name of over 128 bytes, an infinite float.
            changed['headers'] = {name: value for name, value in changed['headers'].items() if _encodes(name, value)}
            return StoredMessage.compose(exchange, routing_key, changed, self.body)

    # -- dead letters --------------------------------------------------------------------------------------------------

    def died(self, queue: str, reason: str, exchange: str, routing_key: str | None, at: datetime) -> StoredMessage:
        """The dead letter it becomes, with the headers that RabbitMQ writes.

        :param queue: where it died.
        :param reason: ``rejected``, ``expired``, ``maxlen`` or ``delivery_limit``.
        :param exchange: the dead letter exchange.
        :param routing_key: the dead letter routing key; None: its own.
        :param at: when it died.

        Source: https://www.rabbitmq.com/docs/dlx#effects
        """
        headers = dict(self.headers)
        death: dict[str, Any] = {
            'count': 1,
            'reason': reason,
            'queue': queue,
            'time': at.astimezone(timezone.utc).replace(microsecond=0),
            'exchange': self.exchange,
            'routing-keys': self.visible_keys,
        }
        expiration = self.properties.get('expiration')
        if expiration is not None:
            death['original-expiration'] = expiration
        earlier = _deaths(headers)
        same = [each for each in earlier if (each.get('queue'), each.get('reason')) == (queue, reason)]
        if same:
            # The latest death comes first; the same one again only counts.
            death = {**same[0], 'count': _count(same[0]) + 1}
            earlier.remove(same[0])
        headers['x-death'] = [death, *earlier]
        if 'x-death' not in self.headers and 'x-first-death-reason' not in headers:
            headers.update(
                {'x-first-death-exchange': self.exchange, 'x-first-death-queue': queue, 'x-first-death-reason': reason}
            )
        if routing_key is not None:
            headers.pop(_CC, None)
            headers.pop(_BCC, None)
        return self.changed(exchange=exchange, routing_key=routing_key, headers=headers, expiration=None)

    def has_cycled(self, queue: str) -> bool:
        """Whether it has died in this queue before and nobody has rejected it since: it would go round for ever."""
        deaths = _deaths(self.headers)
        queues = [death.get('queue') for death in deaths]
        if queue not in queues:
            return False
        return all(death.get('reason') != 'rejected' for death in deaths[: queues.index(queue) + 1])


def _deaths(headers: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The deaths a message tells of; its publisher may have made them up."""
    deaths = headers.get('x-death')
    if not isinstance(deaths, list):
        return []
    # With one that cannot be encoded the letter would lose all of them, and go round for ever.
    return [each for each in deaths if isinstance(each, dict) and _encodes('', each)]


def _count(death: Mapping[str, Any]) -> int:
    count = death.get('count')
    return count if isinstance(count, int) and 0 <= count < _MAX_DEATHS else 0


def _encodes(name: str, value: Any) -> bool:
    try:
        field_table({name: value}, 'a header')
    except ValueError:
        return False
    return True


def _expiration_fault(text: str) -> str | None:
    if not _INTEGER.match(text):
        digits = re.match(r'[+-]?\d+', text)
        return '{leftover_string,"%s"}' % text[digits.end() :] if digits else 'no_integer'
    value = int(text)
    if value < 0:
        return '{value_negative,%d}' % value
    return '{value_too_large,%d}' % value if value > MAX_MILLISECONDS else None


def header_payload(body_size: int, properties: Mapping[str, Any]) -> bytes:
    """The payload of a content header frame."""
    return encode_header(0, body_size, properties)[FRAME_OVERHEAD - 1 : -1]
