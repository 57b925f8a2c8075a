"""Peers of amqprpc made by hand with pika: what py-amqprpc and go-amqprpc declare and put on the wire, and what they
make of what they get, with the texts of Go's net/rpc.

Clients belong to the native thread that makes them; servers have one of their own, and are entered and left in a
greenlet, since the broker may need its thread meanwhile. Knows nothing of amphora.
"""

from __future__ import annotations

import itertools
import json
import struct
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgspec
import pika

from tests.waiting import eventually

# Seconds between two looks at whether a server is to stop.
_PATIENCE = 0.05

START_LIMIT = 10
STOP_LIMIT = 10


class Formatter(NamedTuple):
    """How bodies are made and read."""

    pack: Callable[[Any], bytes]
    unpack: Callable[[bytes], Any]


class Received(NamedTuple):
    """A message as it came."""

    properties: pika.BasicProperties
    body: bytes


class RPCError(Exception):
    """The server's answer was an error; its text."""


class Shutdown(Exception):
    """What came ends a client or a server in Go, with all that waits for it."""


# Formatters


def _pack_json_as_go(value: Any) -> bytes:
    """Without spaces, in UTF-8, and harmless in HTML."""
    text = json.dumps(value, ensure_ascii=False, separators=(',', ':'))
    for character in '&<>\u2028\u2029':
        text = text.replace(character, '\\u%04x' % ord(character))
    return text.encode()


def _msgpack_head(length: int, fixed: int, fixed_most: int, wider: bytes) -> bytes:
    """How a text, an array or a map begins: in one byte if it is short, or else with 16 or 32 bits of length."""
    if length <= fixed_most:
        return bytes((fixed | length,))
    if length < 1 << 16:
        return struct.pack('>BH', wider[0], length)
    return struct.pack('>BI', wider[1], length)


def _pack_msgpack(value: Any, wide_integers: bool, legacy: bool) -> bytes:
    if isinstance(value, dict):
        parts = [part for item in value.items() for part in item]
        head = _msgpack_head(len(value), 0x80, 15, b'\xde\xdf')
    elif isinstance(value, (list, tuple)):
        parts = list(value)
        head = _msgpack_head(len(value), 0x90, 15, b'\xdc\xdd')
    elif isinstance(value, int) and not isinstance(value, bool) and wide_integers:
        return struct.pack('>Bq', 0xD3, value) if value < 1 << 63 else struct.pack('>BQ', 0xCF, value)
    elif isinstance(value, (str, bytes)) and legacy:
        raw = value.encode() if isinstance(value, str) else value
        return _msgpack_head(len(raw), 0xA0, 31, b'\xda\xdb') + raw
    else:
        return msgspec.msgpack.encode(value)
    return head + b''.join(_pack_msgpack(part, wide_integers, legacy) for part in parts)


#: as encoding/json writes it
GO_JSON = Formatter(_pack_json_as_go, json.loads)
#: integers are int64, always in nine bytes
GO_MSGPACK = Formatter(lambda value: _pack_msgpack(value, True, False), msgspec.msgpack.decode)
#: as the json module writes it, with spaces and in ASCII
PYTHON_JSON = Formatter(lambda value: json.dumps(value).encode(), json.loads)
#: as msgpack has written it until 1.0: text and bytes are both raw
PYTHON_MSGPACK = Formatter(lambda value: _pack_msgpack(value, False, True), msgspec.msgpack.decode)


# Clients


class _Client(ABC):
    """Calls what is registered with the server codec of a name.

    :param url: of the broker.
    :param name: of the codec, which is that of the request queue.
    """

    first_number: int
    reply_queue_is_auto_delete: bool

    def __init__(self, url: str, name: str, formatter: Formatter) -> None:
        self.replies: dict[int, Received] = {}
        self._name = name
        self._formatter = formatter
        self._numbers = itertools.count(self.first_number)
        self._connection = pika.BlockingConnection(pika.URLParameters(url))
        try:
            self._channel = self._connection.channel()
            self._prepare()
            declared = self._channel.queue_declare('', auto_delete=self.reply_queue_is_auto_delete)
            self.reply_queue: str = declared.method.queue
            self._channel.basic_consume(self.reply_queue, self._on_reply, auto_ack=True)
        except BaseException:
            self._connection.close()
            raise

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def call(self, method: str, argument: Any, timeout: float = 10) -> Any:
        """The result of a call.

        :param method: ``Service.Method``.
        :param timeout: in seconds.
        :raises RPCError: the server answered with an error.
        :raises TimeoutError: it did not answer.
        """
        return self.finish(self.start(method, argument), timeout)

    def start(self, method: str, argument: Any) -> int:
        """Send a request; what it returns is for `finish`."""
        return self.send(method, self._formatter.pack(argument))

    def send(self, method: str, body: bytes) -> int:
        """Send a request whose argument has been packed."""
        number = next(self._numbers)
        self._channel.basic_publish(
            '',
            self._name,
            body,
            pika.BasicProperties(reply_to=method, correlation_id=self.reply_queue, message_id=str(number)),
        )
        return number

    def finish(self, number: int, timeout: float = 10) -> Any:
        """The result of a request, as `call` gives it."""
        give_up = time.monotonic() + timeout
        while number not in self.replies:
            left = give_up - time.monotonic()
            if left <= 0:
                raise TimeoutError('no reply to %d in %g s' % (number, timeout))
            self._connection.process_data_events(left)
        reply = self.replies[number]
        headers = reply.properties.headers or {}
        if 'error' in headers:
            raise RPCError(headers['error'])
        return self._formatter.unpack(reply.body)

    @abstractmethod
    def _prepare(self) -> None:
        """What a client does before it declares its reply queue."""

    @abstractmethod
    def _number_of(self, properties: pika.BasicProperties) -> int:
        """The number of the request that a message with these properties replies to."""

    def _on_reply(self, _: Any, __: Any, properties: pika.BasicProperties, body: bytes) -> None:
        self.replies[self._number_of(properties)] = Received(properties, body)


class PythonClient(_Client):
    """py-amqprpc's: counts from 1, and leaves it to the server to declare the request queue."""

    first_number = 1
    reply_queue_is_auto_delete = False

    def __exit__(self, *_: object) -> None:
        self._channel.queue_delete(self.reply_queue)  # the real one leaves it behind
        super().__exit__()

    def _prepare(self) -> None:
        pass

    def _number_of(self, properties: pika.BasicProperties) -> int:
        return int(properties.message_id)


class GoClient(_Client):
    """go-amqprpc's: counts from 0, refuses to start while nobody serves, and ends at a reply that it cannot read."""

    first_number = 0
    reply_queue_is_auto_delete = True

    def _prepare(self) -> None:
        if not self._channel.queue_declare(self._name).method.consumer_count:
            raise Shutdown('no consumers in queue')

    def _number_of(self, properties: pika.BasicProperties) -> int:
        error = (properties.headers or {}).get('error', '')
        if not isinstance(error, str):
            raise Shutdown('header not a string')
        return _unsigned(properties.message_id)


def _unsigned(text: str | None) -> int:
    """A number as Go's strconv.ParseUint takes it."""
    if text is None or not (text.isascii() and text.isdigit()) or int(text) >= 1 << 64:
        raise Shutdown('strconv.ParseUint: parsing %r: invalid syntax' % text)
    return int(text)


# Servers


class _Server(ABC):
    """Serves functions of one argument in a thread of its own, one request after the other.

    :param url: of the broker.
    :param name: of the codec, which is that of the request queue.
    :param functions: by the name that is called, ``Service.Method``.
    """

    def __init__(
        self, url: str, name: str, formatter: Formatter, functions: Mapping[str, Callable[[Any], Any]]
    ) -> None:
        self.requests: list[Received] = []
        self._url = url
        self._name = name
        self._formatter = formatter
        self._functions = functions
        self._ready = threading.Event()
        self._stopped = threading.Event()
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Any:
        self._thread.start()
        eventually(lambda: self._ready.is_set() or not self._thread.is_alive(), START_LIMIT)
        self._raise_failure()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._stopped.set()
        eventually(lambda: not self._thread.is_alive(), STOP_LIMIT)
        if kind is None:
            self._raise_failure()

    @abstractmethod
    def _answer(self, properties: pika.BasicProperties, body: bytes) -> tuple[bytes, str | None]:
        """The body of the reply to a request, and the text of the error if there is one."""

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            with pika.BlockingConnection(pika.URLParameters(self._url)) as connection:
                channel = connection.channel()
                channel.queue_declare(self._name)
                channel.basic_consume(self._name, self._on_request, auto_ack=True)
                self._ready.set()
                while not self._stopped.is_set():
                    connection.process_data_events(_PATIENCE)
        except Exception as error:  # whatever ends the thread is for whoever leaves the server
            self._failure = error

    def _on_request(self, channel: Any, _: Any, properties: pika.BasicProperties, body: bytes) -> None:
        self.requests.append(Received(properties, body))
        reply, error = self._answer(properties, body)
        echoed = pika.BasicProperties(
            reply_to=properties.reply_to,
            correlation_id=properties.correlation_id,
            message_id=properties.message_id,
            headers=None if error is None else {'error': error},
        )
        channel.basic_publish('', properties.correlation_id, reply, echoed)


class PythonServer(_Server):
    """py-amqprpc's: the body of an error is None."""

    def _answer(self, properties: pika.BasicProperties, body: bytes) -> tuple[bytes, str | None]:
        function = self._functions.get(properties.reply_to)
        if function is None:
            return self._formatter.pack(None), 'unknown function %s' % properties.reply_to
        argument = self._formatter.unpack(body)
        try:
            result = function(argument)
        except Exception as error:  # the function is the test's
            return self._formatter.pack(None), str(error)
        return self._formatter.pack(result), None


class GoServer(_Server):
    """go-amqprpc's: the body of an error is an empty struct, and a request without a correlation id ends the server."""

    def _answer(self, properties: pika.BasicProperties, body: bytes) -> tuple[bytes, str | None]:
        if not properties.correlation_id:
            raise Shutdown('no routing key in delivery')
        called = properties.reply_to or ''
        service, dot, _ = called.rpartition('.')
        if not dot:
            return self._failed('rpc: service/method request ill-formed: ' + called)
        if not any(name.startswith(service + '.') for name in self._functions):
            return self._failed("rpc: can't find service " + called)
        if called not in self._functions:
            return self._failed("rpc: can't find method " + called)
        try:
            return self._formatter.pack(self._functions[called](self._formatter.unpack(body))), None
        except Exception as error:  # the function is the test's; in Go, what cannot be unpacked is an answer too
            return self._failed(str(error))

    def _failed(self, text: str) -> tuple[bytes, str]:
        return self._formatter.pack({}), text
