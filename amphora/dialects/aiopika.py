"""aio-pika's two patterns: RPC, and Master/Worker.

RPC has a queue for each function and takes keyword arguments only. What expires in a queue, or is rejected, comes back
to its caller through the headers exchange ``rpc.dlx``. Master/Worker has a queue for each kind of task, and no answers.

Source: https://docs.aio-pika.com/patterns.html
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from time import time
from typing import Any, NoReturn

from amphora.amqp.message import PERSISTENT, TRANSIENT
from amphora.checks import check_flag, check_name
from amphora.dialects import pickles
from amphora.dialects.base import (
    ClientSide,
    Dialect,
    Party,
    Properties,
    ServerSide,
    Source,
    check_functions,
    class_name_of,
    private_reply_queue,
    text_of,
)
from amphora.dialects.encoded import Encoded
from amphora.dialects.formats import Format, Pickle, check_format, content_type_of, packed
from amphora.envelope import Reply, Request
from amphora.errors import NoResult, WrongRequest, WrongResult, remote_error
from amphora.functions import FunctionOptions
from amphora.queue_arguments import QueueArguments, limits
from amphora.topology import Binding, Exchange, Queue, Record

#: name of the headers exchange through which requests come back
DEAD_LETTER_EXCHANGE = 'rpc.dlx'
#: class name of errors from there that do not say theirs
REMOTE_ERROR = 'RPCException'

# AMQP's `type` of a message.
_CALL, _RESULT, _ERROR = 'call', 'result', 'error'
_PRIORITY = 5


class AioPikaRpc(Dialect):
    """aio-pika's RPC.

    :param format: `amphora.dialects.Pickle`, as its ``RPC``, or `Json`, as its ``JsonRPC``. Pickles are read as plain
        data, never as code. Any other with ``pack`` and ``unpack`` will do, as for classes derived from those.
    :param exchange: what it was created with; empty: the default exchange.
    :param durable: with an exchange, what that is declared with.
    :param functions: names of the functions that a server offers in this dialect; None: all.
    :param auto_delete: whether a function's queue vanishes with its last consumer; one that exists is taken as it is.
    :raises TypeError: an option is of the wrong type.
    :raises ValueError: an option makes no sense; the error names it.
    """

    def __init__(
        self,
        format: Format | type[Format] = Pickle,
        exchange: str = '',
        durable: bool = False,
        functions: Collection[str] | None = None,
        auto_delete: bool = False,
    ) -> None:
        self.format = check_format(format)
        self.exchange = check_name(exchange, 'exchange')
        self.durable = check_flag(durable, 'durable')
        self.functions = check_functions(functions)
        self.auto_delete = check_flag(auto_delete, 'auto_delete')

    def server_side(self, party: Party) -> AioPikaRpcServer:
        """See `Dialect`."""
        return AioPikaRpcServer(self)

    def client_side(self, party: Party) -> AioPikaRpcClient:
        """See `Dialect`."""
        return AioPikaRpcClient(self, party)

    def exchanges(self) -> list[Record]:
        """The exchange that requests go to; none when it is the default one."""
        if not self.exchange:
            return []
        return [Exchange(self.exchange, 'direct', durable=self.durable, auto_delete=True)]

    def routing_key(self, function: str) -> str:
        """The routing key of a function, which is the name of its queue as well."""
        return '%s::%s' % (self.exchange, function) if self.exchange else function


class AioPikaRpcServer(ServerSide):
    """See `ServerSide`."""

    unique_ids = True

    def __init__(self, dialect: AioPikaRpc) -> None:
        self._dialect = dialect
        self._format = dialect.format
        self.functions = dialect.functions

    def function_sources(self, function: str, options: FunctionOptions) -> list[Source]:
        """See `ServerSide`."""
        dialect = self._dialect
        name = dialect.routing_key(function)
        arguments = (*limits(options.queue_size, options.ttl), ('x-dead-letter-exchange', DEAD_LETTER_EXCHANGE))
        queue = Queue(name, arguments, durable=False, auto_delete=dialect.auto_delete, adopted=True)
        records: list[Record] = [*dialect.exchanges(), queue]
        if dialect.exchange:
            records.append(Binding(name, dialect.exchange, name))
        return [Source(name, tuple(records), function, options.prefetch)]

    def decode_request(self, properties: Properties, body: bytes, function: str | None = None) -> Request:
        """See `ServerSide`."""
        kwargs = _arguments(self._format, body)
        return Request(properties.get('correlation_id'), str(function), (), kwargs, properties.get('reply_to'))

    def encode_reply(self, reply: Reply, request: Properties) -> Encoded:
        """See `ServerSide`."""
        return Encoded(
            '',
            request['reply_to'],
            {
                **content_type_of(self._format),
                'correlation_id': request['correlation_id'],
                'delivery_mode': request.get('delivery_mode', TRANSIENT),
                'timestamp': time(),
                'type': _RESULT if reply.error is None else _ERROR,
            },
            packed(self._format, reply.value) if reply.error is None else self._pack_error(reply.error),
        )

    def _pack_error(self, error: Exception) -> bytes:
        name = class_name_of(error)
        if self._format is Pickle or isinstance(self._format, Pickle):
            return pickles.dump_exception(name, error.args)
        told = {'type': name, 'message': text_of(error), 'args': list(error.args)}
        try:
            return packed(self._format, {'error': told})
        except Exception:  # an argument that the format cannot say; what that raises is the format's own affair
            return packed(self._format, {'error': {**told, 'args': list(map(self._sayable, error.args))}})

    def _sayable(self, arg: object) -> object:
        """An argument of an error, or its text when the format cannot say it."""
        try:
            packed(self._format, arg)
        except Exception:  # as above
            return text_of(arg, repr)[:1000]
        return arg


class AioPikaRpcClient(ClientSide):
    """See `ClientSide`."""

    def __init__(self, dialect: AioPikaRpc, party: Party) -> None:
        self.reply_queue = private_reply_queue(party)
        self._dialect = dialect
        self._format = dialect.format

    def records(self) -> list[Record]:
        """See `ClientSide`."""
        arguments: QueueArguments = (('From', self.reply_queue.name), ('x-match', 'any'))
        return [
            *self._dialect.exchanges(),
            Exchange(DEAD_LETTER_EXCHANGE, 'headers', durable=False, auto_delete=True),
            self.reply_queue,
            Binding(self.reply_queue.name, DEAD_LETTER_EXCHANGE, '', arguments),
        ]

    def encode_request(self, request: Request, routing_key: str | None) -> Encoded:
        """See `ClientSide`."""
        _check_keywords(request.args)
        return Encoded(
            self._dialect.exchange,
            routing_key or self._dialect.routing_key(request.function),
            {
                **content_type_of(self._format),
                'headers': {'From': self.reply_queue.name},
                'delivery_mode': TRANSIENT,
                'priority': _PRIORITY,
                'correlation_id': request.id,
                'reply_to': self.reply_queue.name,
                'timestamp': time(),
                'type': _CALL,
            },
            packed(self._format, request.kwargs),
        )

    def decode_reply(self, properties: Properties, body: bytes) -> Any:
        """See `ClientSide`."""
        kind = properties.get('type')
        if kind == _CALL:
            raise NoResult('the request came back: it has expired in its queue, or its server has rejected it')
        try:
            value = self._format.unpack(body)
        except Exception as error:
            raise WrongResult('the body cannot be read: %s' % error) from error
        if kind == _RESULT:
            return value
        if kind == _ERROR:
            _raise(value)
        raise WrongResult('the type of a reply is %r or %r, not %.100r' % (_RESULT, _ERROR, kind))


class AioPikaMaster(Dialect):
    """aio-pika's Master/Worker: tasks, which `AmqpRpcClient.cast` makes, and nobody answers.

    :param format: `amphora.dialects.Pickle`, as its ``Master``, `Json` as its ``JsonMaster``, `GzipJson` as its
        ``CompressedJsonMaster``, or any other with ``pack`` and ``unpack``.
    :param functions: names of the functions that a server offers in this dialect; None: all.
    :param durable, auto_delete: what a task's queue is declared with by a server; one that exists is taken as it is.
    :raises TypeError: an option is of the wrong type.
    :raises ValueError: an option makes no sense; the error names it.
    """

    def __init__(
        self,
        format: Format | type[Format] = Pickle,
        functions: Collection[str] | None = None,
        durable: bool = False,
        auto_delete: bool = False,
    ) -> None:
        self.format = check_format(format)
        self.functions = check_functions(functions)
        self.durable = check_flag(durable, 'durable')
        self.auto_delete = check_flag(auto_delete, 'auto_delete')

    def server_side(self, party: Party) -> AioPikaWorker:
        """See `Dialect`."""
        return AioPikaWorker(self)

    def client_side(self, party: Party) -> AioPikaMasterClient:
        """See `Dialect`."""
        return AioPikaMasterClient(self, party)


class AioPikaWorker(ServerSide):
    """See `ServerSide`."""

    def __init__(self, dialect: AioPikaMaster) -> None:
        self._dialect = dialect
        self.functions = dialect.functions

    def function_sources(self, function: str, options: FunctionOptions) -> list[Source]:
        """See `ServerSide`."""
        dialect = self._dialect
        queue = Queue(
            function,
            limits(options.queue_size, options.ttl),
            durable=dialect.durable,
            auto_delete=dialect.auto_delete,
            adopted=True,
        )
        return [Source(function, (queue,), function, options.prefetch)]

    def is_task(self, properties: Properties) -> bool:
        """See `ServerSide`."""
        return True

    def return_address(self, properties: Properties) -> tuple[str | None, str | None]:
        """See `ServerSide`. Tasks have no ids."""
        return '', None

    def decode_request(self, properties: Properties, body: bytes, function: str | None = None) -> Request:
        """See `ServerSide`."""
        return Request('', str(function), (), _arguments(self._dialect.format, body))

    def encode_reply(self, reply: Reply, request: Properties) -> NoReturn:
        """See `ServerSide`."""
        raise TypeError('nobody answers a task')


class AioPikaMasterClient(ClientSide):
    """See `ClientSide`."""

    def __init__(self, dialect: AioPikaMaster, party: Party) -> None:
        self.reply_queue = private_reply_queue(party)
        self._format = dialect.format

    def records(self) -> list[Record]:
        """See `ClientSide`."""
        return [self.reply_queue]

    def encode_request(self, request: Request, routing_key: str | None) -> NoReturn:
        """See `ClientSide`."""
        raise TypeError('nobody answers a task: use cast')

    def encode_task(self, request: Request, routing_key: str | None) -> Encoded:
        """See `ClientSide`."""
        _check_keywords(request.args)
        return Encoded(
            '',
            routing_key or request.function,
            # The peer's have no id; this one is for the broker's answer.
            {**content_type_of(self._format), 'delivery_mode': PERSISTENT, 'correlation_id': request.id},
            packed(self._format, request.kwargs),
        )

    def decode_reply(self, properties: Properties, body: bytes) -> NoReturn:
        """See `ClientSide`."""
        raise WrongResult('nobody answers a task')


def _check_keywords(args: Sequence[Any]) -> None:
    if args:
        raise TypeError("aio-pika's functions take keyword arguments only")


def _arguments(format: Format, body: bytes) -> Mapping[str, Any]:
    try:
        kwargs = format.unpack(body)
    except Exception as error:
        raise WrongRequest('the body cannot be read: %s' % error) from error
    if not isinstance(kwargs, dict) or not all(isinstance(name, str) for name in kwargs):
        raise WrongRequest('the body is no mapping of named arguments')
    return kwargs


def _raise(value: Any) -> NoReturn:
    """Raise the error in a reply: a pickled exception, or its description in JSON."""
    name, args = REMOTE_ERROR, (value,)
    found = pickles.exception_of(value)
    if found is not None:
        name, args = found
    elif isinstance(value, dict) and isinstance(value.get('error'), dict):
        told = value['error']
        name = str(told.get('type', REMOTE_ERROR))
        args = tuple(told['args']) if isinstance(told.get('args'), list) else (told.get('message'),)
    raise remote_error(name, args)
