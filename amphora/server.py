"""From a delivery to its ack.

A request runs in a worker greenlet that is switched to from the hub and used again; `AmqpRpcServer._handle` is the
whole way of one request, top to bottom. Bytes are the dialect's business, faults that of `publisher` and `consumer`.
"""

from __future__ import annotations

import contextvars
import logging
import os
import sys
from collections.abc import Callable
from time import monotonic
from typing import Any, TypeVar, overload
from uuid import uuid4

import gevent
from gevent.event import Event
from gevent.lock import RLock
from greenlet import GreenletExit, getcurrent, greenlet

from amphora.amqp import Channel, Message, NotFound
from amphora.amqp.content import MAX_MESSAGE_SIZE
from amphora.checks import check_integer, check_name, check_seconds
from amphora.dialects import Dialect, Native
from amphora.dialects.base import Encoded
from amphora.dialects.native import fanout_queue, request_exchange, request_queue, response_exchange
from amphora.dispatch import FunctionTable
from amphora.envelope import Reply
from amphora.errors import IgnoreRequest, NotSent, WrongRequest, WrongThread
from amphora.intake import Intake, Job
from amphora.introspection import SERVICE as INTROSPECTION_SERVICE
from amphora.introspection import Introspection, ServerDescription, describe_server
from amphora.publisher import Publication, Publisher
from amphora.recent import Key, Recent
from amphora.serializer import AbstractRpcSerializer, RpcJsonSerializer
from amphora.session import Session
from amphora.settings import make_settings
from amphora.timing import Deadline
from amphora.topology import Binding, Exchange, Queue, Record, Topology

logger = logging.getLogger('amphora.server')

F = TypeVar('F', bound=Callable[..., Any])

#: milliseconds that the queue of a fanout server outlives its connection: time to come back after a fault
FANOUT_QUEUE_EXPIRES = 60_000
#: how many clients that are gone are remembered, so that each is logged once
GONE_COUNT = 1000
#: the longest timeout of `receive_from_queue`, in seconds: a year
MAX_TIMEOUT = 31_536_000
#: seconds that `receive_from_queue` waits for a broker
QUEUE_TIMEOUT = 60.0
#: seconds that `stop` waits for the broker to confirm the last replies
STOP_TIMEOUT = 30.0
# How often `stop` looks whether the work is done, in seconds.
_POLL = 0.01


class AmqpRpcServer:
    """Runs functions for the clients of a service.

    :param service_name: namespace of the service. Whoever may publish to its exchange can call its functions.
    :param serializer: makes and reads the bodies, see `amphora.serializer`; the clients must use the same.
    :param fresh_greenlets: run each request in a new greenlet. By default greenlets are used again, as threads of a
        pool are: what a function leaves in a `gevent.local` another may find. `contextvars` are each request's own
        either way.
    :param introspection: answer ``amphora list`` and whoever else asks which functions there are.
    :param options: the way to the broker, see `amphora.settings.make_settings`: amqp_url, amqp_host, amqp_port,
        amqp_user, amqp_password, amqp_vhost, amqp_ssl, heartbeat (seconds), prefetch (unacked requests at once),
        persistent, confirm, queue_type.
    :raises TypeError: an option is unknown or of the wrong type.
    :raises ValueError: an option makes no sense; the error names it.
    """

    _exchange_type = 'direct'

    def __init__(
        self,
        service_name: str,
        serializer: type[AbstractRpcSerializer] | AbstractRpcSerializer = RpcJsonSerializer,
        fresh_greenlets: bool = False,
        introspection: bool = True,
        **options: Any,
    ) -> None:
        if introspection and service_name == INTROSPECTION_SERVICE:
            raise ValueError("the service %r is introspection's own: take another name" % service_name)
        self.service_name = check_name(service_name, 'service_name')
        self.serializer = serializer
        self.uuid = str(uuid4())
        self._settings = make_settings(**options)
        self._fresh_greenlets = fresh_greenlets
        self._dialect: Dialect = Native(service_name, serializer, self._settings.delivery_mode)
        self._functions = FunctionTable()
        self._topology = Topology(self._records())
        self._hub = gevent.get_hub()
        self._pid = os.getpid()
        # Worker greenlets without a request; a dict, so that one that ends leaves at once.
        self._idle: dict[greenlet, None] = {}
        # Worker greenlets that run a request.
        self._working: set[greenlet] = set()
        # Requests that are being run: the first delivery of each, and those that came meanwhile and wait for its
        # answer.
        self._running: dict[Key, list[Job]] = {}
        self._recent: Recent[Encoded] = Recent()
        # Starting and stopping take turns.
        self._life = RLock()
        # Clients that a reply did not reach.
        self._gone: set[str] = set()
        self._stopped = Event()
        name = 'amphora server %s' % service_name
        self._publishing = Session(self._settings, self._topology, name + ' (publishes)')
        self._consuming = Session(self._settings, self._topology, name + ' (consumes)')
        self._publisher = Publisher(
            self._publishing, self._settings.confirm, self._on_returned, patience=self._settings.patience
        )
        self._introspection: Introspection | None = None
        if introspection:
            self._introspection = Introspection(self._describe, self.uuid, self._consuming, self._publisher)
        # What takes requests: the service's own queue from serve() on, and each receive_from_queue.
        self._own_intake: Intake | None = None
        self._intakes: list[Intake] = []

    @property
    def _queue(self) -> str:
        return request_queue(self.service_name)

    @property
    def _queue_arguments(self) -> tuple[tuple[str, Any], ...]:
        return self._settings.request_queue_arguments

    def _records(self) -> list[Record]:
        exchange = request_exchange(self.service_name)
        return [
            Exchange(exchange, self._exchange_type),
            Exchange(response_exchange(self.service_name), 'direct'),
            Queue(self._queue, self._queue_arguments),
            Binding(self._queue, exchange, ''),
        ]

    def __repr__(self) -> str:
        return '<%s %s %d functions>' % (type(self).__name__, self.service_name, len(list(self._functions)))

    def _describe(self) -> ServerDescription:
        return describe_server(self.service_name, self.uuid, self._exchange_type == 'fanout', self._functions)

    # -- functions -----------------------------------------------------------------------------------------------------

    @overload
    def add_function(self, func: F, name: str | None = None) -> F: ...

    @overload
    def add_function(self, func: str) -> Callable[[F], F]: ...

    @overload
    def add_function(self, func: None = None, name: str | None = None) -> Callable[[F], F]: ...

    def add_function(self, func: Any = None, name: str | None = None) -> Any:
        """Let clients call a function; in any of these forms::

            server.add_function(add)
            server.add_function(substract, name='sub')

            @server.add_function
            def multiply(x, y): ...

            @server.add_function('div')
            def divide(x, y): ...

        It may raise `IgnoreRequest` to leave the request to another server.

        :param func: the function; or, as a decorator, its name.
        :param name: what clients call it; None: the function's own name.
        :returns: the function itself, or a decorator.
        :raises TypeError: it cannot be called, or has no name of its own and is given none.
        """
        if isinstance(func, str):
            if name is not None:
                raise TypeError('the name was given twice: %r and %r' % (func, name))
            func, name = None, func
        if func is None:
            return lambda decorated: self.add_function(decorated, name)
        if name is None:
            name = getattr(func, '__name__', None)
            if name is None:
                raise TypeError('%r has no name of its own: give one with name=' % (func,))
        self._functions.add(func, name)
        return func

    # -- one request, from its delivery to its ack ---------------------------------------------------------------------

    def _on_job(self, job: Job) -> None:
        """In the hub: hand the request to a worker greenlet."""
        worker = self._idle.popitem()[0] if self._idle else greenlet(self._work, self._hub)
        self._working.add(worker)
        worker.switch(job)

    def _work(self, job: Job) -> None:
        """A worker greenlet's life: one request after the other, each in a context of its own."""
        worker = getcurrent()
        while True:
            try:
                contextvars.Context().run(self._handle, job)
            except BaseException:
                # Ctrl-C reaches the main greenlet this way; anything else is printed, as for any greenlet.
                self._hub.handle_error(self, *sys.exc_info())
            self._working.discard(worker)
            del job  # and with it the request's body
            if self._fresh_greenlets or len(self._idle) >= self._settings.prefetch:
                return
            self._idle[worker] = None
            try:
                job = self._hub.switch()
            except BaseException as error:
                # The server has stopped; or a gevent.Timeout came that a function had started and left behind.
                self._idle.pop(worker, None)
                logger.debug('an idle worker ends: %r', error)
                return

    def _handle(self, job: Job) -> None:
        """Decode, run, reply; the request is acked when the broker has the reply."""
        properties, body = job.message.properties, job.message.body
        id, reply_to = self._dialect.return_address(properties)
        if id is None or reply_to is None:
            logger.warning('a request without id or reply_to is dropped: nobody could be told of its result')
            job.drop()
            return
        key = (reply_to, id)
        answer = self._recent.get(key)
        if answer is None:
            repeats = self._running.get(key)
            if repeats is not None:
                logger.debug('request %.100s came again while it runs', id)
                repeats.append(job)
                return
            jobs = self._running[key] = [job]
            try:
                answer = self._answer(id, reply_to, properties, body)
            except BaseException:
                # Ctrl-C, or a mistake of ours: another server may do better.
                for each in jobs:
                    each.give_back()
                raise
            finally:
                del self._running[key]
            if answer is None:
                for each in jobs:
                    self._ignore(each)
                return
            self._recent.remember(key, answer, len(answer.body))
        else:
            logger.debug('request %.100s came again: answered from memory', id)
            jobs = [job]
        for each in jobs:
            self._reply(each, answer)

    def _answer(self, id: str, reply_to: str, properties: dict[str, Any], body: bytes) -> Encoded | None:
        """The reply to a request; None when the function does not want to answer."""
        try:
            reply = self._functions.invoke(self._dialect.decode_request(properties, body))
        except IgnoreRequest:
            return None
        except WrongRequest as error:
            logger.warning('a request that makes no sense, from %.100r: %s', reply_to, error)
            reply = Reply(id, error=error)
        try:
            encoded = self._dialect.encode_reply(reply, reply_to)
            if len(encoded.body) > MAX_MESSAGE_SIZE:
                raise ValueError(
                    'the result takes %d bytes; a message holds at most %d' % (len(encoded.body), MAX_MESSAGE_SIZE)
                )
            return encoded
        except Exception as error:
            logger.error('the reply to request %.100s cannot be sent: %s', id, error)
            return self._dialect.encode_reply(Reply(id, error=error), reply_to)

    def _reply(self, job: Job, answer: Encoded, instead: bool = False) -> None:
        def on_settled(publication: Publication, acked: bool) -> None:
            if acked:
                job.done()
            else:
                logger.warning(
                    'the broker refused the reply to request %s; it will be tried again', publication.message_id
                )
                job.give_back()

        def on_refused(publication: Publication, error: Exception) -> None:
            id, reply_to = self._dialect.return_address(job.message.properties)
            if instead or reply_to is None:
                job.drop()
            else:
                # The broker does not take this one, because of its size for example; its caller shall at least know.
                self._reply(job, self._dialect.encode_reply(Reply(id, error=error), reply_to), instead=True)

        address, properties, body = answer
        publication = Publication(
            address.exchange, address.routing_key, properties, body, None, on_settled, on_refused, waits=True
        )
        try:
            self._publisher.publish(publication)
        except ValueError as error:
            publication.refused(error)

    def _ignore(self, job: Job) -> None:
        """The function does not want the request: another server may."""
        job.give_back()

    def _on_returned(self, message: Message) -> None:
        info = message.return_info
        assert info is not None
        client, id = info.routing_key, message.properties.get('message_id')
        # Once for each client: one that leaves with a thousand calls under way is one piece of news.
        level = logging.DEBUG if client in self._gone else logging.INFO
        logger.log(level, 'client %.100s is gone: nobody takes the reply to request %.100s', client, id)
        if len(self._gone) >= GONE_COUNT:
            self._gone.clear()
        self._gone.add(client)

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
        intake = self._start_intake(name, prefetch, max_calls)
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
                    raise NotSent('no broker within %g s' % QUEUE_TIMEOUT)
            except NotFound:
                continue
            return name
        raise ValueError('there is neither a queue %r nor a queue %r' % tuple(names))

    def _start_intake(self, queue: str, prefetch: int, max_calls: int | None = None) -> Intake:
        intake = Intake(self._consuming, queue, self._on_job, prefetch, max_calls)
        intake.start()
        self._intakes.append(intake)
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
        if intake in self._intakes:
            self._intakes.remove(intake)

    # -- life ----------------------------------------------------------------------------------------------------------

    def serve(self, nowait: bool = True) -> None:
        """Connect and start working; replies held by `stop` are sent.

        :param nowait: True: return at once and connect in the background. False: block until `stop`; when something is
            raised meanwhile (Ctrl-C), stop first.
        :raises AmqpError: with ``nowait=False``, when the broker refuses the login, the virtual host or a queue.
        """
        self._check_thread()
        with self._life:
            self._stopped.clear()
            if self._own_intake is None:
                self._own_intake = self._start_intake(self._queue, self._settings.prefetch)
            self._start_sessions()
        if not nowait:
            try:
                self._consuming.wait_ready()
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
        self._own_intake = None
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
            for worker in list(self._idle):
                # From the loop: who throws into a greenlet that ends would not be switched back to.
                self._hub.loop.run_callback(worker.throw, GreenletExit)
            self._stopped.set()

    def stop_publisher(self) -> None:
        """Send no more replies: they are held until `serve`. Requests are still taken."""
        self._check_thread()
        with self._life:
            self._publishing.stop()

    def stop_consumer(self) -> None:
        """Take no more requests, and disconnect from where they come from when those that run are done. Replies are
        still sent."""
        self._check_outside()
        with self._life:
            self.prepare_stop()
            while self._working:
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
        if getcurrent() in self._working:
            raise RuntimeError(
                'a function of the server waits for itself to end: stop the server from elsewhere, as in '
                'gevent.spawn(server.stop)'
            )

    def _check_thread(self) -> None:
        if self._pid != os.getpid():
            raise WrongThread('%r was made before this process was forked; make a server in the child' % self)
        if gevent.get_hub() is not self._hub:
            raise WrongThread('%r belongs to another thread; make a server in this one' % self)


class AmqpRpcFanoutServer(AmqpRpcServer):
    """Runs functions for `AmqpRpcFanoutClient`s: every server of the service gets every request.

    The parameters are those of `AmqpRpcServer`. Each server has a queue of its own, which outlives its connection by a
    minute. A function that raises `IgnoreRequest` leaves the answer to the other servers: its request is acked and not
    answered.
    """

    _exchange_type = 'fanout'

    @property
    def _queue(self) -> str:
        return fanout_queue(self.service_name, self.uuid)

    @property
    def _queue_arguments(self) -> tuple[tuple[str, Any], ...]:
        return (*super()._queue_arguments, ('x-expires', FANOUT_QUEUE_EXPIRES))

    def _ignore(self, job: Job) -> None:
        job.done()
