"""Somebody who may publish to a service and does so with anything, down to the bytes of a content header."""

from __future__ import annotations

import struct
from typing import Any
from uuid import uuid4

from amphora import AmqpRpcClient
from amphora.amqp import Channel, Connection, Message
from amphora.amqp.frames import BASIC_PUBLISH, HEADER, METHOD, encode_body, frame
from tests.rpc.peer import Peer, as_bytes, body_of
from tests.stopwatch import Stopwatch
from tests.waiting import eventually

# Seconds within which whoever has nothing else to do has answered; a quiet machine takes milliseconds.
QUICK = 2.0

# Flags of the content header: AMQP 0-9-1, class basic.
HEADERS, CORRELATION_ID, REPLY_TO, EXPIRATION, MESSAGE_ID = 0x2000, 0x0400, 0x0200, 0x0100, 0x0080

ADD = {'func': 'add', 'args': [2, 3], 'kwargs': {}}


def add(x: int, y: int) -> int:
    return x + y


def short(raw: bytes) -> bytes:
    """A short string, of UTF-8 or not."""
    return bytes([len(raw)]) + raw


def long(raw: bytes) -> bytes:
    """A long string; so are tables and arrays, seen from outside."""
    return struct.pack('>I', len(raw)) + raw


def nested_table(depth: int) -> bytes:
    """A field table that holds one that holds one."""
    table = long(b'')
    for _ in range(depth):
        table = long(short(b'a') + b'F' + table)
    return table


def publish_raw(
    channel: Channel, exchange: str, routing_key: bytes, flags: int, properties: bytes, body: bytes
) -> None:
    """Publish a message whose routing key and properties are these bytes; waits while too much is unsent."""
    channel.connection.wait_writable(channel)
    method = BASIC_PUBLISH + bytes(2) + short(exchange.encode()) + short(routing_key) + b'\0'
    header = struct.pack('>HHQH', 60, 0, len(body), flags) + properties
    channel.connection.write(
        frame(METHOD, channel.id, method)
        + frame(HEADER, channel.id, header)
        + b''.join(encode_body(channel.id, body, channel.connection.frame_max))
    )


class Stranger(Peer):
    """A peer who also sends what no client and no server would.

    :ivar replies: the queue of what is answered to `me`.
    """

    me = 'stranger'

    def __init__(self, connection: Connection, service: str) -> None:
        super().__init__(connection, service)
        self.replies = self.declare_reply_queue(self.me)

    def ask(self, body: Any, routing_key: str = '', **properties: Any) -> Message:
        """Send a request, under an id of its own unless given, and wait for the reply to it."""
        properties = {'reply_to': self.me, 'message_id': str(uuid4()), **properties}
        self.request(body, routing_key, **properties)
        reply = self.take(self.replies)
        assert reply.properties['message_id'] == properties['message_id']
        return reply

    def answer(self, func: str, args: Any = (), kwargs: Any = None) -> Any:
        """What is answered to a call."""
        return body_of(self.ask({'func': func, 'args': args, 'kwargs': kwargs or {}}))

    def error(self, func: str, *args: Any) -> tuple[str, list[Any]]:
        """Class and arguments of what a function raises."""
        fault = self.answer(func, args)['exception']
        return fault['type'], fault['args']

    def refusal(self, body: Any, **properties: Any) -> str:
        """Send a request that must be answered with `WrongRequest`; gives what that says."""
        answer = body_of(self.ask(body, **properties))
        assert answer['exception']['type'] == 'WrongRequest', answer
        [text] = answer['exception']['args']
        assert len(text) < 400
        return str(text)

    def request_raw(self, flags: int, properties: bytes, body: Any = ADD) -> None:
        """Send a request with these bytes for its properties."""
        publish_raw(self.channel, self.request_exchange, b'', flags, properties, as_bytes(body))

    def reply_raw(self, request: Message, flags: int, properties: bytes, body: Any) -> None:
        """Send a reply with these bytes for its properties."""
        key = request.properties['reply_to'].encode()
        publish_raw(self.channel, self.response_exchange, key, flags, properties, as_bytes(body))

    def check_server_well(self) -> None:
        """The server answers as ever, and no request has been left behind."""
        watch = Stopwatch()
        assert body_of(self.ask(ADD)) == {'result': 5}
        assert watch.awake < QUICK
        eventually(lambda: self.ready() == 0)

    def check_client_well(self, client: AmqpRpcClient) -> None:
        """The client's next call has its result at once."""
        watch = Stopwatch()
        result = client.defer.add(2, 3)
        self.reply(self.take(), {'result': 5})
        assert result.get(timeout=5) == 5
        assert watch.awake < QUICK
