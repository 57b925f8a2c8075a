"""The wire of amqprpc, in Go and in Python: Go's net/rpc over AMQP.

A request's ``reply_to`` holds the function, its ``correlation_id`` the queue for the answer and its ``message_id`` a
number in decimal; the body is the one argument. A reply that bears a header ``error`` has no result.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from amphora.amqp.message import headers_of
from amphora.checks import check_name
from amphora.dialects.base import (
    ClientSide,
    Dialect,
    Party,
    Properties,
    ServerSide,
    Source,
    private_reply_queue,
    text_of,
)
from amphora.dialects.encoded import Encoded
from amphora.dialects.formats import Format, Json, check_format, packed
from amphora.dialects.ids import decimal_ids
from amphora.envelope import Reply, Request
from amphora.errors import RemoteException, WrongRequest, WrongResult
from amphora.topology import Queue, Record

#: header of a reply: what went wrong
ERROR = 'error'
#: class name of errors from there, which come as a text
RPC_ERROR = 'RPCError'

# How much of an error's text its header holds, in characters: all headers together must fit into one frame.
_ERROR_LENGTH = 10_000

# What their servers say when there is no such function.
_UNKNOWN = ('unknown function ', "rpc: can't find service ", "rpc: can't find method ")


class AmqpRpc(Dialect):
    """amqprpc.

    :param name: name of the codec, which is that of the request queue; None: the service's name.
    :param formatter: `amphora.dialects.Json`, `amphora.dialects.MsgPack`, or whatever has ``pack`` and ``unpack``; both
        sides must use the same.
    :raises TypeError: an option is of the wrong type.
    :raises ValueError: an option makes no sense; the error names it.
    """

    def __init__(self, name: str | None = None, formatter: Format | type[Format] = Json) -> None:
        self.name = None if name is None else check_name(name, 'name')
        self.formatter = check_format(formatter)

    def server_side(self, party: Party) -> AmqpRpcServerSide:
        """See `Dialect`."""
        return AmqpRpcServerSide(self, party)

    def client_side(self, party: Party) -> AmqpRpcClientSide:
        """See `Dialect`."""
        return AmqpRpcClientSide(self, party)


class AmqpRpcServerSide(ServerSide):
    """See `ServerSide`."""

    def __init__(self, dialect: AmqpRpc, party: Party) -> None:
        self._format = dialect.formatter
        self._queue = Queue(dialect.name or party.service, durable=False)

    def sources(self) -> list[Source]:
        """See `ServerSide`."""
        return [Source(self._queue.name, (self._queue,))]

    def return_address(self, properties: Properties) -> tuple[str | None, str | None]:
        """See `ServerSide`."""
        reply_queue = properties.get('correlation_id')
        if reply_queue == self._queue.name:
            reply_queue = None  # a reply looks like a request: in this queue it would be answered again, without end
        return properties.get('message_id'), reply_queue

    def decode_request(self, properties: Properties, body: bytes, function: str | None = None) -> Request:
        """See `ServerSide`."""
        name = properties.get('reply_to')
        if not name:
            raise WrongRequest('the request names no function: its reply_to is empty')
        try:
            argument = self._format.unpack(body)
        except Exception as error:
            raise WrongRequest('the argument cannot be read: %s' % error) from error
        return Request(properties.get('message_id'), name, (argument,), {}, properties.get('correlation_id'))

    def encode_reply(self, reply: Reply, request: Properties) -> Encoded:
        """See `ServerSide`."""
        properties = {name: request[name] for name in ('message_id', 'correlation_id', 'reply_to') if name in request}
        if reply.error is None:
            body = packed(self._format, reply.value)
        else:
            properties['headers'] = {ERROR: _text_of(reply.error)}
            body = self._no_result()
        return Encoded('', request['correlation_id'], properties, body)

    def _no_result(self) -> bytes:
        # Nobody looks at it, so a format of the user's own may be one that knows no None.
        try:
            return packed(self._format, None)
        except Exception:
            return b''


class AmqpRpcClientSide(ClientSide):
    """See `ClientSide`."""

    def __init__(self, dialect: AmqpRpc, party: Party) -> None:
        self.reply_queue = private_reply_queue(party)
        self._format = dialect.formatter
        self._queue = Queue(dialect.name or party.service, durable=False)

    def records(self) -> list[Record]:
        """See `ClientSide`."""
        return [self._queue, self.reply_queue]

    def new_ids(self) -> Callable[[], str]:
        """See `ClientSide`."""
        return decimal_ids()

    def encode_request(self, request: Request, routing_key: str | None) -> Encoded:
        """See `ClientSide`."""
        if len(request.args) != 1 or request.kwargs:
            raise TypeError("amqprpc's functions take one positional argument")
        return Encoded(
            '',
            routing_key or self._queue.name,
            {'message_id': request.id, 'correlation_id': self.reply_queue.name, 'reply_to': request.function},
            packed(self._format, request.args[0]),
        )

    def request_id(self, properties: Properties) -> str | None:
        """See `ClientSide`."""
        id: str | None = properties.get('message_id')
        return id

    def decode_reply(self, properties: Properties, body: bytes) -> Any:
        """See `ClientSide`."""
        error = headers_of(properties).get(ERROR)
        if error is not None:
            text = error.decode(errors='replace') if isinstance(error, bytes) else str(error)
            raise WrongRequest(text) if text.startswith(_UNKNOWN) else RemoteException(RPC_ERROR, (text,))
        try:
            return self._format.unpack(body)
        except Exception as error:
            raise WrongResult('the result cannot be read: %s' % error) from error


def _text_of(error: Exception) -> str:
    if isinstance(error, WrongRequest) and error.unknown_function is not None:
        return _UNKNOWN[0] + text_of(error.unknown_function)
    return text_of(error)[:_ERROR_LENGTH] or type(error).__name__
