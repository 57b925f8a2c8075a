"""A client's connection: handshake, tune, heartbeat, blocking, close; and which channel a frame is for.

Everything runs in gevent's hub, in the callback that received the bytes, and nothing blocks: a piece of the stream is
taken apart, each frame has its effect on queues and on other connections' writers, and the confirms it earned leave
together at its end.

Source: AMQP 0-9-1 section 2.2.4 ("The connection class") and RabbitMQ's extensions of it.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator
from enum import Enum
from itertools import chain
from time import monotonic
from typing import TYPE_CHECKING, Any

import gevent
from pamqp import base, commands

from amphora.amqp import frames, heartbeat
from amphora.amqp.errors import (
    ChannelClosed,
    ChannelNumberError,
    Closed,
    CommandInvalid,
    FrameError,
    InternalError,
    LoginRefused,
    NotAllowed,
    UnexpectedFrame,
)
from amphora.amqp.gathered import Gathered
from amphora.amqp.transport import Transport
from amphora.broker.channel import Channel
from amphora.broker.consumer import Gate
from amphora.broker.handshake import Handshake
from amphora.broker.wire import reply_text

if TYPE_CHECKING:
    from amphora.broker.server import Broker
    from amphora.broker.vhost import VirtualHost

logger = logging.getLogger('amphora.broker')

#: unsent bytes above which a connection's consumers get nothing more
HIGH_WATER = 1048576
# Unsent bytes above which the connection is not even read: it asks and does not listen.
_DEAF = 16777216
#: seconds that a client has to answer connection.close
CLOSE_TIMEOUT = 10.0


# Older clients, such as aioamqp, greet with the header of 0-9 and go on with 0-9-1: RabbitMQ takes it for that, too.
_GREETINGS = (frames.PROTOCOL_HEADER, b'AMQP\x01\x01\x00\x09')


class State(Enum):
    """Where a connection is; its value says what is waited for."""

    HEADER = 'the protocol header'
    HANDSHAKE = 'the end of the handshake'
    RUNNING = 'anything'
    CLOSING = 'connection.close-ok'
    ENDED = 'nothing'


class Connection:
    """A connection that a client has made.

    :param broker: whose clients' connection it is.
    :param sock: the accepted gevent socket.
    :param peer: the client's address.
    """

    def __init__(self, broker: Broker, sock: Any, peer: tuple[str, int]) -> None:
        self.broker = broker
        self.limits = broker.limits
        self.peer = peer
        self.frame_max = self.limits.frame_max
        self.gate = Gate()
        self.vhost: VirtualHost
        self._state = State.HEADER
        self._greeting = b''
        self._handshake = Handshake(broker, peer[0], self.say)
        self._channels: dict[int, Channel] = {}
        self._splitter = frames.Splitter()
        # The frames that came last, and whether some of them are still to be handled.
        self._arrived: Iterator[frames.Frame] = iter(())
        self._unfinished = False
        self._garbled = False
        self._unflushed: dict[Channel, None] = {}
        self._told_blocked = False
        self._paused: set[str] = set()
        # What the lever `delay` holds back: when it may be looked at, and what it is.
        self._late: deque[tuple[float, bytes]] = deque()
        loop = gevent.get_hub().loop
        self._late_timer = loop.timer(0)
        self._watch = loop.timer(self.limits.handshake_timeout)
        self._watch.start(self._give_up, 'the handshake took too long')
        self.transport = Transport(sock, self._received, self._lost, self._drained, high_water=HIGH_WATER)
        self.transport.start()

    def __repr__(self) -> str:
        return '<Connection %s:%d %s %s>' % (*self.peer[:2], self.user, self._state.name)

    @property
    def user(self) -> str:
        """Whom the client logged in as."""
        return self._handshake.user

    @property
    def is_running(self) -> bool:
        """Whether the handshake is over and nobody has closed it."""
        return self._state is State.RUNNING

    # -- bytes in ------------------------------------------------------------------------------------------------------

    def _received(self, data: bytes) -> None:
        delay = self.broker.delay_seconds
        if delay or self._late:
            self._late.append((monotonic() + delay, data))
            if len(self._late) == 1:
                self._wait_for_late()
        else:
            self._process(data)

    def _wait_for_late(self) -> None:
        self._late_timer.close()
        self._late_timer = gevent.get_hub().loop.timer(max(0.0, self._late[0][0] - monotonic()))
        self._late_timer.start(self._process_late)

    def _process_late(self) -> None:
        _, data = self._late[0]
        self._process(data)
        if self._late:  # empty when the connection has ended meanwhile
            self._late.popleft()
        if self._late:
            self._wait_for_late()

    def _process(self, data: bytes) -> None:
        if self._garbled:
            return
        if self._state is State.HEADER:
            data = self._greet(data)
        coming = self._splitter.feed(data)
        self._arrived = chain(self._arrived, coming) if self._unfinished else coming
        self._handle_arrived()

    def _handle_arrived(self) -> None:
        self._unfinished = True
        method = b''
        try:
            for kind, number, payload in self._arrived:
                if kind == frames.METHOD:
                    method = payload[:4]
                self._handle(kind, number, payload)
                if self._state is State.ENDED:
                    return
                # Each method may ask for a message of any size, and there may be thousands.
                if kind == frames.METHOD and self.is_deaf and self._state is State.RUNNING:
                    self._pause('congested')
                    break
            else:
                self._unfinished = False
        except Closed as error:
            self._refuse(error, method)
        except Exception:
            # A fault of the broker's costs one connection, as it does with RabbitMQ.
            logger.exception('%r: internal error', self)
            self._refuse(InternalError(''), method)
        if self._unflushed:
            for channel in self._unflushed:
                channel.flush_confirms()
            self._unflushed.clear()

    def _greet(self, data: bytes) -> bytes:
        """Take the protocol header; gives what came behind it."""
        self._greeting += data
        if not any(header.startswith(self._greeting[:8]) for header in _GREETINGS):
            self.transport.write(frames.PROTOCOL_HEADER)
            self._end(logging.WARNING, 'the client does not speak AMQP 0-9-1: %r' % self._greeting[:8])
            return b''
        if len(self._greeting) < 8:
            return b''
        self._state = State.HANDSHAKE
        self._handshake.begin()
        return self._greeting[8:]

    def _handle(self, kind: int, number: int, payload: bytes) -> None:
        if number:
            if self._state is State.RUNNING:
                self._handle_channel(kind, number, payload)
            elif self._state is not State.CLOSING:
                raise CommandInvalid('a frame for channel %d; expected %s' % (number, self._state.value))
        elif kind == frames.METHOD:
            method: Any = frames.decode_method(payload)
            self._on_method(method)
        elif kind != frames.HEARTBEAT and self._state is not State.CLOSING:
            raise UnexpectedFrame('a frame of type %d on channel 0' % kind)

    def _handle_channel(self, kind: int, number: int, payload: bytes) -> None:
        channel = self._channels.get(number)
        if channel is None:
            if kind == frames.HEARTBEAT:
                raise UnexpectedFrame('a heartbeat on channel %d' % number)
            if kind != frames.METHOD or payload[:4] != _CHANNEL_OPEN:
                if kind == frames.METHOD and payload[:4] == _CHANNEL_CLOSE_OK:
                    return  # the second of two, after both sides have closed
                raise ChannelNumberError("expected 'channel.open'")
            if len(self._channels) >= self._handshake.channel_max:
                raise NotAllowed(
                    'number of channels opened (%d) has reached the negotiated channel_max (%d)'
                    % (len(self._channels), self._handshake.channel_max)
                )
            channel = self._channels[number] = Channel(self, number)
            channel.say(commands.Channel.OpenOk)
            return
        try:
            channel.handle(kind, payload)
        except ChannelClosed as error:
            logger.info('%r: channel %d: %s', self, number, error)
            method = payload[:4] if kind == frames.METHOD else frames.BASIC_PUBLISH
            channel.refuse(error, *_ids(method))

    # -- bytes out -----------------------------------------------------------------------------------------------------

    def write(self, data: bytes | Gathered) -> None:
        """Send whole frames; never blocks."""
        self.transport.write(data)

    def deliver(self, data: bytes | Gathered) -> None:
        """Send a delivery; when too much is unsent then, no more come until the client has read some."""
        transport = self.transport
        transport.write(data)
        if transport.is_congested():
            self.gate.open = False

    @property
    def is_deaf(self) -> bool:
        """Whether so much is unsent that the client cannot be reading at all."""
        # Asked for `is_congested` the transport tells when that is over.
        return self.transport.unsent > _DEAF and self.transport.is_congested()

    def say(self, method: type[base.Frame], **fields: Any) -> None:
        """Send a method on channel 0."""
        self.transport.write(frames.encode_method(0, method, **fields))

    def flush_later(self, channel: Channel) -> None:
        """Have a channel tell its confirms at the end of what is being processed."""
        self._unflushed[channel] = None

    def _drained(self) -> None:
        if self._unfinished:
            self._handle_arrived()
        if not self._unfinished:
            self._resume('congested')
        if not self.gate.open:
            self.gate.open = True
            for channel in list(self._channels.values()):
                channel.consuming.wake()

    # -- the connection's own methods ----------------------------------------------------------------------------------

    def _on_method(self, method: Any) -> None:
        kind = type(method)
        if kind is commands.Connection.Close:
            self._release()
            self.say(commands.Connection.CloseOk)
            self._end(logging.DEBUG, 'closed by the client: %d %s' % (method.reply_code, method.reply_text))
        elif kind is commands.Connection.CloseOk:
            self._end(logging.DEBUG, 'closed by the broker')
        elif self._state is State.HANDSHAKE:
            self._handshake.handle(method)
            if self._handshake.vhost is not None:
                self._opened(self._handshake.vhost)
        elif kind is commands.Connection.UpdateSecret:
            self.say(commands.Connection.UpdateSecretOk)
        elif self._state is State.RUNNING:
            raise ChannelNumberError('unexpected method in connection state running')

    def _opened(self, vhost: VirtualHost) -> None:
        self.vhost = vhost
        self.frame_max = self._splitter.frame_max = self._handshake.frame_max
        self._state = State.RUNNING
        interval = self._handshake.heartbeat
        if interval:
            heartbeat.sender.add(self.transport, interval)
            self._watch_with(interval / 2, interval / 2, self._check_peer)
        else:
            self._watch.stop()
        logger.debug('%r: open, virtual host %r', self, vhost.name)

    def client_can(self, capability: str) -> bool:
        """Whether the client says that it knows one of RabbitMQ's extensions."""
        return self._handshake.client_can(capability)

    def _watch_with(self, after: float, again: float, watch: Callable[..., None], *args: Any) -> None:
        self._watch.close()
        self._watch = gevent.get_hub().loop.timer(after, again)
        self._watch.start(watch, *args)

    def _check_peer(self) -> None:
        if self._paused or self._late:
            return  # its heartbeats wait to be read
        interval = self._handshake.heartbeat
        if monotonic() - self.transport.last_received <= 2 * interval:
            return
        # The hub may have been busy for long: what came meanwhile still waits to be read.
        self.transport.poll()
        if monotonic() - self.transport.last_received > 2 * interval:
            self._give_up('missed heartbeats from client, timeout: %ds' % interval)

    # -- blocking ------------------------------------------------------------------------------------------------------

    def has_published(self) -> None:
        """A message has come. While there is an alarm it is the last for now: nothing more is read
        (https://www.rabbitmq.com/docs/connection-blocked)."""
        reason = self.broker.alarm
        if reason is None:
            return
        self._pause('blocked')
        if not self._told_blocked and self.client_can('connection.blocked'):
            self._told_blocked = True
            self.say(commands.Connection.Blocked, reason=reason)

    def alarm_is_over(self) -> None:
        """Go on reading."""
        if self._state is State.RUNNING:
            self._resume('blocked')
            if self._told_blocked:
                self._told_blocked = False
                self.say(commands.Connection.Unblocked)

    def _pause(self, reason: str) -> None:
        if not self._paused:
            self.transport.pause()
        self._paused.add(reason)

    def _resume(self, reason: str) -> None:
        if reason in self._paused:
            self._paused.discard(reason)
            if not self._paused:
                self.transport.resume()

    # -- the end -------------------------------------------------------------------------------------------------------

    def forget(self, channel: Channel) -> None:
        """A channel is closed; its number is free again."""
        self._channels.pop(channel.id, None)
        self._unflushed.pop(channel, None)

    def close(self, error: Closed, class_id: int = 0, method_id: int = 0) -> None:
        """Close the connection and tell the client why."""
        if self._state in (State.CLOSING, State.ENDED):
            return
        if self._state is State.HEADER:
            self._end(logging.DEBUG, error.text)
            return
        self._release()
        self._state = State.CLOSING
        self.say(
            commands.Connection.Close,
            reply_code=error.code,
            reply_text=reply_text(error),
            class_id=class_id,
            method_id=method_id,
        )
        # A client that is not read would never be heard to answer.
        self._paused.clear()
        self.transport.resume()
        self._watch_with(CLOSE_TIMEOUT, 0, self._give_up, 'no answer to connection.close')

    def drop(self) -> None:
        """Hang up without a word."""
        self._end(logging.INFO, 'dropped')

    def _refuse(self, error: Closed, method: bytes) -> None:
        if self._state is State.CLOSING:
            self._give_up('%s, while closing' % error)
            return
        if self._handshake.is_silent_about(error):
            self._give_up(error.text)
            return
        logger.warning('%r: %s', self, error)
        # After a frame that makes no sense nothing behind it can be told apart, not even the client's close-ok.
        self._garbled = isinstance(error, FrameError)
        is_about_a_method = method and not self._garbled and not isinstance(error, LoginRefused)
        self.close(error, *(_ids(method) if is_about_a_method else (0, 0)))

    def _give_up(self, why: str) -> None:
        self._end(logging.WARNING, why)

    def _lost(self, error: Exception) -> None:
        self._end(logging.INFO, 'lost: %s' % error)

    def _release(self) -> None:
        """Give back everything that the client has: consumers, deliveries, exclusive queues."""
        if self._state is not State.RUNNING:
            return
        # What goes back to a queue must not come to another channel of this connection.
        self.gate.open = False
        channels, self._channels = self._channels, {}
        for channel in channels.values():
            channel.end()
        self.vhost.remove_owned(self)

    def _end(self, level: int, why: str) -> None:
        if self._state is State.ENDED:
            return
        logger.log(level, '%r: %s', self, why)
        self._release()
        self._state = State.ENDED
        self._late.clear()
        for timer in (self._late_timer, self._watch):
            timer.close()
        heartbeat.sender.remove(self.transport)
        self.transport.flush()
        self.transport.close()
        self.broker.forget(self)


def _ids(method: bytes) -> tuple[int, int]:
    """Class and method number, of the first four bytes of a method's payload."""
    return int.from_bytes(method[:2], 'big'), int.from_bytes(method[2:4], 'big')


_CHANNEL_OPEN, _CHANNEL_CLOSE_OK = b'\x00\x14\x00\x0a', b'\x00\x14\x00\x29'
