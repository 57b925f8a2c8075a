"""What a user starts and stops: the queues that requests come from, and the server's life.

What can be called is in `offering`, what happens to a request in `answering`.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Sequence
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import gevent
from gevent.event import Event
from gevent.lock import RLock
from greenlet import getcurrent

from amphora.amqp import Channel, NotFound
from amphora.answering import ON_FAILURE, Answering
from amphora.checks import check_flag, check_integer, check_name, check_seconds
from amphora.dialects.base import Dialect, Source
from amphora.dialects.native import INTROSPECTION_SERVICE, Native, request_queue
from amphora.errors import AmqpError, NotSent, WrongThread
from amphora.forking import abandoned_at_fork
from amphora.intake import Intake
from amphora.introspection import Introspection, ServerDescription, describe_server
from amphora.offering import Offering
from amphora.party import party_of
from amphora.publisher import Publisher
from amphora.serializer import AbstractRpcSerializer, RpcJsonSerializer
from amphora.session import Session
from amphora.settings import make_settings
from amphora.timing import Deadline
from amphora.topology import Topology, declare_all
from amphora.watchdog import watchdog
from amphora.workers import Workers

if TYPE_CHECKING:
    from typing_extensions import Self  # of typing itself from 3.11 on

logger = logging.getLogger('amphora.server')

#: the longest timeout of `receive_from_queue`, in seconds: a year
MAX_TIMEOUT = 31_536_000
#: seconds that `receive_from_queue` waits for a broker
QUEUE_TIMEOUT = 60.0
#: seconds that `stop` waits for the broker to confirm the last replies
STOP_TIMEOUT = 30.0
# How often `stop` looks whether the work is done, in seconds.
_POLL = 0.01


# Those of this process, for a child that it forks.
_servers: weakref.WeakSet[AmqpRpcServer] = abandoned_at_fork(lambda server: server._abandon())


class AmqpRpcServer(Offering):
    """Runs functions for the clients of a service.

    :param service_name: namespace of the service. Whoever may publish to its exchange can call its functions.
    :param serializer: makes and reads the bodies, see `amphora.serializer`; the clients must use the same.
    :param fresh_greenlets: run each request in a new greenlet. By default greenlets are used again, as threads of a
        pool are: what a function leaves in a `gevent.local` another may find. `contextvars` are each request's own
        either way.
    :param introspection: answer ``amphora list`` and whoever else asks which functions there are.
    :param dialects: other systems' ways of calling that it answers beside amphora's own, see `amphora.dialects`.
    :param on_failure: what becomes of a request that wants no answer (`AmqpRpcClient.cast`) when its function raises:
        ``reject``, it becomes a dead letter; ``requeue``, it is tried again, at once and then once a second.
    :param options: the way to the broker, see `amphora.settings.make_settings`: amqp_url, amqp_host, amqp_port,
        amqp_user, amqp_password, amqp_vhost, amqp_ssl, heartbeat (seconds), prefetch (unacked requests at once),
        persistent, confirm, queue_type, queue_size, request_ttl (seconds), compression, compress_threshold (bytes).
    :raises TypeError: an option is unknown or of the wrong type.
    :raises ValueError: an option makes no sense; the error names it.
    :raises OSError: a file that the URL names cannot be read.
    :raises ImportError: the package that `compression` needs is not installed.
    """

    # Whether each request goes to every server of the service.
    _fanout = False

    def __init__(
        self,
        service_name: str,
        serializer: type[AbstractRpcSerializer] | AbstractRpcSerializer = RpcJsonSerializer,
        fresh_greenlets: bool = False,
        introspection: bool = True,
        dialects: Sequence[Dialect] = (),
        on_failure: str = 'reject',
        **options: Any,
    ) -> None:
        super().__init__()
        if service_name == INTROSPECTION_SERVICE:
            raise ValueError("the service %r is introspection's own: take another name" % service_name)
        self.service_name = check_name(service_name, 'service_name')
        self.serializer = serializer
        self._settings = make_settings(service=service_name, **options)
        if isinstance(dialects, Dialect):
            raise TypeError('dialects must be a list, such as dialects=[%s(...)]' % type(dialects).__name__)
        for dialect in dialects:
            if not isinstance(dialect, Dialect):
                raise TypeError('dialects must be objects such as amphora.dialects.Tutorial(), not %r' % (dialect,))
        self._dialects = (Native(), *dialects)
        if on_failure not in ON_FAILURE:
            raise ValueError('on_failure must be one of %s, not %r' % (', '.join(ON_FAILURE), on_failure))
        self._on_failure = on_failure
        self._hub = gevent.get_hub()
        self._fresh_greenlets = check_flag(fresh_greenlets, 'fresh_greenlets')
        self._is_introspected = check_flag(introspection, 'introspection')
        self._set_up()
        _servers.add(self)

    def _set_up(self) -> None:
        """Make everything that belongs to one process."""
        self.uuid = str(uuid4())
        party = party_of(self.service_name, self.uuid, self.serializer, self._settings, self._fanout)
        sides = [dialect.server_side(party) for dialect in self._dialects]
        self._topology = Topology(record for source in sides[0].sources() for record in source.records)
        # Starting and stopping take turns.
        self._life = RLock()
        self._stopped = Event()
        # Whether this is a forked child's copy of a server that its parent made.
        self._forked = False
        # Whether the watchdog looks after the hub for this server.
        self._watched = False
        name = 'amphora server %s' % self.service_name
        self._publishing = Session(self._settings, self._topology, name + ' (publishes)')
        self._consuming = Session(self._settings, self._topology, name + ' (consumes)')
        self._publisher = Publisher(
            self._publishing,
            self._settings.confirm,
            lambda message: self._native.on_returned(message),
            patience=self._settings.patience,
        )
        self._answerings = [
            Answering(
                self.service_name,
                side,
                self._functions,
                self._publishing,
                self._publisher,
                self._settings.queue_arguments,
                self._on_failure,
            )
            for side in sides
        ]
        # Of requests on amphora's own wire.
        self._native = self._answerings[0]
        self._workers = Workers(0 if self._fresh_greenlets else self._settings.prefetch)
        self._introspection: Introspection | None = None
        if self._is_introspected:
            self._introspection = Introspection(self._describe, self.uuid, self._consuming, self._publisher)
        # What takes requests: from serve() on, by queue, and each receive_from_queue.
        self._own_intakes: dict[str, Intake] = {}
        self._intakes: list[Intake] = []

    def __repr__(self) -> str:
        return '<%s %s %d functions>' % (type(self).__name__, self.service_name, len(list(self._functions)))

    def _describe(self) -> ServerDescription:
        return describe_server(self.service_name, self.uuid, self._fanout, self._functions)

    def _offered(self) -> None:
        # Functions that were added since `serve` may have queues of their own.
        if self._own_intakes and self._missing_sources():
            gevent.spawn(self._open_more)

    # -- queues --------------------------------------------------------------------------------------------------------

    def receive_from_queue(
        self,
        queue: str,
        max_calls: int | None = None,
        timeout: float | None = None,
        block: bool = True,
        block_until_closed: bool = True,
    ) -> int | None:
        """Take calls from one more queue, beside the service's own.

        :param queue: the label given to a client's `create_new_request_queue`, or the queue's full name.
        :param max_calls: so many calls, then stop; it is the prefetch as well. None: no end.
        :param timeout: stop after so many seconds; None: never.
        :param block: block until the calls are taken or the time is over. False: return None at once, and go on.
        :param block_until_closed: block, too, until every call taken is answered and the channel is closed.
        :returns: the number of calls taken; fewer than `max_calls` when the server was stopped.
        :raises gevent.Timeout: the time was over before `max_calls` were taken.
        :raises ValueError: there is no such queue; or a limit makes no sense.
        :raises NotSent: there was no broker for a minute.
        :raises AmqpError: the broker refuses the login, the virtual host or the queue.
        """
        if max_calls is not None:
            check_integer(max_calls, 'max_calls', 1, 1_000_000_000)
        if timeout is not None:
            check_seconds(timeout, 'timeout', MAX_TIMEOUT)
        self._check_thread()
        deadline = Deadline.after(timeout, monotonic())
        self._start_sessions()
        name = self._find_queue(queue)
        prefetch = self._settings.prefetch if max_calls is None else min(max_calls, 65535)
        intake = self._start_intake(self._native, Source(name, (), prefetch=prefetch), max_calls)
        if not block:
            gevent.spawn(self._end_intake, intake, deadline, True)
            return None
        try:
            in_time = self._end_intake(intake, deadline, block_until_closed)
        except BaseException:
            # Killed, or timed out from outside: nobody waits for this intake any more.
            intake.finish()
            gevent.spawn(self._close_intake, intake)
            raise
        if not in_time:
            raise gevent.Timeout(timeout)
        return intake.taken

    def _find_queue(self, queue: str) -> str:
        """The full name of a queue given by label or by name.

        :raises ValueError: there is neither.
        """
        names = [request_queue(queue), queue]
        for name in names:

            def check(channel: Channel, name: str = name) -> None:
                channel.queue.declare(name, passive=True)

            try:
                if not self._consuming.with_channel(check, QUEUE_TIMEOUT):
                    raise NotSent('no broker within %g s: %s' % (QUEUE_TIMEOUT, self._consuming.obstacle()))
            except NotFound:
                continue
            return name
        raise ValueError('there is neither a queue %r nor a queue %r' % tuple(names))

    def _missing_sources(self) -> list[tuple[Answering, Source]]:
        """The queues that requests for the functions come from, as far as none are taken from them yet.

        :raises ValueError: two dialects want one queue.
        """
        wanted: dict[str, tuple[Answering, Source]] = {}
        for answering in self._answerings:
            for source in answering.sources():
                if source.queue in wanted:
                    raise ValueError(
                        'two dialects want the queue %r: leave one out, or limit one to other functions' % source.queue
                    )
                wanted[source.queue] = answering, source
        return [each for queue, each in wanted.items() if queue not in self._own_intakes]

    def _open(self, missing: list[tuple[Answering, Source]]) -> None:
        """Take requests from more queues, now or when there is a connection."""
        for answering, source in missing:
            new = any(record not in self._topology for record in source.records)
            self._topology.add(*source.records, essential=True)
            if new and self._consuming.connection is not None:
                try:
                    self._consuming.with_channel(partial(declare_all, source.records), QUEUE_TIMEOUT)
                except AmqpError as error:
                    logger.error('%r: no requests from queue %s: %s', self, source.queue, error)
                    self._consuming.wake()  # which tells whoever waits
                    continue
            intake = self._start_intake(answering, source)
            if not intake.told_to_finish:  # by `prepare_stop`, meanwhile
                self._own_intakes[source.queue] = intake

    def _open_more(self) -> None:
        """Take requests for the functions that were added since `serve`."""
        with self._life:
            for answering, source in self._missing_sources() if self._own_intakes else ():
                try:
                    self._open([(answering, source)])
                except AmqpError as error:  # somebody consumes it and lets nobody else, for example
                    logger.error('%r: no requests from queue %s: %s', self, source.queue, error)

    def _start_intake(self, answering: Answering, source: Source, max_calls: int | None = None) -> Intake:
        intake = Intake(
            self._consuming,
            source.queue,
            partial(self._workers.begin, answering.answer),
            source.prefetch or self._settings.prefetch,
            max_calls,
            answering.is_sole(source),
            source.function,
        )
        # Before it starts, which takes a while: who stops the server meanwhile must find it.
        self._intakes.append(intake)
        try:
            intake.start()
        except BaseException:
            self._forget_intake(intake)
            raise
        return intake

    def _end_intake(self, intake: Intake, deadline: Deadline, wait_closed: bool) -> bool:
        """Wait for an intake's end and close its channel; False when the time was over before."""
        in_time = intake.wait_finished(deadline)
        intake.finish()
        if wait_closed:
            self._close_intake(intake)
        else:
            gevent.spawn(self._close_intake, intake)
        return in_time

    def _close_intake(self, intake: Intake) -> None:
        intake.wait_drained()
        intake.close()
        self._forget_intake(intake)

    def _forget_intake(self, intake: Intake) -> None:
        if intake in self._intakes:
            self._intakes.remove(intake)

    # -- life ----------------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        """`serve`; a function that is added before the program first waits for something is there for every request."""
        self.serve()
        return self

    def __exit__(self, *exception: object) -> None:
        """`stop`."""
        self.stop()

    def serve(self, nowait: bool = True) -> None:
        """Connect and start working; replies held by `stop` are sent.

        :param nowait: True: return at once and connect in the background. False: block until `stop`; when something is
            raised meanwhile (Ctrl-C), stop first.
        :raises AmqpError: the broker refuses the login, the virtual host or a queue; with ``nowait=True`` only where
            there is a connection already.
        :raises ValueError: two dialects want one queue.
        """
        self._check_thread()
        with self._life:
            self._stopped.clear()
            if not self._watched:
                self._watched = True
                watchdog.watch()
            self._open(self._missing_sources())
            self._start_sessions()
        if not nowait:
            try:
                self._consuming.wait_ready(until_stopped=True)
                self._stopped.wait()
            except BaseException:
                self.stop()
                raise

    def wait_ready(self, timeout: float | None = None) -> bool:
        """Block until the server takes requests, after `serve`.

        :param timeout: seconds; None: without end.
        :returns: False when it was not ready by then.
        :raises AmqpError: the broker refuses the login, the virtual host or a queue.
        """
        return self._consuming.wait_ready(Deadline.after(timeout, monotonic())) is not None

    def _start_sessions(self) -> None:
        if self._introspection is not None:
            self._introspection.start()
        self._publishing.start()
        self._consuming.start()

    def prepare_stop(self) -> None:
        """Take no more requests; those that run go on. The first half of a warm shutdown, of which `stop` is the
        second.

        Returns when the broker has said that it sends no more. What it had sent and nobody had begun goes back to the
        queue.
        """
        self._check_thread()
        self._own_intakes.clear()
        for intake in list(self._intakes):
            intake.finish()

    def stop(self) -> None:
        """Wait for the functions that run, for the broker to have their replies, and for their acks to be sent;
        disconnect.

        Replies that could not be sent, because the broker is away, are held until `serve`.

        :raises RuntimeError: called by one of the functions it would wait for.
        """
        self._check_thread()
        self._check_outside()
        with self._life:
            self.stop_consumer()
            self.stop_publisher()
            self._workers.dismiss()
            self._end_coroutines()
            if self._watched:
                self._watched = False
                watchdog.unwatch()
            self._stopped.set()

    def stop_publisher(self) -> None:
        """Send no more replies: they are held until `serve`. Requests are still taken."""
        self._check_thread()
        with self._life:
            self._publishing.stop()

    def stop_consumer(self) -> None:
        """Take no more requests, and disconnect from where they come from when those that run are done. Replies are
        still sent.

        :raises RuntimeError: called by one of the functions it would wait for.
        """
        self._check_thread()
        self._check_outside()
        with self._life:
            self.prepare_stop()
            while self._workers:
                self._workers.go_on()
                gevent.sleep(_POLL)
            deadline = Deadline.after(STOP_TIMEOUT, monotonic())
            while any(intake.in_hand for intake in self._intakes) and self._publishing.connection is not None:
                if deadline.expired(monotonic()):
                    logger.warning('%r: the broker did not confirm the last replies in %g s', self, STOP_TIMEOUT)
                    break
                gevent.sleep(_POLL)
            intakes, self._intakes = self._intakes, []
            for intake in intakes:
                intake.close()
            if self._introspection is not None:
                self._introspection.stop()
            self._consuming.stop()

    def _check_outside(self) -> None:
        if getcurrent() in self._workers:
            raise RuntimeError(
                'a function of the server waits for itself to end: stop the server from elsewhere, as in '
                'gevent.spawn(server.stop)'
            )

    def _abandon(self) -> None:
        """In a forked child: what was made is the parent's."""
        self._forked = True
        self._workers.abandon()

    def _check_thread(self) -> None:
        if gevent.get_hub() is not self._hub:
            raise WrongThread('%r belongs to another thread; make a server in this one' % self)
        if self._forked:
            # The parent goes on with what was made. This one has its functions, and does nothing until it is told to.
            gevent.reinit()  # os.fork() does it only where it is patched
            self._set_up()


class AmqpRpcFanoutServer(AmqpRpcServer):
    """Runs functions for `AmqpRpcFanoutClient`s: every server of the service gets every request.

    The parameters are those of `AmqpRpcServer`. Each server has a queue of its own, which outlives its connection by a
    minute. A function that raises `IgnoreRequest` leaves the answer to the other servers: its request is acked and not
    answered.
    """

    _fanout = True
