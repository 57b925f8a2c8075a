"""Amphora's own wire, as of 0.1.3 (2013) with additions that a 0.1.3 peer ignores.

A request names itself by ``message_id`` and where its answer goes by ``reply_to``, a routing key of the response
exchange; the body is the serializer's. Additions: ``correlation_id``, ``content_type``, ``timestamp``, and
``expiration``, which the publisher fills in.
"""

from __future__ import annotations

from collections.abc import Mapping
from time import time
from typing import Any

from amphora.dialects.base import Dialect, Encoded
from amphora.envelope import Address, Reply, Request
from amphora.errors import AmphoraError, WrongRequest, WrongResult
from amphora.serializer import AbstractRpcSerializer, check_serializer


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
        content_type = getattr(serializer, 'content_type', None)  # a serializer of 0.1.3's days has none
        if content_type:
            self._common['content_type'] = content_type

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
        return properties.get('message_id'), properties.get('reply_to')

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
        try:
            return self._serializer.deserialize_result(body)
        except AmphoraError:
            raise
        except Exception as error:
            # A user's own serializer may stumble over a reply in any way.
            raise WrongResult('%s: %s' % (type(error).__name__, error)) from error
