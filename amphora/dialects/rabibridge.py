"""RabiBridge's wire: an exchange ``rpc``, and two queues for each function, of which callers choose one.

A request's body is ``[args, kwargs]``, a reply's ``[0, result]`` or ``[1, traceback]``, in MessagePack unless the
configuration of all says otherwise: no message is labelled. A body that begins with zstd's magic number is compressed.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Collection
from typing import Any

from amphora.amqp.content import MAX_MESSAGE_SIZE
from amphora.amqp.message import TRANSIENT
from amphora.checks import check_flag, check_integer
from amphora.compression import ZSTD_MAGIC, check_algorithm, compress, decompress
from amphora.dialects.base import (
    ClientSide,
    Dialect,
    Party,
    Properties,
    ServerSide,
    Source,
    check_functions,
    private_reply_queue,
    text_of,
)
from amphora.dialects.encoded import Encoded
from amphora.dialects.formats import Format, MsgPack, check_format, packed
from amphora.dialects.ids import decimal_ids
from amphora.envelope import Reply, Request
from amphora.errors import RemoteException, WrongRequest, WrongResult
from amphora.functions import FunctionOptions
from amphora.queue_arguments import limits
from amphora.topology import Binding, Exchange, Queue, Record

#: name of the exchange that all requests go to
EXCHANGE = 'rpc'
#: what a function may be at the server: a coroutine, or not. Callers say which they want
KINDS = ('async', 'sync')
#: class name of errors from there whose traceback does not end as Python's do
REMOTE_ERROR = 'RemoteExecutionError'

# What Python's tracebacks begin with: the last of them, where one error led to another.
_TRACEBACK = 'Traceback (most recent call last):\n'


class RabiBridge(Dialect):
    """RabiBridge.

    :param format: `amphora.dialects.MsgPack`, `Json` or `Pickle`, as its ``SERIALISER``; all sides must use the same.
    :param compress_threshold: bodies of more bytes are compressed with zstd, as its ``COMPRESS_THRESHOLD``; None: none
        are. Compressed ones are read either way. Both need ``amphora[zstd]``.
    :param kind: ``async`` or ``sync``: which of a function's two queues a client calls. A server takes from both.
    :param functions: names of the functions that a server offers in this dialect; None: all.
    :param auto_delete: whether a server's queues vanish with their last consumer, as newer releases have it; a queue
        that exists is taken as it is.
    :raises TypeError: an option is of the wrong type.
    :raises ValueError: an option makes no sense; the error names it.
    :raises ImportError: `compress_threshold` needs ``amphora[zstd]``, which is not installed.
    """

    def __init__(
        self,
        format: Format | type[Format] = MsgPack,
        compress_threshold: int | None = None,
        kind: str = 'async',
        functions: Collection[str] | None = None,
        auto_delete: bool = False,
    ) -> None:
        self.format = check_format(format)
        if compress_threshold is not None:
            check_integer(compress_threshold, 'compress_threshold', 0, 1 << 40)
            check_algorithm('zstd')
        self.compress_threshold = compress_threshold
        if kind not in KINDS:
            raise ValueError('kind must be one of %s, not %r' % (', '.join(KINDS), kind))
        self.kind = kind
        self.functions = check_functions(functions)
        self.auto_delete = check_flag(auto_delete, 'auto_delete')

    def server_side(self, party: Party) -> RabiBridgeServer:
        """See `Dialect`."""
        return RabiBridgeServer(self)

    def client_side(self, party: Party) -> RabiBridgeClient:
        """See `Dialect`."""
        return RabiBridgeClient(self, party)

    def pack(self, value: list[Any]) -> bytes:
        """The body for a value."""
        body = packed(self.format, value)
        # What is larger than a message may be is refused when it is decompressed.
        if self.compress_threshold is not None and self.compress_threshold < len(body) <= MAX_MESSAGE_SIZE:
            return compress('zstd', body)
        return body

    def unpack(self, body: bytes) -> tuple[Any, Any]:
        """The two values in a body.

        :raises Exception: there are none; which depends on the format.
        """
        if body[:4] == ZSTD_MAGIC:
            body = decompress('zstd', body, MAX_MESSAGE_SIZE)
        both = self.format.unpack(body)
        if not isinstance(both, (list, tuple)) or len(both) != 2:
            raise ValueError('it is no list of two')
        return both[0], both[1]


class RabiBridgeServer(ServerSide):
    """See `ServerSide`."""

    def __init__(self, dialect: RabiBridge) -> None:
        self._dialect = dialect
        self.functions = dialect.functions

    def function_sources(self, function: str, options: FunctionOptions) -> list[Source]:
        """See `ServerSide`."""
        # It says so of every queue, limited or not.
        arguments = {'x-overflow': 'reject-publish', **dict(limits(options.queue_size, options.ttl))}
        sources = []
        for kind in KINDS:
            key = '%s_%s' % (kind, function)
            queue = Queue('rpc_' + key, tuple(arguments.items()), auto_delete=self._dialect.auto_delete, adopted=True)
            records = (Exchange(EXCHANGE, 'direct'), queue, Binding(queue.name, EXCHANGE, key))
            sources.append(Source(queue.name, records, function, options.prefetch))
        return sources

    def decode_request(self, properties: Properties, body: bytes, function: str | None = None) -> Request:
        """See `ServerSide`."""
        try:
            args, kwargs = self._dialect.unpack(body)
            if not (isinstance(args, (list, tuple)) and isinstance(kwargs, dict) and all(map(_is_text, kwargs))):
                raise ValueError('it is no list of arguments and mapping of named ones')
        except Exception as error:
            raise WrongRequest('the body cannot be read: %s' % error) from error
        return Request(properties.get('correlation_id'), str(function), args, kwargs, properties.get('reply_to'))

    def encode_reply(self, reply: Reply, request: Properties) -> Encoded:
        """See `ServerSide`."""
        if reply.error is None:
            outcome = [0, reply.value]
        else:
            outcome = [1, _traceback_of(reply.error)]
        return Encoded(
            '',
            request['reply_to'],
            {'correlation_id': request['correlation_id'], 'delivery_mode': TRANSIENT},
            self._dialect.pack(outcome),
        )


class RabiBridgeClient(ClientSide):
    """See `ClientSide`."""

    def __init__(self, dialect: RabiBridge, party: Party) -> None:
        self.reply_queue = private_reply_queue(party)
        self._dialect = dialect

    def records(self) -> list[Record]:
        """See `ClientSide`."""
        return [Exchange(EXCHANGE, 'direct'), self.reply_queue]

    def new_ids(self) -> Callable[[], str]:
        """See `ClientSide`."""
        return decimal_ids()

    def encode_request(self, request: Request, routing_key: str | None) -> Encoded:
        """See `ClientSide`."""
        return Encoded(
            EXCHANGE,
            routing_key or '%s_%s' % (self._dialect.kind, request.function),
            {'correlation_id': request.id, 'reply_to': self.reply_queue.name, 'delivery_mode': TRANSIENT},
            self._dialect.pack([request.args, request.kwargs]),
        )

    def decode_reply(self, properties: Properties, body: bytes) -> Any:
        """See `ClientSide`."""
        try:
            failed, value = self._dialect.unpack(body)
            if not isinstance(failed, int):
                raise ValueError('it does not begin with 0 or 1')
        except Exception as error:
            raise WrongResult('the body cannot be read: %s' % error) from error
        if failed == 0:
            return value
        raise _error_of(str(value))


def _is_text(name: object) -> bool:
    return isinstance(name, str)


def _traceback_of(error: Exception) -> str:
    lines = traceback.format_exception(error)
    if isinstance(error, RemoteException):  # somebody else's, by the name that it has there
        of_code = lines[: -len(traceback.format_exception_only(error))]
        lines = [*of_code, '%s: %s\n' % (error.error_type, text_of(Exception(*error.args)))]
    return text_of(''.join(lines))


def _error_of(text: str) -> RemoteException | WrongRequest:
    """The error that a traceback tells of; its whole text is the last argument."""
    # Beneath the lines of code comes the name, and then a message of any number of lines.
    at = text.rfind(_TRACEBACK) + len(_TRACEBACK) if _TRACEBACK in text else 0
    while text.startswith(' ', at):
        at = (text.find('\n', at) + 1) or len(text)
    name, colon, message = text[at:].removesuffix('\n').partition(': ')
    name = name.rpartition('.')[2]
    if not name.isidentifier():
        return RemoteException(REMOTE_ERROR, (text,))
    if name == 'WrongRequest':
        return WrongRequest(message)
    return RemoteException(name, (message, text) if colon else (text,))
