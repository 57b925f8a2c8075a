"""The broker: listens, accepts, keeps the virtual hosts, and has levers for tests of what may go wrong.

What one client says is `amphora.broker.connection`'s business.
"""

from __future__ import annotations

import logging
import platform
import socket as stdlib_socket
from collections.abc import Iterable, Mapping
from time import monotonic
from typing import Any, NamedTuple
from urllib.parse import quote

import gevent
from gevent import socket
from gevent.server import StreamServer

from amphora.amqp.errors import ConnectionForced
from amphora.amqp.version import own_version
from amphora.broker.clock import Clock
from amphora.broker.connection import Connection
from amphora.broker.limits import Limits
from amphora.broker.login import check_users
from amphora.broker.meter import Allowance, Meter
from amphora.broker.vhost import VirtualHost
from amphora.checks import check_integer, check_seconds

logger = logging.getLogger('amphora.broker')

# Sockets beyond the limit of connections: those that are still to say who they are.
_HANDSHAKING = 64
_BACKLOG = 1024
# The longest `delay`, in seconds: a day.
_MAX_DELAY = 86400
# How often `stop` looks whether the clients have gone, in seconds.
_POLL = 0.005
# What clients look for before they use an extension (https://www.rabbitmq.com/docs/connections#capabilities).
_CAPABILITIES = dict.fromkeys(
    (
        'publisher_confirms',
        'exchange_exchange_bindings',
        'basic.nack',
        'consumer_cancel_notify',
        'connection.blocked',
        'consumer_priorities',
        'authentication_failure_close',
        'per_consumer_qos',
        'direct_reply_to',
    ),
    True,
)


class QueueCounts(NamedTuple):
    """What a queue has.

    :ivar messages: ready and unacked together.
    :ivar unacked: those that a consumer has and has not acked.
    :ivar consumers: how many there are.
    """

    messages: int
    unacked: int
    consumers: int


class Broker:
    """An AMQP 0-9-1 broker in this process, as RabbitMQ is one on a machine.

    Keeps everything in memory: durable queues and persistent messages live as long as the object does, also while it is
    stopped. Everything runs in the hub of the thread that starts it::

        with Broker() as broker:
            client = AmqpRpcClient('simplemath', amqp_url=broker.url)

    :param host: address to listen on.
    :param port: TCP port; 0: one that is free.
    :param users: name -> password. The user guest may come from this machine only.
    :param vhosts: names of the virtual hosts; every user may do everything in each.
    :param limits: see `amphora.broker.limits.Limits`.
    :raises TypeError: an option is of the wrong type.
    :raises ValueError: the port is not from 0 to 65535.
    """

    def __init__(
        self,
        host: str = '127.0.0.1',
        port: int = 0,
        users: Mapping[str, str] | None = None,
        vhosts: Iterable[str] = ('/',),
        limits: Limits | None = None,
    ) -> None:
        if isinstance(vhosts, str):
            raise TypeError('vhosts must be several names, not the text %r' % vhosts)
        self.host = host
        self.port = check_integer(port, 'port', 0, 65535)
        self.users = check_users(users) if users is not None else {'guest': 'guest'}
        self.limits = limits or Limits()
        self.meter = Meter(self.limits.memory, self._on_memory)
        self.allowance = Allowance(self.limits.memory)
        self._clock: Clock | None = None
        self.vhosts = {name: VirtualHost(name, self.meter, self._watch) for name in vhosts}
        #: why publishers are blocked; None while they are not
        self.alarm: str | None = None
        #: seconds by which everything that clients say is held back
        self.delay_seconds = 0.0
        self._alarms: dict[str, str] = {}
        self._connections: dict[Connection, None] = {}
        self._server: StreamServer | None = None
        self.server_properties = _describe()

    def __repr__(self) -> str:
        return '<Broker %s:%d %d connections>' % (self.host, self.port, len(self._connections))

    def __enter__(self) -> Broker:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # -- life ----------------------------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """Where clients find it: as the first of its users, in the first of its virtual hosts."""
        return self.url_of(next(iter(self.vhosts), '/'))

    def url_of(self, vhost: str) -> str:
        """The URL of a virtual host."""
        user, password = next(iter(self.users.items()), ('guest', 'guest'))
        host = '[%s]' % self.host if ':' in self.host else self.host
        # By the letter of the URI's definition an empty path is a virtual host named ''; clients read the default one.
        path = '' if vhost == '/' else quote(vhost, safe='')
        return 'amqp://%s:%s@%s:%d/%s' % (quote(user, safe=''), quote(password, safe=''), host, self.port, path)

    def start(self) -> None:
        """Listen.

        :raises OSError: the address or port cannot be had.
        """
        if self._clock is None:
            self._clock = Clock()
            for vhost in self.vhosts.values():
                vhost.watch_all()
        self.accept()
        logger.info('%r: in memory, for one machine; nothing is kept on disk', self)

    def stop(self, timeout: float = 1.0) -> None:
        """Close every connection as a RabbitMQ that shuts down does, and listen no more. What was queued is still there
        after another `start`.

        :param timeout: seconds to wait for the clients' answers.
        """
        self.refuse()
        for connection in list(self._connections):
            connection.close(ConnectionForced("broker forced connection closure with reason 'shutdown'"))
        deadline = monotonic() + timeout
        while self._connections and monotonic() < deadline:
            gevent.sleep(_POLL)
        self.drop_connections()
        if self._clock is not None:
            self._clock.close()
            self._clock = None

    @property
    def running_connections(self) -> int:
        """Connections whose handshake is over."""
        return sum(connection.is_running for connection in self._connections)

    def _accepted(self, sock: Any, peer: Any) -> None:
        """In the hub: a client has come."""
        if len(self._connections) >= self.limits.connections + _HANDSHAKING:
            logger.warning('%r: %s is turned away: too many connections', self, peer)
            sock.close()
            return
        if sock.family in (stdlib_socket.AF_INET, stdlib_socket.AF_INET6):
            sock.setsockopt(stdlib_socket.IPPROTO_TCP, stdlib_socket.TCP_NODELAY, 1)
        self._connections[Connection(self, sock, peer)] = None

    def forget(self, connection: Connection) -> None:
        """A connection has ended."""
        self._connections.pop(connection, None)

    def _watch(self, vhost: VirtualHost, queue: Any, at: float) -> None:
        if self._clock is not None:
            self._clock.watch(vhost, queue, at)

    def _on_memory(self, over: bool) -> None:
        self._set_alarm('memory', 'low on memory' if over else None)

    def _set_alarm(self, name: str, reason: str | None) -> None:
        if reason is None:
            self._alarms.pop(name, None)
        else:
            self._alarms[name] = reason
        before, self.alarm = self.alarm, next(iter(self._alarms.values()), None)
        if (before is None) != (self.alarm is None):
            logger.log(
                logging.INFO if self.alarm is None else logging.WARNING,
                '%r: publishers are %s',
                self,
                'blocked: %s' % self.alarm if self.alarm else 'free again',
            )
            if self.alarm is None:
                for connection in list(self._connections):
                    connection.alarm_is_over()

    # -- looking in, and levers ----------------------------------------------------------------------------------------

    def queues(self, vhost: str = '/') -> dict[str, QueueCounts]:
        """Each queue's name, with its messages (ready and unacked together), those of them that are unacked, and its
        consumers.

        :raises KeyError: there is no such virtual host.
        """
        return {
            name: QueueCounts(queue.ready + queue.unacked, queue.unacked, len(queue.consumers))
            for name, queue in self.vhosts[vhost].queues.items()
        }

    def delete_queue(self, name: str, vhost: str = '/') -> None:
        """Delete a queue, whoever has it; its consumers are told.

        :raises KeyError: there is none.
        """
        host = self.vhosts[vhost]
        host.remove_queue(host.queues[name])

    def drop_connections(self) -> None:
        """Hang up on every client without a word, as a network that fails does. They may come back at once."""
        for connection in list(self._connections):
            connection.drop()

    def refuse(self) -> None:
        """Listen no more: who connects is refused. Connections that there are go on."""
        if self._server is not None:
            self._server.stop(0)
            self._server = None

    def accept(self) -> None:
        """Listen again after `refuse`, on the same port."""
        if self._server is not None:
            return
        family = stdlib_socket.AF_INET6 if ':' in self.host else stdlib_socket.AF_INET
        listener = socket.socket(family, stdlib_socket.SOCK_STREAM)
        try:
            listener.setsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_REUSEADDR, 1)
            listener.bind((self.host, self.port))
            listener.listen(_BACKLOG)
        except OSError:
            listener.close()
            raise
        self.port = listener.getsockname()[1]
        # Without a greenlet for each: accepting does not block.
        self._server = StreamServer(listener, self._accepted, spawn=None)
        self._server.start()

    def block(self, reason: str = 'low on memory') -> None:
        """Block publishers, as a lack of memory would: each when it next publishes.

        :param reason: what clients are told.
        """
        self._set_alarm('operator', reason)

    def unblock(self) -> None:
        """Undo `block`."""
        self._set_alarm('operator', None)

    def delay(self, seconds: float) -> None:
        """Hold back what clients say by so many seconds, as a slow network would; 0: no more.

        :raises TypeError: that is no number.
        :raises ValueError: it is negative, or more than a day.
        """
        self.delay_seconds = check_seconds(seconds, 'seconds', _MAX_DELAY)


def _describe() -> dict[str, Any]:
    return {
        'capabilities': _CAPABILITIES,
        'cluster_name': 'amphora@localhost',
        'information': 'Licensed under the BSD-3-Clause license.',
        'platform': 'Python %s, gevent %s' % (platform.python_version(), gevent.__version__),
        'product': 'amphora',
        'version': own_version(),
    }
