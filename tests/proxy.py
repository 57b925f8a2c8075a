"""A TCP proxy whose connections can be broken: delayed, slowed down, bytes of a direction lost, reset, cut, refused.

It knows bytes and sockets, and nothing of AMQP.
"""

import struct

import gevent
from gevent import socket
from gevent.server import StreamServer

from tests.rabbitmq import HOST, free_ports

TO_BROKER = 'to broker'
FROM_BROKER = 'from broker'

# Bytes that a slow link carries at once.
SLOW_PIECE = 1024

# On, with no time to linger: closing sends a reset instead of an orderly end.
RESET_ON_CLOSE = struct.pack('ii', 1, 0)


class Proxy:
    """Relays connections to a port of this machine, from its construction to `close()`.

    :param target: the port to relay to.
    :ivar port: the port to connect to.
    :ivar accepted: how many connections have come so far.
    :ivar delay: seconds by which all bytes are held up, either way.
    :ivar rate: bytes a second that each connection takes, either way; None: as many as there are.
    :ivar relayed: bytes that have gone so far, either way and over all connections.
    :ivar cut_at: the number of such bytes after which the connection that carries them is reset, in the middle of
        whatever it is; once, it is None again then.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.accepted = 0
        self.delay = 0.0
        self.rate: float | None = None
        self.relayed = 0
        self.cut_at: int | None = None
        [self.port] = free_ports(1)
        self._links: set[Link] = set()
        self._server: StreamServer | None = None
        self.admit()

    def __enter__(self) -> 'Proxy':
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        return f'amqp://guest:guest@{HOST}:{self.port}/'

    @property
    def open_links(self) -> int:
        """How many connections there are now."""
        return len(self._links)

    def admit(self) -> None:
        """Let connections in."""
        if self._server is None:
            self._server = StreamServer((HOST, self.port), self._relay)
            self._server.start()

    def refuse(self) -> None:
        """Let no more connections in; those that are there stay."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def drop(self, *directions: str) -> None:
        """Lose all that goes in these directions, the end of a connection included, of the connections that there are
        now."""
        for link in self._links:
            link.dropped.update(directions)
            link.hidden.update(directions)

    def reset_towards_client(self) -> None:
        """End the connections that there are now for the client only: the broker goes on believing in them."""
        for link in list(self._links):
            link.hidden.add(TO_BROKER)
            link.reset_inside()

    def inject(self, data: bytes) -> None:
        """Have the broker say something more, on the connections that there are now."""
        for link in self._links:
            link.inject(data)

    def reset(self) -> None:
        """End the connections that there are now, as a router that forgot them would."""
        for link in list(self._links):
            link.reset()

    def close(self) -> None:
        self.refuse()
        self.reset()

    def _relay(self, inside: socket.socket, _: object) -> None:
        self.accepted += 1
        try:
            outside = socket.create_connection((HOST, self.target))
        except OSError:
            inside.close()
            return
        link = Link(self, inside, outside)
        self._links.add(link)
        try:
            link.run()
        finally:
            self._links.discard(link)


class Link:
    """One connection through the proxy."""

    def __init__(self, proxy: Proxy, inside: socket.socket, outside: socket.socket) -> None:
        # Directions in which bytes are lost, and those in which the news of the connection's end is.
        self.dropped: set[str] = set()
        self.hidden: set[str] = set()
        self._proxy = proxy
        self._sockets = (inside, outside)

    def run(self) -> None:
        """Relay until one side ends, and the other can see that."""
        inside, outside = self._sockets
        pumps = [
            gevent.spawn(self._pump, inside, outside, TO_BROKER, FROM_BROKER),
            gevent.spawn(self._pump, outside, inside, FROM_BROKER, TO_BROKER),
        ]
        try:
            for pump in gevent.iwait(pumps):
                if pump.value not in self.hidden:
                    break
        finally:
            gevent.killall(pumps)
            for each in self._sockets:
                each.close()

    def inject(self, data: bytes) -> None:
        self._sockets[0].sendall(data)

    def reset(self) -> None:
        for each in self._sockets:
            try:
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
                # Wakes the pumps, whose end closes the sockets.
                each.shutdown(socket.SHUT_RD)
            except OSError:
                pass

    def reset_inside(self) -> None:
        inside, _ = self._sockets
        inside.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        inside.close()

    def _pump(self, source: socket.socket, sink: socket.socket, direction: str, opposite: str) -> str:
        """Relay one direction until one side ends; gives the direction in which the news of that goes."""
        proxy = self._proxy
        while True:
            try:
                # A slow link has small buffers: what is read here is no longer the sender's to worry about.
                data = source.recv(65536 if proxy.rate is None else SLOW_PIECE)
            except OSError:
                return direction
            if not data:
                return direction
            while data:
                # What was read before the link became slow trickles as well.
                piece, data = (data, b'') if proxy.rate is None else (data[:SLOW_PIECE], data[SLOW_PIECE:])
                gevent.sleep(proxy.delay + (0 if proxy.rate is None else len(piece) / proxy.rate))
                if direction in self.dropped:
                    continue
                try:
                    self._send(sink, piece)
                except OSError:
                    if opposite not in self.hidden:
                        return opposite

    def _send(self, sink: socket.socket, data: bytes) -> None:
        proxy = self._proxy
        cut = proxy.cut_at is not None and proxy.cut_at <= proxy.relayed + len(data)
        if cut:
            data = data[: max(0, proxy.cut_at - proxy.relayed)]
            proxy.cut_at = None
        proxy.relayed += len(data)
        sink.sendall(data)
        if cut:
            self.reset()
