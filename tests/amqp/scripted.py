"""A broker that says exactly what a test tells it to, over real sockets.

What it understands and says goes through `pamqp` and not through `amphora`, so that it shares none of its mistakes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from types import TracebackType
from typing import Any

import gevent
from gevent import socket
from gevent.event import AsyncResult
from gevent.server import StreamServer
from pamqp import base, commands, frame, header, heartbeat

from amphora.amqp import Connection
from tests.rabbitmq import HOST, PROTOCOL_HEADER

METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8

#: how long a script may wait for the client's next frame
READ_LIMIT = 15


def raw_frame(kind: int, channel: int, payload: bytes, end: bytes = b'\xce') -> bytes:
    """A frame, well formed or not."""
    return struct.pack('>BHI', kind, channel, len(payload)) + payload + end


def method(channel: int, what: base.Frame) -> bytes:
    """A method frame."""
    return frame.marshal(what, channel)


def content_header(channel: int, body_size: int, properties: bytes = b'\x00\x00') -> bytes:
    """A content header frame of class basic; `properties` are its flags and what they announce."""
    return raw_frame(HEADER, channel, struct.pack('>HHQ', 60, 0, body_size) + properties)


def delivery(channel: int, consumer_tag: str, tag: int, body: bytes) -> bytes:
    """The frames of a delivery."""
    return (
        method(channel, commands.Basic.Deliver(consumer_tag, tag, False, '', 'somewhere'))
        + content_header(channel, len(body))
        + (raw_frame(BODY, channel, body) if body else b'')
    )


class HungUp(Exception):
    """The client has closed the socket."""


ANSWERS = {
    commands.Channel.Open: commands.Channel.OpenOk,
    commands.Channel.Close: commands.Channel.CloseOk,
    commands.Confirm.Select: commands.Confirm.SelectOk,
    commands.Basic.Qos: commands.Basic.QosOk,
}


class Peer:
    """One client of a `ScriptedBroker`."""

    def __init__(self, sock: Any) -> None:
        self.sock = sock

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def say(self, what: base.Frame, channel: int = 0) -> None:
        self.send(method(channel, what))

    def read_exactly(self, size: int) -> bytes:
        data = b''
        with gevent.Timeout(READ_LIMIT, AssertionError(f'the client said nothing for {READ_LIMIT} s')):
            while len(data) < size:
                try:
                    piece = self.sock.recv(size - len(data))
                except ConnectionError as error:
                    raise HungUp from error
                if not piece:
                    raise HungUp
                data += piece
        return data

    def read_raw(self) -> bytes:
        """The client's next frame, as bytes."""
        head = self.read_exactly(7)
        return head + self.read_exactly(int.from_bytes(head[3:7], 'big') + 1)

    def read(self) -> Any:
        """The client's next frame, decoded; heartbeats too."""
        return frame.unmarshal(self.read_raw())[2]

    def expect(self, kind: type) -> Any:
        """The client's next frame that is no heartbeat; it must be of this kind."""
        got = self.read()
        while isinstance(got, heartbeat.Heartbeat) and kind is not heartbeat.Heartbeat:
            got = self.read()
        assert isinstance(got, kind), f'{kind.__name__} was expected, {got!r} came'
        return got

    def expect_publish(self) -> bytes:
        """The client's next frames are a message; gives its body."""
        self.expect(commands.Basic.Publish)
        size = self.expect(header.ContentHeader).body_size
        body = b''
        while len(body) < size:
            body += self.read().value
        return body

    def serve_until(self, kind: type) -> tuple[Any, int]:
        """The client's next frame of a kind, and its channel. What comes before it is passed over, the usual methods
        with an answer."""
        while True:
            raw = self.read_raw()
            channel, got = int.from_bytes(raw[1:3], 'big'), frame.unmarshal(raw)[2]
            if isinstance(got, kind):
                return got, channel
            if type(got) in ANSWERS:
                self.say(ANSWERS[type(got)](), channel)

    def last_words(self) -> list[Any]:
        """Everything that the client says until it hangs up."""
        said = []
        try:
            while True:
                said.append(self.read())
        except HungUp:
            return said

    def last_words_raw(self) -> bytes:
        """Everything that the client says until it hangs up, as bytes."""
        said = b''
        try:
            while True:
                said += self.read_exactly(1)
        except HungUp:
            return said

    def greet(self, **start: Any) -> Any:
        """The handshake up to the client's login."""
        assert self.read_exactly(8) == PROTOCOL_HEADER
        fields = {'version_major': 0, 'version_minor': 9, 'mechanisms': 'PLAIN AMQPLAIN', 'locales': 'en_US', **start}
        self.say(commands.Connection.Start(**fields))
        return self.expect(commands.Connection.StartOk)

    def tune(self, channel_max: int = 2047, frame_max: int = 131072, heartbeat: int = 0) -> Any:
        self.say(commands.Connection.Tune(channel_max, frame_max, heartbeat))
        return self.expect(commands.Connection.TuneOk)

    def accept(self, **tune: int) -> None:
        """The whole handshake."""
        self.greet()
        self.tune(**tune)
        self.expect(commands.Connection.Open)
        self.say(commands.Connection.OpenOk())

    def accept_channel(self, number: int = 1) -> None:
        self.expect(commands.Channel.Open)
        self.say(commands.Channel.OpenOk(), number)


class ScriptedBroker:
    """Runs a script for each client that connects; leaving the `with` block raises what a script has raised.

    :param script: called with the `Peer`; the socket is closed after it.
    """

    host = HOST

    def __init__(self, script: Callable[[Peer], object]) -> None:
        self._script = script
        self._running: list[gevent.Greenlet] = []
        self._server = StreamServer((HOST, 0), self._serve)
        self._errors: list[BaseException] = []
        self._result: AsyncResult[Any] = AsyncResult()

    def __enter__(self) -> ScriptedBroker:
        self._server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.stop()
        gevent.killall(self._running)
        if kind is None and self._errors:
            raise self._errors[0]

    @property
    def port(self) -> int:
        return self._server.server_port

    def connect(self, **options: Any) -> Connection:
        return Connection(**{'host': HOST, 'port': self.port, 'heartbeat': 0, 'connect_timeout': 5, **options})

    def result(self, limit: float = READ_LIMIT) -> Any:
        """What the first script to end has returned; waits for it."""
        return self._result.get(timeout=limit)

    def _serve(self, sock: socket.socket, _: object) -> None:
        self._running.append(gevent.getcurrent())
        try:
            self._result.set(self._script(Peer(sock)))
        except HungUp:
            pass
        except Exception as error:
            self._errors.append(error)
            self._result.set_exception(error)
        finally:
            sock.close()
