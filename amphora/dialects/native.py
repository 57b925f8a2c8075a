"""Amphora's own wire, as of 0.1.3 (2013) with additions that a 0.1.3 peer ignores.

A request names itself by ``message_id`` and where its answer goes by ``reply_to``, a routing key of the response
exchange; the body is the serializer's. Additions: ``correlation_id``, ``content_type``, ``timestamp``, and
``expiration``, which the publisher fills in. What is labelled as something else than the serializer reads is refused;
what bears no label, as a 0.1.3 peer's, is taken for what the serializer reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from time import time
from typing import Any

from amphora.dialects.base import Dialect, Encoded
from amphora.envelope import Address, Reply, Request
from amphora.errors import AmphoraError, WrongRequest, WrongResult
from amphora.serializer import AbstractRpcSerializer, check_serializer

# Encodings of a body that leave it as it is; the last two are what other Python clients say of text and of bytes.
_PLAIN_ENCODINGS = frozenset(('', 'identity', 'utf-8', 'binary'))


def request_exchange(service: str) -> str:
    """Name of the exchange that requests for a service are published to."""
    return 'rpc_%s_request' % service


def response_exchange(service: str) -> str:
    """Name of the exchange that replies of a service are published to."""
    return 'rpc_%s_response' % service


def request_queue(label: str) -> str:
    """Name of a request queue: of a service, or of a label given to ``create_new_request_queue``."""
    return 'rpc_%s_request' % label


def fanout_queue(service: str, uuid: str) -> str:
    """Name of the request queue of one fanout server."""
    return 'rpc_%s_%s_request' % (service, uuid)


def reply_queue(service: str, uuid: str) -> str:
    """Name of the queue that the replies to one client come through."""
    return 'rpc_%s_%s_response' % (service, uuid)


class Native(Dialect):
    """Amphora's own wire.

    :param service: name of the service.
    :param serializer: makes and reads the bodies: a class with the four static methods of `AbstractRpcSerializer`, or
        an object that has them.
    :param delivery_mode: AMQP's, of every message: 2 persistent, 1 not.
    """

    def __init__(
        self, service: str, serializer: type[AbstractRpcSerializer] | AbstractRpcSerializer, delivery_mode: int
    ) -> None:
        check_serializer(serializer)
        self._request_exchange = request_exchange(service)
        self._response_exchange = response_exchange(service)
        self._serializer = serializer
        self._common: dict[str, Any] = {'delivery_mode': delivery_mode}
        self._content_type: str = getattr(serializer, 'content_type', None) or ''  # in 0.1.3's days they had none
        if self._content_type:
            self._common['content_type'] = self._content_type

    def encode_request(self, request: Request, routing_key: str) -> Encoded:
        """See `Dialect`."""
        body = self._serializer.serialize_call(request.function, request.args, request.kwargs)
        return Encoded(
            Address(self._request_exchange, routing_key),
            {
                **self._common,
                'correlation_id': request.id,
                'reply_to': request.reply_to,
                'message_id': request.id,
                'timestamp': time(),
            },
            body if isinstance(body, bytes) else body.encode(),
        )

    def decode_request(self, properties: Mapping[str, Any], body: bytes) -> Request:
        """See `Dialect`."""
        misfit = self._misfit(properties)
        if misfit is not None:
            raise WrongRequest(misfit)
        try:
            function, args, kwargs = self._serializer.deserialize_call(body)
        except WrongRequest:
            raise
        except Exception as error:
            # A user's own serializer may stumble over a request in any way.
            raise WrongRequest('%s: %s' % (type(error).__name__, error)) from error
        return Request(properties.get('message_id'), function, args, kwargs, properties.get('reply_to'))

    def return_address(self, properties: Mapping[str, Any]) -> tuple[str | None, str | None]:
        """See `Dialect`."""
        reply_to = properties.get('reply_to')
        if reply_to is not None and not reply_to.isascii() and not _is_utf_8(reply_to):
            reply_to = None  # bytes that are no routing key: there is no such client
        return properties.get('message_id'), reply_to

    def encode_reply(self, reply: Reply, reply_to: str) -> Encoded:
        """See `Dialect`."""
        body = self._serializer.serialize_result(reply.value if reply.error is None else reply.error)
        return Encoded(
            Address(self._response_exchange, reply_to),
            {**self._common, 'correlation_id': reply.id, 'message_id': reply.id},
            body if isinstance(body, bytes) else body.encode(),
        )

    def reply_id(self, properties: Mapping[str, Any]) -> str | None:
        """See `Dialect`."""
        id: str | None = properties.get('message_id')
        return id if id is not None else properties.get('correlation_id')

    def decode_reply(self, properties: Mapping[str, Any], body: bytes) -> Any:
        """See `Dialect`."""
        misfit = self._misfit(properties)
        if misfit is not None:
            raise WrongResult(misfit)
        try:
            return self._serializer.deserialize_result(body)
        except AmphoraError:
            raise
        except Exception as error:
            # A user's own serializer may stumble over a reply in any way.
            raise WrongResult('%s: %s' % (type(error).__name__, error)) from error

    def _misfit(self, properties: Mapping[str, Any]) -> str | None:
        """Why the serializer must not read a body that is labelled so; None: it may."""
        encoding = properties.get('content_encoding')
        if encoding is not None and encoding.lower() not in _PLAIN_ENCODINGS:
            return 'the content encoding of the body is %.100r, and no encoding is understood' % encoding
        given, mine = properties.get('content_type'), self._content_type
        if not given or not mine or given == mine or _media_type(given) == _media_type(mine):
            return None
        return 'the content type of the body is %.100r, and %r is understood' % (given, mine)


def _media_type(content_type: str) -> str:
    """A content type without its parameters, such as ``charset``."""
    return content_type.partition(';')[0].strip().lower()


def _is_utf_8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
