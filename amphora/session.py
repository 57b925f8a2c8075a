"""One connection kept alive: hosts, reconnect, topology replay.

A session converges: whenever something ends it connects, declares and has its users resume what they lack, until all is
as wished for. Users hold on to the session; connections and channels are swapped beneath. Knows nothing of messages.
"""

from __future__ import annotations

import logging
import random
import re
import weakref
from collections.abc import Callable
from time import monotonic
from typing import Protocol

import gevent
from gevent.event import Event

from amphora.amqp import (
    CertificateRefused,
    Channel,
    ChannelClosed,
    Closed,
    Connection,
    ConnectionFailed,
    LoginRefused,
    NotAllowed,
)
from amphora.errors import AmqpError
from amphora.forking import abandoned_at_fork
from amphora.logs import get_logger
from amphora.settings import Settings
from amphora.timing import Backoff, Deadline
from amphora.topology import Record, Topology

logger = get_logger('amphora.session')

# Errors that the same attempt would meet again: whoever waits for the connection is told at once.
_REFUSALS = (LoginRefused, NotAllowed, CertificateRefused)
_LIMIT = re.compile(r'connection limit \(\d+\) is reached')
# A connection that has lasted this long was a good one: the next trouble starts with short delays again. Seconds.
_STABLE = 5.0
# The longest delay before what has ended on a connection that goes on is made again, in seconds.
_REPAIR_CAP = 0.5
# How often something that the broker refused to declare is tried again. Seconds.
_RETRY_FAULTS = 2.0


# Those of this process, for a child that it forks.
_sessions: weakref.WeakSet[Session] = abandoned_at_fork(lambda session: session.abandon())


class User(Protocol):
    """Who works on a session's connection."""

    def resume(self, connection: Connection) -> None:
        """Have on this connection whatever is missing; called in the session's greenlet, again and again, and may
        block.

        :raises AmqpError: when that failed; it is tried again after a delay.
        """

    def suspend(self) -> None:
        """The connection has ended; called in the hub."""

    def refuse(self, error: AmqpError) -> None:
        """There will be no connection, or not what is needed on it, unless something is mended; may be called
        repeatedly."""


class Session:
    """Keeps one connection, for as long as it is started.

    :param settings: where to connect to.
    :param topology: what to have on the broker before anybody uses the connection.
    :param name: the connection's name in RabbitMQ's management pages.
    :ivar connection: the connection; None while there is none that is ready for use.
    :ivar away: whether the last attempt to connect has failed; False while the first is under way.
    :ivar trouble: why there is none, as far as that is known: the words of the last failure.
    :ivar refusal: why there is none, when that will not mend itself: bad login, no such vhost, 406 of something needed.
    """

    def __init__(self, settings: Settings, topology: Topology, name: str) -> None:
        self.connection: Connection | None = None
        self.refusal: AmqpError | None = None
        self.away = False
        self.trouble: str | None = None
        self._settings = settings
        self._topology = topology
        self._name = name
        self._users: list[User] = []
        self._greenlet: gevent.Greenlet[[], None] | None = None
        self._ready = Event()
        self._wake = Event()
        self._backoff = Backoff()
        self._faults: dict[Record, AmqpError] = {}
        # Users that could not resume, of which the log knows.
        self._failing: set[User] = set()
        # Whether the log knows that there is no connection.
        self._told = False
        _sessions.add(self)

    def __repr__(self) -> str:
        return '<Session %s>' % self._name

    @property
    def started(self) -> bool:
        """Whether the session keeps a connection, or tries to."""
        return self._greenlet is not None

    def attach(self, user: User) -> None:
        """Have somebody work on the connection from now on.

        :raises ChannelClosed: there is a connection already, and the broker refused what the user needs.
        """
        if user not in self._users:
            self._users.append(user)
        if self.connection is not None:
            try:
                user.resume(self.connection)
            except ChannelClosed:
                raise
            except Closed:
                self.wake()  # the connection is ending; the user resumes on the next

    def detach(self, user: User) -> None:
        """Undo `attach`."""
        if user in self._users:
            self._users.remove(user)
        self._failing.discard(user)

    def start(self) -> None:
        """Begin to connect; returns at once. Nothing happens when it has begun."""
        # Resolves names. Now, because Python refuses to import it while a program ends; and no sooner, because it takes
        # its time.
        import gevent.threadpool

        if not self._greenlet:  # none, or one that has ended
            self.refusal = self.trouble = None
            self.away = self._told = False
            self._greenlet = gevent.spawn(self._run)
            self._greenlet.name = self._name

    def stop(self) -> None:
        """Close the connection and stop trying. `start` may follow."""
        greenlet, self._greenlet = self._greenlet, None
        if greenlet is None:
            return
        greenlet.kill()
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.close()
        self._disconnected()
        self._ready.set()  # whoever waits looks whether to go on

    def abandon(self) -> None:
        """In a forked child: the parent keeps the connection; this copy of the session does nothing any more."""
        greenlet, self._greenlet = self._greenlet, None
        self.connection = None
        if greenlet is not None:
            greenlet.kill(block=False)

    def wake(self) -> None:
        """Something is missing: converge soon."""
        self._wake.set()

    def wait_ready(
        self,
        deadline: Deadline = Deadline(),  # noqa: B008  # a constant
        until_stopped: bool = False,
    ) -> Connection | None:
        """Block until there is a connection with everything declared; None when there is none by the deadline.

        :param until_stopped: give up when the session is stopped meanwhile; by default it may be started again.
        :raises AmqpError: the session's `refusal`, as soon as there is one.
        """
        greenlet = self._greenlet
        while self.connection is None or self.refusal is not None:
            if self.refusal is not None:
                raise self.refusal.with_traceback(None)
            if deadline.expired(monotonic()) or (until_stopped and self._greenlet is not greenlet):
                return None
            self._ready.wait(deadline.remaining(monotonic()))
            self._ready.clear()
        return self.connection

    def obstacle(self) -> str:
        """What keeps messages from the broker, in words for whoever could not send any."""
        if not self.started:
            return 'there is no connection: it was stopped, or not started'
        if self.connection is None:
            return 'there is no connection%s' % (' yet' if self.trouble is None else ': %s' % self.trouble)
        if self.connection.blocked is not None:
            return 'the broker takes no messages: %s' % self.connection.blocked
        return 'the broker takes them too slowly'

    def with_channel(self, work: Callable[[Channel], object], timeout: float) -> bool:
        """Do something once on a channel of its own, as soon as there is a connection; begin again when that is lost.

        :param timeout: how long it may take in all, in seconds.
        :returns: False when it was not done by then.
        :raises AmqpError: the broker refused it (`ChannelClosed`), or the session is refused.
        """
        deadline = Deadline.after(timeout, monotonic())
        while True:
            connection = self.wait_ready(deadline)
            if connection is None:
                return False
            try:
                seconds = deadline.remaining(monotonic())
                return bool(gevent.with_timeout(seconds, _work_on, connection, work, timeout_value=False))
            except ChannelClosed:
                raise
            except Closed:
                # The connection has ended; its close listener has run or is about to.
                self._forget(connection)

    # -- the session's greenlet ----------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            try:
                connection = self._connect()
            except AmqpError as error:
                self._failed(error)
                self.away = True
                if _is_refusal(error):
                    self._refuse(error)
            except Exception as error:
                # A mistake in the options, or ours: whoever waits must hear of it, and this greenlet must live.
                logger.exception('%s: cannot connect', self._name)
                self.away = True
                self.trouble = '%s: %s' % (type(error).__name__, error)
                self._refuse(ConnectionFailed('cannot connect: %s' % self.trouble))
            else:
                self.away = False
                try:
                    self._converge(connection)
                except AmqpError as error:
                    self._failed(error)
                except Exception:
                    # A mistake of ours: the next connection may do better, and this greenlet must live.
                    logger.exception('%s: the connection is given up', self._name)
                finally:
                    connection.close()
            gevent.sleep(self._backoff.next_delay(random.random()))

    def _failed(self, error: AmqpError) -> None:
        # Once is news; the same every two seconds for a night is not.
        logger.log(logging.DEBUG if self._told else logging.WARNING, '%s: %s; trying again', self._name, error)
        self._told = True
        self.trouble = str(error)

    def _connect(self) -> Connection:
        """Connect to the first host that can be reached.

        :raises AmqpError: none could; a refusal, when there was one, else the last error.
        """
        refusal = None
        last: AmqpError = ConnectionFailed('no host is configured')
        for options in self._settings.hosts:
            try:
                return Connection(**{'name': self._name, **options})
            except (ConnectionFailed, Closed) as error:
                last = error
                if _is_refusal(error):
                    refusal = error
        raise refusal or last

    def _converge(self, connection: Connection) -> None:
        """Have everything as wished for, and again whenever something is missing; returns when the connection has
        ended.

        :raises AmqpError: when the connection ends in the middle of it.
        """
        if connection.error is not None:  # the end came together with the last words of the handshake
            raise connection.error.with_traceback(None)
        connection.close_listeners.append(lambda error: self._lost(connection, error))
        self._faults.clear()
        repairs = Backoff(cap=_REPAIR_CAP)
        while not connection.closed:
            began = monotonic()
            self._wake.clear()
            self._establish(connection)
            self._wake.wait(_RETRY_FAULTS if self._faults else None)
            if monotonic() - began > _STABLE:
                self._backoff.reset()
                repairs.reset()
            elif self.connection is connection and not self._faults:
                # Woken again so soon: what fails over and over must not spin.
                gevent.sleep(repairs.next_delay(random.random()))

    def _establish(self, connection: Connection) -> None:
        self._declare(connection)
        # Before anybody sends: what goes to a queue that is not as wished for would be lost from sight.
        faults = (error for record, error in self._faults.items() if self._topology.is_essential(record))
        fault = next(faults, None)
        if fault is not None:
            self._refuse(fault)
        else:
            self.refusal = None
        for user in list(self._users):
            self._resume(user, connection)
        if connection.closed:
            return
        if self.connection is None:
            self.connection = connection
            self.trouble = None
            self._told = False
            logger.info('%s: connected to %s:%d', self._name, connection.host, connection.port)
        self._ready.set()

    def _declare(self, connection: Connection) -> None:
        self._faults = {record: error for record, error in self._faults.items() if record in self._topology}
        channel = connection.channel()
        for record in self._topology:
            if record not in self._topology:  # discarded while others were declared
                continue
            try:
                record.declare(channel)
                self._faults.pop(record, None)
            except ChannelClosed as error:
                if record not in self._faults:
                    logger.error('%s: the broker refuses the %s: %s', self._name, record, error)
                self._faults[record] = error
                if channel.closed:  # an adopted queue is asked for on a channel of its own
                    channel = connection.channel()
        channel.close()

    def _resume(self, user: User, connection: Connection) -> None:
        try:
            user.resume(connection)
        except ChannelClosed as error:
            level = logging.DEBUG if user in self._failing else logging.WARNING
            logger.log(level, '%s: %s: %s; trying again', self._name, user, error)
            self._failing.add(user)
            gevent.spawn_later(self._backoff.next_delay(random.random()), self.wake)
        else:
            self._failing.discard(user)

    # -- news ----------------------------------------------------------------------------------------------------------

    def _refuse(self, error: AmqpError) -> None:
        self.refusal = error
        self._ready.set()
        for user in list(self._users):
            user.refuse(error)

    def _lost(self, connection: Connection, error: Exception) -> None:
        if self._forget(connection) and self.started:
            self.trouble = str(error)
            logger.warning('%s: %s', self._name, error)
        self._wake.set()

    def _forget(self, connection: Connection) -> bool:
        if self.connection is not connection:
            return False
        self.connection = None
        self._disconnected()
        return True

    def _disconnected(self) -> None:
        self._ready.clear()
        for user in list(self._users):
            user.suspend()


def _is_refusal(error: AmqpError) -> bool:
    # RabbitMQ has the same code where there are too many connections for now, maybe ones that it has yet to give up.
    return isinstance(error, _REFUSALS) and _LIMIT.search(str(error)) is None


def _work_on(connection: Connection, work: Callable[[Channel], object]) -> bool:
    channel = connection.channel()
    try:
        work(channel)
    finally:
        channel.abandon()  # the time may be over, and nobody needs the broker's answer
    return True
