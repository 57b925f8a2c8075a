"""Amphora's own wire, as of 0.1.3 (2013) with additions that a 0.1.3 peer ignores.

A request names itself by ``message_id`` and where its answer goes by ``reply_to``, a routing key of the response
exchange; the body is the serializer's. Additions: ``correlation_id``, ``content_type``, ``timestamp``, ``expiration``,
which the publisher fills in, and ``content_encoding`` of a body that is compressed. What is labelled as something else
than the serializer reads is refused; what bears no label, as a 0.1.3 peer's, is taken for what the serializer reads.
"""

from __future__ import annotations

from collections.abc import Sized
from time import time
from typing import Any

from amphora.amqp.content import MAX_MESSAGE_SIZE
from amphora.compression import ALGORITHMS, compress, decompress
from amphora.dialects.base import (
    ClientSide,
    Dialect,
    Party,
    Properties,
    ServerSide,
    Source,
    private_reply_queue,
)
from amphora.dialects.encoded import Encoded
from amphora.envelope import Reply, Request
from amphora.errors import AmphoraError, WrongRequest, WrongResult
from amphora.serializer import check_serializer
from amphora.topology import Binding, Exchange, Queue, Record

#: milliseconds that the queue of a fanout server outlives its connection: time to come back after a fault
FANOUT_QUEUE_EXPIRES = 60_000
#: the fanout service that all servers belong to, see `amphora.introspection`; no service of a user's can have its name
INTROSPECTION_SERVICE = 'amphora'
#: AMQP's ``type`` of a request that wants no answer
TASK = 'cast'

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


class Native(Dialect):
    """Amphora's own wire. Bodies are made and read by the serializer that a server or client was given."""

    def server_side(self, party: Party) -> NativeServer:
        """See `Dialect`."""
        return NativeServer(party)

    def client_side(self, party: Party) -> NativeClient:
        """See `Dialect`."""
        return NativeClient(party)


class _Wire:
    """What both sides know.

    :param names: the properties that differ from message to message.
    :raises TypeError: the serializer is none.
    """

    def __init__(self, party: Party, *names: str) -> None:
        check_serializer(party.serializer)
        self._party = party
        self._request_exchange = request_exchange(party.service)
        self._response_exchange = response_exchange(party.service)
        # In 0.1.3's days serializers had none.
        self._content_type: str = getattr(party.serializer, 'content_type', None) or ''
        self._threshold = MAX_MESSAGE_SIZE if party.compression is None else party.compress_threshold
        # With room for the others: to copy it and fill that is quicker than to let a new dict grow.
        common = {'delivery_mode': party.delivery_mode, 'content_type': self._content_type or None}
        self._blank: dict[str, Any] = {**common, **dict.fromkeys(names)}

    def _labelled(self, id: str | None) -> dict[str, Any]:
        """The properties of a message with the id of a request; what else differs is still to be filled in."""
        properties = self._blank.copy()
        properties['correlation_id'] = properties['message_id'] = id
        return properties

    def _exchanges(self) -> list[Record]:
        return [
            Exchange(self._request_exchange, 'fanout' if self._party.fanout else 'direct'),
            Exchange(self._response_exchange, 'direct'),
        ]

    def _shared_queue(self) -> list[Record]:
        """The service's own queue, which clients declare too: so calls wait for a server that is still to come."""
        name = request_queue(self._party.service)
        return [Queue(name, self._party.request_queue_arguments), Binding(name, self._request_exchange, '')]

    def _compress(self, properties: dict[str, Any], body: bytes) -> bytes:
        """A large body made smaller, where that is wished and helps."""
        # Who reads it refuses what becomes larger than a message may be; so does the broker, but then the sender knows.
        if self._party.compression is None or len(body) > MAX_MESSAGE_SIZE:
            return body
        packed = compress(self._party.compression, body)
        if len(packed) >= len(body):
            return body
        properties['content_encoding'] = self._party.compression
        return packed

    def _readable(self, properties: Properties, body: bytes) -> bytes:
        """A body as the serializer reads it.

        :raises ValueError: the serializer must not read it; the error says why.
        """
        if 'content_encoding' in properties:
            body = _unpacked(properties['content_encoding'], body)
        given, mine = properties.get('content_type'), self._content_type
        if not given or not mine or given == mine or _media_type(given) == _media_type(mine):
            return body
        raise ValueError('the content type of the body is %.100r, and %r is understood' % (given, mine))


def _unpacked(encoding: str, body: bytes) -> bytes:
    if encoding in ALGORITHMS:
        try:
            return decompress(encoding, body, MAX_MESSAGE_SIZE)
        except ImportError as error:
            raise ValueError('the content encoding of the body is %r: %s' % (encoding, error)) from error
    if encoding.lower() in _PLAIN_ENCODINGS:
        return body
    raise ValueError(
        'the content encoding of the body is %.100r, and %s are understood' % (encoding, ' and '.join(ALGORITHMS))
    )


class _ServerWire(_Wire):
    """What every request goes through."""

    def __init__(self, party: Party) -> None:
        super().__init__(party, 'correlation_id', 'message_id')
        self._deserialize_call = party.serializer.deserialize_call
        self._serialize_result = party.serializer.serialize_result

    def return_address(self, properties: Properties) -> tuple[str | None, str | None]:
        """See `ServerSide`."""
        reply_to = properties.get('reply_to')
        if reply_to is not None and not reply_to.isascii() and not _is_utf_8(reply_to):
            reply_to = None  # bytes that are no routing key: there is no such client
        return properties.get('message_id'), reply_to

    def decode_request(self, properties: Properties, body: bytes, function: str | None = None) -> Request:
        """See `ServerSide`."""
        try:
            body = self._readable(properties, body)
        except ValueError as error:
            raise WrongRequest(str(error)) from error
        try:
            function, args, kwargs = self._deserialize_call(body)
        except WrongRequest:
            raise
        except Exception as error:
            # A user's own serializer may stumble over a request in any way.
            raise WrongRequest('%s: %s' % (type(error).__name__, error)) from error
        if not isinstance(function, str):  # nor need it look at what it has read
            raise WrongRequest('the name of a function is a text, not a %s' % type(function).__name__)
        return Request(properties.get('message_id'), function, args, kwargs, properties.get('reply_to'))

    def encode_reply(self, reply: Reply, request: Properties) -> Encoded:
        """See `ServerSide`."""
        body = self._serialize_result(reply.value if reply.error is None else reply.error)
        if not isinstance(body, bytes):
            body = body.encode()
        properties = self._labelled(reply.id)
        if len(body) > self._threshold:
            body = self._compress(properties, body)
        return Encoded(self._response_exchange, request['reply_to'], properties, body)

    def shorten(self, reply: Encoded) -> Sized:
        """See `ServerSide`."""
        # All else is the same in each, or in the request again.
        return reply if 'content_encoding' in reply.properties else reply.body


class NativeServer(_ServerWire, ServerSide):
    """See `ServerSide`."""

    unique_ids = True
    keeps_dead_letters = True

    def __init__(self, party: Party) -> None:
        super().__init__(party)
        self.shared = not party.fanout

    def sources(self) -> list[Source]:
        """See `ServerSide`."""
        if not self._party.fanout:
            return [Source(request_queue(self._party.service), (*self._exchanges(), *self._shared_queue()))]
        name = fanout_queue(self._party.service, self._party.uuid)
        queue = Queue(name, (*self._party.request_queue_arguments, ('x-expires', FANOUT_QUEUE_EXPIRES)))
        return [Source(name, (*self._exchanges(), queue, Binding(name, self._request_exchange, '')))]

    def is_task(self, properties: Properties) -> bool:
        """See `ServerSide`."""
        return properties.get('type') == TASK

    def restore(self, shortened: Any, request: Properties) -> Encoded:
        """See `ServerSide`."""
        if not isinstance(shortened, bytes):
            return super().restore(shortened, request)
        return Encoded(self._response_exchange, request['reply_to'], self._labelled(request['message_id']), shortened)


class _ClientWire(_Wire):
    """What every call goes through."""

    def __init__(self, party: Party) -> None:
        # The publisher fills in the expiration.
        super().__init__(party, 'correlation_id', 'reply_to', 'message_id', 'timestamp', 'expiration')
        self._serialize_call = party.serializer.serialize_call
        self._deserialize_result = party.serializer.deserialize_result

    def encode_request(self, request: Request, routing_key: str | None) -> Encoded:
        """See `ClientSide`."""
        body = self._serialize_call(request.function, request.args, request.kwargs)
        if not isinstance(body, bytes):
            body = body.encode()
        properties = self._labelled(request.id)
        properties['reply_to'] = request.reply_to
        properties['timestamp'] = time()
        if len(body) > self._threshold:
            body = self._compress(properties, body)
        return Encoded(self._request_exchange, routing_key or '', properties, body)

    def reply_id(self, properties: Properties) -> str | None:
        """See `ClientSide`."""
        id: str | None = properties.get('message_id')
        return id if id is not None else properties.get('correlation_id')

    def decode_reply(self, properties: Properties, body: bytes) -> Any:
        """See `ClientSide`."""
        try:
            body = self._readable(properties, body)
        except ValueError as error:
            raise WrongResult(str(error)) from error
        try:
            return self._deserialize_result(body)
        except AmphoraError:
            raise
        except Exception as error:
            # A user's own serializer may stumble over a reply in any way.
            raise WrongResult('%s: %s' % (type(error).__name__, error)) from error


class NativeClient(_ClientWire, ClientSide):
    """See `ClientSide`."""

    def __init__(self, party: Party) -> None:
        super().__init__(party)
        self.reply_queue = private_reply_queue(party)
        self.request_exchange = self._request_exchange

    def records(self) -> list[Record]:
        """See `ClientSide`."""
        return [
            *self._exchanges(),
            # Each fanout server has a queue of its own; in a shared one each request would reach a single server.
            *([] if self._party.fanout else self._shared_queue()),
            self.reply_queue,
            Binding(self.reply_queue.name, self._response_exchange, self._party.uuid),
        ]

    def encode_task(self, request: Request, routing_key: str | None) -> Encoded:
        """See `ClientSide`."""
        encoded = self.encode_request(request, routing_key)
        del encoded.properties['reply_to']
        encoded.properties['type'] = TASK
        return encoded

    def request_id(self, properties: Properties) -> str | None:
        """See `ClientSide`."""
        id: str | None = properties.get('message_id')
        return id


def _media_type(content_type: str) -> str:
    """A content type without its parameters, such as ``charset``."""
    return content_type.partition(';')[0].strip().lower()


def _is_utf_8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
