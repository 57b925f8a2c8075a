"""Real bytes of a real session: recorded between amphora and a broker, and said again by a broker of straw."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import gevent
from gevent import socket
from gevent.event import Event
from gevent.server import StreamServer

from amphora.amqp import Channel, Connection, Message, PublishReturned
from tests.amqp.scripted import HungUp, Peer
from tests.rabbitmq import HOST

#: small, so that a body of some kilobytes is several frames
FRAME_MAX = 4096
#: seconds that a session may take; one that is played back mutated ends with its socket long before
LIMIT = 5

_PROPERTIES = {
    'content_type': 'text/plain',
    'content_encoding': 'utf-8',
    'delivery_mode': 2,
    'priority': 3,
    'correlation_id': 'correlated',
    'reply_to': 'somewhere',
    'expiration': '60000',
    'message_id': 'the first',
    'timestamp': 1_700_000_000,
    'type': 'letter',
    'user_id': 'guest',
    'app_id': 'tests',
    'headers': {'text': 'é', 'list': [1, -300, 70_000, 2**40, 2.5, None, True, b'\xff'], 'table': {'a': {'b': 'c'}}},
}


class Turn(NamedTuple):
    """So many frames of the client, the protocol header being one; then the broker's bytes."""

    frames: int
    answer: bytes


class Recording(NamedTuple):
    """A session.

    :ivar client: all that the client said.
    :ivar broker: all that the broker said.
    :ivar turns: who waited for whom.
    :ivar outcome: what `talk` gave.
    """

    client: bytes
    broker: bytes
    turns: list[Turn]
    outcome: list[Any]


def record(port: int) -> Recording:
    """Record a session with the broker at this port."""
    said: list[tuple[str, bytes]] = []

    def relay(inside: socket.socket, _: object) -> None:
        with socket.create_connection((HOST, port)) as outside, inside:
            pumps = [gevent.spawn(pump, inside, outside, 'client'), gevent.spawn(pump, outside, inside, 'broker')]
            gevent.wait(pumps, count=1)
            gevent.killall(pumps)

    def pump(source: socket.socket, sink: socket.socket, who: str) -> None:
        try:
            while data := source.recv(65536):
                said.append((who, data))
                sink.sendall(data)
        except OSError:
            return

    server = StreamServer((HOST, 0), relay)
    server.start()
    try:
        with gevent.Timeout(LIMIT):
            outcome = talk(server.server_port)
    finally:
        server.stop()
    client, broker = (b''.join(data for each, data in said if each == who) for who in ('client', 'broker'))
    return Recording(client, broker, _turns(said), outcome)


def _turns(said: list[tuple[str, bytes]]) -> list[Turn]:
    turns: list[Turn] = []
    asked = 0
    rest = b''
    for who, data in said:
        if who == 'client':
            rest += data
            while (size := _first_frame(rest)) <= len(rest):
                rest = rest[size:]
                asked += 1
        elif asked or not turns:
            turns.append(Turn(asked, data))
            asked = 0
        else:
            turns[-1] = Turn(turns[-1].frames, turns[-1].answer + data)
    return turns


def _first_frame(data: bytes) -> int:
    if data.startswith(b'AMQP'):
        return 8
    return 8 + int.from_bytes(data[3:7], 'big') if len(data) >= 7 else 8


def talk(port: int) -> list[Any]:
    """Everything that a connection is used for, one thing after the other, and what came back.

    :raises AmqpError: the broker does not play along.
    """
    with Connection(HOST, port, heartbeat=0, frame_max=FRAME_MAX, connect_timeout=LIMIT) as connection:
        came = Event()
        connection.close_listeners.append(lambda error: came.set())
        channel = connection.channel()
        channel.exchange.declare('recorded', 'topic', auto_delete=True)
        outcome: list[Any] = [channel.queue.declare('recorded', exclusive=True, arguments={'x-max-length': 10})]
        channel.queue.bind('recorded', 'recorded', 'a.#', arguments={'x': 1})
        channel.confirm.select()
        channel.basic.publish(Message(b'first', **_PROPERTIES), 'recorded', 'a.b', mandatory=True, wait=True)
        channel.basic.publish(Message(b'x' * 10_000), '', 'recorded', wait=True)
        outcome.append(_returned(channel))
        outcome += [_shown(channel.basic.get('recorded')), channel.queue.declare('recorded', passive=True)]
        got: list[Message] = []

        def take(message: Message) -> None:
            got.append(message)
            came.set()

        channel.basic.qos(prefetch_count=1)
        tag = channel.basic.consume('recorded', take, consumer_tag='reader', direct=True)
        came.wait()
        channel.check_open()
        # One at a time, so that turns are taken.
        channel.basic.reject(got[0].delivery_info.delivery_tag, requeue=False)
        channel.basic.cancel(tag)
        channel.basic.ack(0, multiple=True)
        outcome += [_shown(got[0]), channel.basic.get('recorded'), channel.queue.purge('recorded')]
        channel.queue.delete('recorded')
        other = connection.channel()
        other.tx.select()
        other.close()
        return outcome


def _returned(channel: Channel) -> tuple[Any, ...]:
    returned: list[Message] = []
    channel.return_listeners.append(returned.append)
    try:
        channel.basic.publish(Message(b'nobody'), 'recorded', 'nowhere', mandatory=True, wait=True)
    except PublishReturned:
        pass
    return tuple((_shown(each), repr(each.return_info)) for each in returned)


def _shown(message: Message | None) -> Any:
    return None if message is None else (message.body, message.properties, repr(message.delivery_info))


class Straw:
    """A broker that says what it is told to, turn by turn, to each client; then it hangs up."""

    def __init__(self) -> None:
        self.turns: list[Turn] = []
        #: sizes of the pieces that it says each turn in; the rest of it is the last
        self.pieces: list[int] = []
        self._server = StreamServer((HOST, 0), self._serve)

    @property
    def port(self) -> int:
        return self._server.server_port

    @contextmanager
    def listening(self) -> Iterator[Straw]:
        self._server.start()
        try:
            yield self
        finally:
            self._server.stop()

    def _serve(self, sock: socket.socket, _: object) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peer, header = Peer(sock), True
        try:
            for turn in self.turns:
                for _ in range(turn.frames):
                    if header:
                        peer.read_exactly(8)
                        header = False
                    else:
                        peer.read_raw()
                self._say(peer, turn.answer)
            sock.shutdown(socket.SHUT_WR)
            peer.last_words_raw()
        except (HungUp, OSError):
            pass
        finally:
            sock.close()

    def _say(self, peer: Peer, data: bytes) -> None:
        for size in self.pieces:
            if not data:
                return
            peer.send(data[:size])
            gevent.sleep(0)
            data = data[size:]
        peer.send(data)
