"""A connection: handshake, tune, heartbeat, blocked, close; and which channel a frame is for.

Knows one connection to one broker. Nothing is tried again here: `amphora.session` does that.

Source: AMQP 0-9-1 section 2.2.4 ("The connection class") and RabbitMQ's extensions of it.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from time import monotonic
from typing import TYPE_CHECKING, Any

import gevent
from gevent.event import AsyncResult, Event
from pamqp import base, commands

from amphora.amqp import frames, heartbeat
from amphora.amqp.channel import CLOSE_TIMEOUT, TELLING, Channel, CloseListener
from amphora.amqp.content import FRAME_MAX, MAX_MESSAGE_SIZE
from amphora.amqp.deliveries import read_delivery
from amphora.amqp.dialing import dial
from amphora.amqp.errors import (
    ChannelNumberError,
    Closed,
    CommandInvalid,
    ConnectionClosed,
    ConnectionFailed,
    FrameError,
    LoginRefused,
    NotAllowed,
    UnexpectedFrame,
    connection_error,
)
from amphora.amqp.gathered import Gathered
from amphora.amqp.handshake import agree, agree_heartbeat, describe_client, log_in
from amphora.amqp.listeners import tell
from amphora.amqp.options import connection_options
from amphora.amqp.peer_watch import PeerWatch
from amphora.amqp.transport import Transport
from amphora.amqp.url import AmqpUrl
from amphora.checks import check_host, check_integer, check_seconds
from amphora.errors import WrongThread
from amphora.forking import abandoned_at_fork
from amphora.logs import get_logger
from amphora.native_threads import at_thread_end, warn_elsewhere
from amphora.timing import Throttle

if TYPE_CHECKING:
    from ssl import SSLContext

logger = get_logger('amphora.amqp')

#: RabbitMQ's own proposal, and ours: the highest channel number
CHANNEL_MAX = 2047
#: unsent bytes above which publishers wait
HIGH_WATER = 1048576
# RabbitMQ does not care for frame_max where it passes on a message's properties: they come as large as their publisher
# could send them, with what RabbitMQ has added. Without this such a message would end connection after connection.
_HEADER_MAX = 262144
# What a number of bytes may be at most, and a number of seconds: both for ever.
_MOST_BYTES = 2**62
_MOST_SECONDS = 2**31


# Those of this process, for a child that it forks.
_connections: weakref.WeakSet[Connection] = abandoned_at_fork(lambda connection: connection.abandon())


def _text(value: Any) -> Any:
    return value.decode(errors='replace') if isinstance(value, bytes) else value


class Connection:
    """A connection to an AMQP 0-9-1 broker; made when constructed.

    :param host: name or address.
    :param port: TCP port; None: 5672, with TLS 5671.
    :param user: user name.
    :param password: its password; never shown anywhere.
    :param vhost: virtual host.
    :param ssl: None or False: plain TCP. True: TLS that verifies the chain against the system's authorities, and the
        host name. An `ssl.SSLContext`: TLS as it says.
    :param heartbeat: seconds; the peer is given up after two intervals of silence. 0: none; None: as the broker
        proposes. The broker is told two thirds of it, for it waits for up to three of what it is told.
    :param connect_timeout: seconds for everything until the connection is usable: name, TCP, TLS and handshake.
    :param client_properties: what to tell the broker of this client, beside and above what amphora tells.
    :param name: the connection's name in RabbitMQ's management pages and logs.
    :param auth_mechanisms: SASL mechanisms to use, in the order of preference: PLAIN, AMQPLAIN, EXTERNAL.
    :param frame_max: largest frame to negotiate, in bytes; 4096 to 4294967295.
    :param channel_max: highest channel number to negotiate; 1 to 65535.
    :param max_message_size: largest body to send or to accept, in bytes.
    :param high_water: unsent bytes above which `channel.basic.publish` waits.
    :param server_hostname: the name that the broker's certificate must be for; None: `host`.
    :param debug: log each method but the hot ones at DEBUG, to ``amphora.amqp``.
    :raises TypeError, ValueError: a number that makes no sense; the error says which.
    :raises ConnectionFailed: nobody there, TLS failed, or no sensible AMQP answer within `connect_timeout`.
    :raises CertificateRefused: the broker's certificate is not to be trusted.
    :raises LoginRefused: the broker does not accept user, password or mechanism.
    :raises NotAllowed: the virtual host does not exist, or the user may not enter it.

    :ivar close_listeners: called in the hub, each with the reason, once the connection has ended.
    :ivar blocked_listeners: called in the hub with the reason when the broker blocks publishing, with None when it
        unblocks (https://www.rabbitmq.com/docs/connection-blocked).
    :ivar drain_listeners: called in the hub when the transport is no longer congested.
    """

    def __init__(
        self,
        host: str = 'localhost',
        port: int | None = None,
        user: str = 'guest',
        password: str = 'guest',
        vhost: str = '/',
        *,
        ssl: bool | SSLContext | None = None,
        heartbeat: float | None = 10,
        connect_timeout: float = 10,
        client_properties: Mapping[str, Any] | None = None,
        name: str | None = None,
        auth_mechanisms: Sequence[str] = ('PLAIN', 'AMQPLAIN'),
        frame_max: int = FRAME_MAX,
        channel_max: int = CHANNEL_MAX,
        max_message_size: int = MAX_MESSAGE_SIZE,
        high_water: int = HIGH_WATER,
        server_hostname: str | None = None,
        debug: bool = False,
    ) -> None:
        check_host(host, 'host')
        check_integer(high_water, 'high_water', 0, _MOST_BYTES)
        check_seconds(connect_timeout, 'connect_timeout', _MOST_SECONDS)
        if isinstance(auth_mechanisms, str):
            raise TypeError('auth_mechanisms must be several names, such as [%r], not one text' % auth_mechanisms)
        if heartbeat is not None:
            check_seconds(heartbeat, 'heartbeat', 65535)
        if ssl is True:
            # Here: importing OpenSSL takes longer than all of amphora's own modules.
            from ssl import create_default_context

            ssl = create_default_context()
        self.host = host
        self.port = port if port is not None else 5671 if ssl else 5672
        self.user = user
        self.vhost = vhost
        self.name = name
        self.frame_max = check_integer(frame_max, 'frame_max', frames.FRAME_MIN_SIZE, 2**32 - 1)
        self.channel_max = check_integer(channel_max, 'channel_max', 1, 65535)
        self.max_message_size = check_integer(max_message_size, 'max_message_size', 0, _MOST_BYTES)
        self.heartbeat: float | None = heartbeat
        self.server_properties: dict[str, Any] = {}
        #: why the connection has ended; None while it is usable
        self.error: Exception | None = None
        #: why the broker has blocked publishing; None while it has not
        self.blocked: str | None = None
        self.close_listeners: list[CloseListener] = []
        self.blocked_listeners: list[Callable[[str | None], None]] = []
        self.drain_listeners: list[Callable[[], None]] = []
        self._connect_timeout = connect_timeout
        self._client_properties = client_properties or {}
        self._auth_mechanisms = [mechanism.upper() for mechanism in auth_mechanisms]
        self._debug = debug
        self._hub = gevent.get_hub()
        self._channels: dict[int, Channel] = {}
        # RabbitMQ may send deliveries that it had under way after it has closed their channel. So numbers of ended
        # channels are remembered, and are the last to be used again: a stray delivery must not meet a new channel's
        # consumer.
        self._retired: set[int] = set()
        self._splitter = frames.Splitter(take=self._take)
        self._writable = Event()
        self._writable.set()
        self._closing = False
        self._telling = Throttle(TELLING)
        self._told_blocked = False
        # The one answer channel 0 may be waiting for.
        self._expected: tuple[type[base.Frame], ...] = ()
        self._answer: AsyncResult[Any] = AsyncResult()
        self._watch: PeerWatch | None = None
        self._has_transport = False
        self._transport: Transport
        _connections.add(self)
        at_thread_end(self, Connection.finish)
        self._open(password, ssl or None, high_water, server_hostname or host)

    @classmethod
    def from_url(cls, url: str | AmqpUrl, **options: Any) -> Connection:
        """Connect as an AMQP URI says (https://www.rabbitmq.com/docs/uri-spec).

        :param url: such as ``amqps://user:password@host:5671/vhost?heartbeat=30``; see `amphora.amqp.url`.
        :param options: of the constructor; they are the later word.
        :raises ValueError: the URL cannot be understood.
        :raises OSError: a file that it names cannot be read.

        And what the constructor raises.
        """
        return cls(**{**connection_options(url), **options})

    def __repr__(self) -> str:
        state = '' if self.error is None else ' closed: %s' % self.error
        return '<Connection %s@%s:%d%s%s>' % (
            self.user,
            self.host,
            self.port,
            '' if self.vhost == '/' else ' ' + self.vhost,
            state,
        )

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- opening -------------------------------------------------------------------------------------------------------

    def _open(self, password: str, context: SSLContext | None, high_water: int, server_hostname: str) -> None:
        too_long = ConnectionFailed(
            'no AMQP connection to %s:%d within %g s' % (self.host, self.port, self._connect_timeout)
        )
        try:
            with gevent.Timeout(self._connect_timeout, too_long):
                self._transport = self._connect(context, high_water, server_hostname)
                self._has_transport = True
                self._transport.start()
                self._transport.write(frames.PROTOCOL_HEADER)
                self._handshake(password)
        except BaseException as error:
            # Also when killed, or timed out from outside: nobody else knows of this socket.
            if self._has_transport:
                self._end(error if isinstance(error, Exception) else ConnectionFailed('given up while connecting'))
            if isinstance(error, (OSError, UnicodeError)):  # IDNA says UnicodeError of a host name
                raise ConnectionFailed('cannot connect to %s:%d: %s' % (self.host, self.port, error)) from error
            raise

    def _connect(self, context: SSLContext | None, high_water: int, server_hostname: str) -> Transport:
        sock = dial(self.host, self.port, self._connect_timeout)
        try:
            callbacks = (self._received, self._lost, self._drained)
            if context is None:
                return Transport(sock, *callbacks, high_water=high_water)
            # Here, as above: it takes OpenSSL.
            from amphora.amqp.tls import TlsEngine, TlsTransport

            tls = TlsEngine(context, server_hostname)
            tls.handshake(sock, '%s:%d' % (self.host, self.port))
            return TlsTransport(sock, tls, *callbacks, high_water=high_water)
        finally:
            sock.close()  # the transport has taken the descriptor over; closes it when there is no transport

    def _handshake(self, password: str) -> None:
        try:
            start = self._wait_for(commands.Connection.Start)
        except Closed as error:
            raise ConnectionFailed(
                '%s:%d is no AMQP 0-9-1 broker, or wants TLS: %s' % (self.host, self.port, error)
            ) from error
        if (start.version_major, start.version_minor) != (0, 9):
            raise ConnectionFailed(
                'the broker speaks AMQP %d-%d, not 0-9-1' % (start.version_major, start.version_minor)
            )
        self.server_properties = {name: _text(value) for name, value in start.server_properties.items()}
        offered = start.mechanisms.decode(errors='replace').split()
        mechanism, response = log_in(self._auth_mechanisms, offered, self.user, password)
        self._expect(commands.Connection.Tune, commands.Connection.Secure)
        self.log_method('>', 0, commands.Connection.StartOk)
        start_ok = frames.encode_method(
            0,
            commands.Connection.StartOk,
            client_properties=describe_client(self.name, self._client_properties),
            mechanism=mechanism,
            response=response,
            locale='en_US',
        )
        self.write(start_ok)
        try:
            tune = self._answer.get()
        except ConnectionFailed as error:
            if self.error is not None and len(start_ok) > frames.FRAME_MIN_SIZE:
                # RabbitMQ 4.1 takes twice as much, for tokens in place of passwords; before, it hangs up.
                raise ConnectionFailed(
                    '%s; most likely because login and client properties take %d bytes, and a broker need not take '
                    'more than %d at this point' % (error, len(start_ok), frames.FRAME_MIN_SIZE)
                ) from error
            # Our own timeout, with the socket still there; or a fault of the network: this broker would have said that
            # it refuses the login (https://www.rabbitmq.com/docs/auth-notification). An older one just hangs up.
            if self.error is None or self._can('authentication_failure_close'):
                raise
            raise LoginRefused(
                'the broker hung up during login, most likely because it refuses the user or password'
            ) from error
        if isinstance(tune, commands.Connection.Secure):
            raise LoginRefused('the broker asks for another round of %s, which has none' % mechanism)
        self._tune(tune)
        self._expect(commands.Connection.OpenOk)
        self._say(commands.Connection.Open, virtual_host=self.vhost)
        self._answer.get()

    def _can(self, capability: str) -> bool:
        capabilities = self.server_properties.get('capabilities')
        return isinstance(capabilities, dict) and capabilities.get(capability) is True

    def _tune(self, tune: Any) -> None:
        if self.error is not None:
            # What came together with it has ended the connection: nothing must be started that nobody would stop.
            raise self.error.with_traceback(None)
        if tune.frame_max and tune.frame_max < frames.FRAME_MIN_SIZE:
            raise self._refuse(
                NotAllowed('the broker wants frames of at most %d bytes; AMQP demands 4096' % tune.frame_max)
            )
        self.frame_max = agree(self.frame_max, tune.frame_max)
        self.channel_max = agree(self.channel_max, tune.channel_max)
        self.heartbeat = agree_heartbeat(self.heartbeat, tune.heartbeat)
        self._numbers = cycle(range(1, self.channel_max + 1))
        # RabbitMQ looks once an interval whether something came, and hangs up when nothing has twice: three intervals
        # after the last bytes at worst. It is told a shorter one, so that it, too, gives this side up after two of
        # ours: until then it would send a client that has come back half of its replies on the connection that is lost.
        # The wire knows whole seconds.
        told = max(1, int(self.heartbeat * 2 / 3)) if self.heartbeat else 0
        self._splitter.frame_max = self.frame_max
        self._splitter.header_max = _HEADER_MAX
        self._say(commands.Connection.TuneOk, channel_max=self.channel_max, frame_max=self.frame_max, heartbeat=told)
        if self.heartbeat:
            heartbeat.sender.add(self._transport, self.heartbeat)
            self._watch = PeerWatch(self._transport, self._splitter, self.heartbeat, self._end)

    def _expect(self, *methods: type[base.Frame]) -> None:
        self._expected = methods
        self._answer = AsyncResult()
        if self.error is not None:
            self._answer.set_exception(self.error)

    def _wait_for(self, *methods: type[base.Frame]) -> Any:
        self._expect(*methods)
        return self._answer.get()

    # -- everyday life -------------------------------------------------------------------------------------------------

    @property
    def closed(self) -> bool:
        """Whether the connection has ended."""
        return self.error is not None

    def channel(self) -> Channel:
        """Open a channel.

        :raises Closed: the connection has ended.
        :raises ConnectionFailed: all channels that were agreed on are in use.
        """
        self.check_thread()
        if self.error is not None:
            raise self.error.with_traceback(None)
        if len(self._channels) >= self.channel_max:
            raise ConnectionFailed(
                'all %d channels of this connection are open: close one, or raise channel_max' % self.channel_max
            )
        number = next(number for number in self._numbers if number not in self._channels)
        self._retired.discard(number)
        channel = self._channels[number] = Channel(self, number, self.max_message_size)
        try:
            channel.call(commands.Channel.Open, commands.Channel.OpenOk)
        except BaseException:
            channel.abandon()
            raise
        return channel

    @property
    def congested(self) -> bool:
        """Whether more is unsent than the high-water mark; `drain_listeners` hear when it is at most half of that."""
        return self._transport.is_congested()

    def takes_messages(self) -> bool:
        """Whether a message may be written now: the broker has not said stop, and not too much is unsent."""
        return self.blocked is None and not self._transport.is_congested()

    @property
    def unsent(self) -> int:
        """Bytes that were written and that the socket has not taken yet."""
        return self._transport.unsent

    def write(self, data: bytes | Gathered) -> None:
        """Send whole frames; never blocks."""
        self._transport.write(data)

    def wait_writable(self, channel: Channel) -> None:
        """Block while publishing has to wait: too much is unsent, or the broker has said stop.

        :raises Closed: when the channel ends meanwhile.
        """
        self.check_thread()
        while not channel.closed:
            if not self.takes_messages():
                self._writable.clear()
                self._writable.wait()
            elif not channel.flowing.is_set():
                channel.flowing.wait()
            else:
                return
        channel.check_open()

    def check_thread(self) -> None:
        """Raise `WrongThread` when called from a thread whose hub is not this connection's."""
        if gevent.get_hub() is not self._hub:
            raise WrongThread('%r belongs to another thread; open a connection in this one' % self)

    def log_method(self, direction: str, channel: int, method: type[base.Frame]) -> None:
        """Log a method, when asked to."""
        if self._debug:
            logger.debug('%s:%d %s %d %s', self.host, self.port, direction, channel, method.name)

    def forget(self, channel: Channel, answered: bool = True) -> None:
        """A channel has ended; its number will be free again, once the broker has said so."""
        if self._channels.get(channel.id) is channel:
            self._writable.set()  # whoever waits to publish on it waits in vain
            if answered:
                del self._channels[channel.id]
                self._retired.add(channel.id)

    # -- in the hub: nothing below may block ---------------------------------------------------------------------------

    def _received(self, data: bytes) -> None:
        channels = self._channels
        try:
            for kind, number, payload in self._splitter.feed(data):
                if number:
                    channel = channels.get(number)
                    if channel is not None:
                        channel.handle(kind, payload)
                    else:
                        self._check_retired(number)
                elif kind == frames.METHOD:
                    self._on_method(frames.decode_method(payload))
                elif kind != frames.HEARTBEAT:
                    raise UnexpectedFrame('a frame of type %d on channel 0' % kind)
                if self.error is not None:
                    return
        except Closed as error:
            # What follows a message that somebody has ended the connection for is of no interest.
            if self.error is None:
                self._refuse(error)

    def _take(self, data: bytes, at: int, frame_max: int) -> int:
        """Take what most of the bytes are, deliveries and confirms, without a look at their frames."""
        if self.error is not None:
            return len(data)  # of no interest any more: the one before has ended the connection, or forked
        delivery = read_delivery(data, at, frame_max)
        if delivery is None:
            return self._take_confirm(data, at)
        stop, number = delivery[0], delivery[1]
        channel: Channel | None = self._channels.get(number)
        if channel is not None:
            channel.handle_delivery(delivery)
        else:
            self._check_retired(number)
        return stop

    def _take_confirm(self, data: bytes, at: int) -> int:
        ack = frames.read_ack(data, at)
        if ack is None:
            return 0
        stop, number, delivery_tag, bits = ack
        channel: Channel | None = self._channels.get(number)
        if channel is None:
            return 0
        channel.settle(delivery_tag, bits, True)
        return stop

    def _check_retired(self, number: int) -> None:
        if number not in self._retired:
            raise ChannelNumberError('a frame for channel %d, which is not open' % number)

    def _on_method(self, method: Any) -> None:
        kind = type(method)
        self.log_method('<', 0, kind)
        if kind is commands.Connection.Close:
            self._say(commands.Connection.CloseOk)
            self._end(connection_error(method.reply_code, method.reply_text, method.class_id, method.method_id))
        elif kind is commands.Connection.Blocked:
            if self.blocked is None and self._telling.admits(monotonic()):
                self._told_blocked = True
                logger.warning('%r: the broker blocks publishing: %s', self, method.reason)
            self._set_blocked(method.reason)
        elif kind is commands.Connection.Unblocked:
            if self._told_blocked:
                self._told_blocked = False
                logger.info('%r: the broker takes messages again', self)
            self._set_blocked(None)
        elif isinstance(method, self._expected):
            self._expected = ()
            self._answer.set(method)
        else:
            raise CommandInvalid('%s, which was not expected now' % method.name)

    def _set_blocked(self, reason: str | None) -> None:
        self.blocked = reason
        if reason is None:
            self._writable.set()
        tell(self.blocked_listeners, reason)

    def _drained(self) -> None:
        self._writable.set()
        tell(self.drain_listeners)

    def _lost(self, error: Exception) -> None:
        text = 'the connection to %s:%d was lost: %s' % (self.host, self.port, error)
        if self._closing:
            self._end(ConnectionClosed('the connection was closed by this side'))
        elif self._expected:
            self._end(ConnectionFailed(text))
        else:
            self._end(ConnectionClosed(text))

    def _refuse(self, error: Closed) -> Closed:
        """The broker broke the protocol: tell it so, and end."""
        if self._expected == (commands.Connection.Start,):
            # This is nobody who speaks AMQP. Whoever connects is told, again and again while it goes on.
            self._end(error)
            return error
        logger.error('%r: protocol error: %s', self, error)
        self._say(
            commands.Connection.Close,
            reply_code=error.code or FrameError.code,
            reply_text=error.text[:200],
            class_id=error.class_id,
            method_id=error.method_id,
        )
        self._end(error)
        return error

    def _say(self, method: type[base.Frame], **fields: Any) -> None:
        self.log_method('>', 0, method)
        self._transport.write(frames.encode_method(0, method, **fields))

    # -- the end -------------------------------------------------------------------------------------------------------

    def close(self, timeout: float = CLOSE_TIMEOUT) -> None:
        """Close the connection and wait for the broker's answer, but not for long; nothing happens when it has ended
        already.

        :param timeout: seconds to wait for the answer.
        """
        if self.error is not None:
            return
        self.check_thread()
        if not self._closing:  # otherwise another greenlet waits for the same answer
            for channel in self._channels.values():
                channel.acks.flush()
            self._closing = True
            self._expect(commands.Connection.CloseOk)
            self._say(commands.Connection.Close, reply_code=200, reply_text='goodbye')
        self._answer.wait(timeout)
        self._end(ConnectionClosed('the connection was closed by this side'))

    def abandon(self) -> None:
        """In a forked child: this connection is the parent's. Nobody is told: who waits for it is the parent's, too."""
        if self.error is None:
            self.error = ConnectionClosed('the connection was made before this process was forked')
            if self._watch is not None:
                self._watch.close()
            if self._has_transport:
                self._transport.abandon()

    def finish(self) -> None:
        """At the end of the thread that made it: nobody uses it any more, and the broker is to know."""
        if self.error is None and self._has_transport:
            self.error = ConnectionClosed('the thread that made the connection has ended')
            heartbeat.sender.remove(self._transport)
            self._transport.finish(
                frames.encode_method(0, commands.Connection.Close, reply_code=200, reply_text='goodbye'),
                frames.encode_method(0, commands.Connection.CloseOk),
                CLOSE_TIMEOUT,
            )
            warn_elsewhere(logger, '%r; what is started in a thread is to be stopped there before it ends' % self)

    def _end(self, error: Exception) -> None:
        if self.error is not None:
            return
        self.error = error
        self._transport.flush()
        heartbeat.sender.remove(self._transport)
        self._transport.close()
        if self._watch is not None:
            self._watch.close()
        self._writable.set()
        if self._expected:
            self._expected = ()
            self._answer.set_exception(error)
        for channel in list(self._channels.values()):
            channel.end(error)
        tell(self.close_listeners, error)
