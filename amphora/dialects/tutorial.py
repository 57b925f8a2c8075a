"""The RPC of RabbitMQ's tutorials, which aioamqp's documentation repeats: text goes in, text comes out.

The request's body is the one argument as text, ``reply_to`` the queue for the answer; the reply's body is the result
as text. There is no word for an error: here the reply to a call that raised says ``ValueError: why`` where a result
would be, and its headers say so to who knows them.

Source: https://www.rabbitmq.com/tutorials/tutorial-six-python
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from amphora.amqp.message import headers_of
from amphora.checks import check_flag, check_integer, check_name
from amphora.dialects.base import (
    ClientSide,
    Dialect,
    Party,
    Properties,
    ServerSide,
    Source,
    class_name_of,
    private_reply_queue,
    text_of,
)
from amphora.dialects.encoded import Encoded
from amphora.envelope import Reply, Request
from amphora.errors import WrongRequest, WrongResult, remote_error
from amphora.functions import check_function_name
from amphora.topology import Queue, Record
from amphora.values import builtin

#: header of a reply: class name of what the function raised
ERROR = 'x-amphora-error'

# Of what is taken for a number: to read one takes the square of its length.
_MOST_DIGITS = 1000

Convert = Callable[[str], Any]


def number_or_text(text: str) -> Any:
    """An int when the text is one in its usual form (``'4'``, not ``'04'``), else the text."""
    if len(text) > _MOST_DIGITS:
        return text
    try:
        number = int(text)
    except ValueError:
        return text
    return number if str(number) == text else text


class Tutorial(Dialect):
    """The tutorial's RPC.

    :param queue: name of the request queue; None: the service's name.
    :param function: what the requests in it are for. A server must be told; a client then calls no other.
    :param convert: makes an argument, and at a client a result, of a body's text; ``str`` leaves the text as it is.
        A body that is no UTF-8 stays bytes.
    :param durable: what the queue is declared with by a server when there is none; one that exists is taken as it is.
    :param prefetch: how many unacked requests a server takes at once: the tutorial's is 1, for fair dispatch.
    :raises TypeError: an option is of the wrong type.
    :raises ValueError: an option makes no sense; the error names it.
    """

    def __init__(
        self,
        queue: str | None = None,
        function: str | None = None,
        convert: Convert = number_or_text,
        durable: bool = False,
        prefetch: int = 1,
    ) -> None:
        self.queue = None if queue is None else check_name(queue, 'queue')
        self.function = None if function is None else check_function_name(function)
        if not callable(convert):
            raise TypeError('convert must be callable, which %r is not' % (convert,))
        self.convert = convert
        self.durable = check_flag(durable, 'durable')
        self.prefetch = check_integer(prefetch, 'prefetch', 1, 65535)

    def server_side(self, party: Party) -> TutorialServer:
        """See `Dialect`."""
        if self.function is None:
            raise ValueError("a server must know what the tutorial's requests are for: Tutorial(function='fib')")
        return TutorialServer(self, party)

    def client_side(self, party: Party) -> TutorialClient:
        """See `Dialect`."""
        return TutorialClient(self, party)


class TutorialServer(ServerSide):
    """See `ServerSide`."""

    def __init__(self, dialect: Tutorial, party: Party) -> None:
        self._dialect = dialect
        self._queue = dialect.queue or party.service

    def sources(self) -> list[Source]:
        """See `ServerSide`."""
        queue = Queue(self._queue, durable=self._dialect.durable, adopted=True)
        return [Source(queue.name, (queue,), self._dialect.function, self._dialect.prefetch)]

    def return_address(self, properties: Properties) -> tuple[str | None, str | None]:
        """See `ServerSide`."""
        return properties.get('correlation_id', ''), properties.get('reply_to')

    def decode_request(self, properties: Properties, body: bytes, function: str | None = None) -> Request:
        """See `ServerSide`."""
        try:
            argument = _value(self._dialect.convert, body)
        except Exception as error:
            raise WrongRequest('the argument makes no sense: %s' % error) from error
        return Request(properties.get('correlation_id'), str(function), (argument,), {}, properties.get('reply_to'))

    def encode_reply(self, reply: Reply, request: Properties) -> Encoded:
        """See `ServerSide`."""
        properties: dict[str, Any] = {}
        if request.get('correlation_id') is not None:
            properties['correlation_id'] = request['correlation_id']
        if reply.error is None:
            body = reply.value if isinstance(reply.value, bytes) else _text(reply.value).encode()
        else:
            body = ('%s: %s' % (class_name_of(reply.error), text_of(reply.error))).encode(errors='replace')
            properties['headers'] = {ERROR: class_name_of(reply.error)}
        return Encoded('', request['reply_to'], properties, body)


class TutorialClient(ClientSide):
    """See `ClientSide`."""

    def __init__(self, dialect: Tutorial, party: Party) -> None:
        self.reply_queue = private_reply_queue(party)
        self._dialect = dialect
        self._queue = dialect.queue or party.service

    def records(self) -> list[Record]:
        """See `ClientSide`."""
        return [self.reply_queue]

    def encode_request(self, request: Request, routing_key: str | None) -> Encoded:
        """See `ClientSide`."""
        if self._dialect.function not in (None, request.function):
            raise TypeError('behind this queue is only %r, not %r' % (self._dialect.function, request.function))
        if len(request.args) != 1 or request.kwargs:
            raise TypeError("the tutorial's functions take one positional argument")
        [argument] = request.args
        if isinstance(argument, bool) or not isinstance(argument, (str, bytes, int, float)):
            raise TypeError('the argument must be a str, a number or bytes, not a %s' % type(argument).__name__)
        return Encoded(
            '',
            routing_key or self._queue,
            {'correlation_id': request.id, 'reply_to': self.reply_queue.name},
            argument if isinstance(argument, bytes) else _text(argument).encode(),
        )

    def decode_reply(self, properties: Properties, body: bytes) -> Any:
        """See `ClientSide`."""
        error_type = headers_of(properties).get(ERROR)
        if isinstance(error_type, str):
            text = body.decode(errors='replace').removeprefix(error_type + ': ')
            raise remote_error(error_type, (text,))
        try:
            return _value(self._dialect.convert, body)
        except Exception as error:
            raise WrongResult('the result makes no sense: %s' % error) from error


def _text(value: Any) -> str:
    # Of a derived class, an Enum for example, what it is and not what it is called.
    plain = isinstance(value, (str, int, float)) and not isinstance(value, bool)
    return str(builtin(value) if plain else value)


def _value(convert: Convert, body: bytes) -> Any:
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return body
    return convert(text)
