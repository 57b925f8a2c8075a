"""What calls functions of a service: verbs, queues of one's own, connecting and stopping.

`caller` makes a call readable, and `calling` takes it from there to its result.
"""

from __future__ import annotations

import atexit
import os
import sys
import weakref
from collections.abc import Callable, Mapping
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import gevent
from gevent import get_hub
from gevent.event import AsyncResult, Event
from gevent.lock import RLock

from amphora.amqp import Channel
from amphora.caller import NO_OPTIONS, PrettyCaller
from amphora.calling import MAX_PENDING, Calling, Tuning
from amphora.checks import check_flag, check_integer, check_name, check_seconds
from amphora.consumer import Consumer
from amphora.dialects.base import Dialect
from amphora.dialects.native import INTROSPECTION_SERVICE, Native, request_queue
from amphora.errors import AmqpError, NotSent, WrongThread
from amphora.forking import abandoned_at_fork
from amphora.logs import get_logger
from amphora.native_threads import at_thread_end, warn_elsewhere
from amphora.outcome import Outcome
from amphora.party import party_of
from amphora.publisher import BUFFER_BYTES, BUFFER_COUNT
from amphora.serializer import AbstractRpcSerializer, RpcJsonSerializer
from amphora.session import Session
from amphora.settings import MAX_TTL, make_settings
from amphora.topology import Binding, Queue, Record, Topology, declare_all

if TYPE_CHECKING:
    from typing_extensions import Self  # of typing itself from 3.11 on

logger = get_logger('amphora.client')

#: the longest timeout, in seconds: a request expires with it
MAX_TIMEOUT = MAX_TTL
#: the most that `buffer_bytes` may be
MAX_BUFFER_BYTES = 1 << 40
#: what `defer` may do when the buffer is full
BUFFER_FULL = ('raise', 'wait')
#: seconds that `stop` waits for the broker to confirm what was sent
STOP_TIMEOUT = 5.0
#: seconds that `stop` waits for the broker to delete the reply queue
DELETE_TIMEOUT = 1.0

_OPTIONS = frozenset(('routing_key', 'timeout', 'wait_publish'))

# Those of this process, for a child that it forks.
_clients: weakref.WeakSet[AmqpRpcClient] = abandoned_at_fork(lambda client: client._abandon())
# Clients that are connected, or try to be: a program that ends without `stop` may still owe the broker requests, also
# those of a client that it has forgotten.
_working: set[AmqpRpcClient] = set()


@atexit.register
def _stop_all() -> None:
    # Kept until the end: what is stopped may have been forgotten by everybody else.
    working = list(_working)
    for client in working:
        client._stop_at_exit()
    for client in {*working, *_clients}:
        if client._publisher.held and not client._forked:
            logger.warning('%s', client._unsent_at_end('the program'))


# The process of multiprocessing that was told to stop them when it ends.
_told: int | None = None


def _stop_at_end_of_child() -> None:
    # A process of multiprocessing ends with os._exit, which calls nothing of atexit's, but its own finalizers.
    global _told
    processes = sys.modules.get('multiprocessing.process')
    if processes is not None and processes.parent_process() is not None and _told != os.getpid():
        from multiprocessing.util import Finalize

        Finalize(None, _stop_all, exitpriority=1)
        _told = os.getpid()


class AmqpRpcClient:
    """Calls functions of a service's servers.

    :param service_name: namespace of the service.
    :param uuid: names this client; None: a random one. Two clients of one uuid would steal each other's replies; so the
        copy of a client in a forked child takes a random one when it is first used.
    :param serializer: makes and reads the bodies, see `amphora.serializer`; the server must use the same.
    :param timeout: seconds that a call waits for its result unless told otherwise.
    :param autostart: connect now, in the background; False: when `serve` is called. Calls made before wait.
    :param buffer_count: number of requests that may wait for the broker, to be sent or to be confirmed.
    :param buffer_bytes: number of bytes of them that may wait to be sent.
    :param buffer_full: what `defer` does when more would have to wait: ``raise`` `BufferFull` at once, or ``wait`` for
        room, for as long as its timeout lasts. `call` waits anyway.
    :param dialect: another system's way of calling, see `amphora.dialects`; None: amphora's own.
    :param options: the way to the broker, see `amphora.settings.make_settings`: amqp_url, amqp_host, amqp_port,
        amqp_user, amqp_password, amqp_vhost, amqp_ssl, heartbeat (seconds), persistent, confirm, queue_type,
        queue_size, request_ttl (seconds), compression, compress_threshold (bytes).
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
        uuid: str | None = None,
        serializer: type[AbstractRpcSerializer] | AbstractRpcSerializer = RpcJsonSerializer,
        timeout: float = 60,
        autostart: bool = True,
        buffer_count: int = BUFFER_COUNT,
        buffer_bytes: int = BUFFER_BYTES,
        buffer_full: str = 'raise',
        dialect: Dialect | None = None,
        **options: Any,
    ) -> None:
        # Its exchange would be of the wrong type, and no server could say of itself what it is any more.
        if service_name == INTROSPECTION_SERVICE and dialect is None and not self._fanout:
            raise ValueError("the service %r is introspection's own: ask it with AmqpRpcFanoutClient" % service_name)
        self.service_name = check_name(service_name, 'service_name')
        self.serializer = serializer
        self.timeout = check_seconds(timeout, 'timeout', MAX_TIMEOUT)
        check_flag(autostart, 'autostart')
        self._buffer = (
            check_integer(buffer_count, 'buffer_count', 1, MAX_PENDING),
            check_integer(buffer_bytes, 'buffer_bytes', 1, MAX_BUFFER_BYTES),
        )
        if buffer_full not in BUFFER_FULL:
            raise ValueError('buffer_full must be one of %s, not %r' % (', '.join(BUFFER_FULL), buffer_full))
        self._buffer_waits = buffer_full == 'wait'
        self._settings = make_settings(service=service_name, **options)
        if dialect is None:
            dialect = Native()
        elif not isinstance(dialect, Dialect):
            raise TypeError('dialect must be an object such as amphora.dialects.Tutorial(), not %r' % (dialect,))
        self._dialect = dialect
        self._tunings: dict[str, Tuning] = {}
        self._hub = get_hub()
        self._call = PrettyCaller(self._do_call, _OPTIONS, 'call')
        self._defer = PrettyCaller(self._do_defer, _OPTIONS, 'defer')
        self._try_call = PrettyCaller(self._do_try_call, _OPTIONS, 'try_call')
        self._cast = PrettyCaller(self._do_cast, _OPTIONS, 'cast')
        self._set_up(check_name(uuid, 'uuid') if uuid is not None else str(uuid4()))
        _clients.add(self)
        if autostart:
            self.serve()

    def _set_up(self, uuid: str) -> None:
        """Make everything that belongs to one process."""
        self.uuid = uuid
        self._side = self._dialect.client_side(
            party_of(self.service_name, uuid, self.serializer, self._settings, self._fanout)
        )
        self._reply_queue = self._side.reply_queue
        self._topology = Topology(self._side.records())
        # Set when the work on queues that was asked for last has ended.
        self._queue_work = Event()
        self._queue_work.set()
        # Starting and stopping take turns.
        self._life = RLock()
        self._stopped = Event()
        # Whether this is a forked child's copy of a client that its parent made.
        self._forked = False
        name = 'amphora client %s' % self.service_name
        self._publishing = Session(self._settings, self._topology, name + ' (publishes)')
        # Queues of one's own are the publishing session's alone: what it has removed the other must not declare again.
        self._consuming = Session(self._settings, Topology(self._side.records()), name + ' (consumes)')
        self._calling = Calling(
            repr(self),
            uuid,
            self._side,
            self._tunings,
            self._topology,
            self._publishing,
            self._consuming,
            self._settings.confirm,
            *self._buffer,
            patience=self._settings.patience,
            fanout=self._fanout,
        )
        self._publisher, self._pending = self._calling.publisher, self._calling.pending
        self._consumer = Consumer(
            self._consuming,
            self._reply_queue.name,
            self._calling.on_delivery,
            no_ack=not self._settings.confirm,
            sole=True,
        )

    def _abandon(self) -> None:
        """In a forked child: what was made is the parent's."""
        self._forked = True
        self._pending.abandon()

    def _start_afresh(self) -> None:
        """In a forked child, when the client is used there: connections, reply queue and request ids of its own."""
        gevent.reinit()  # os.fork() does it only where it is patched
        was_working, topology = self in _working, self._topology
        self._set_up(str(uuid4()))
        self._topology.add(*(record for record in topology if not topology.is_essential(record)))
        if was_working:
            self.serve()

    def __repr__(self) -> str:
        return '<%s %s %s>' % (type(self).__name__, self.service_name, self.uuid)

    # -- calling -------------------------------------------------------------------------------------------------------

    @property
    def ignored_replies(self) -> int:
        """Replies that nobody waited for: late ones, second ones, strangers'."""
        return self._calling.ignored_replies

    @property
    def call(self) -> PrettyCaller:
        """Call a remote function and wait for its result: ``client.call.add(2, 3)``.

        Options go before the name: ``client.call(timeout=5).add(2, 3)``.

        - ``function_name``: the name as text.
        - ``routing_key``: which queue is meant; by default that of the function's tuning, else the service's own.
        - ``timeout``: seconds to wait for the result.
        - ``wait_publish``: of use to `defer`; a call waits for more than that anyway.

        :raises RemoteException: the function raised.
        :raises WrongRequest: the server has no such function, or cannot read the request.
        :raises NoResult: no result in time; its subclasses and its ``executed`` say more.
        :raises WrongResult: the client cannot make sense of the reply.
        :raises TypeError, ValueError: an argument cannot be serialised, the request is too large, or an option makes no
            sense; the error names it, and nothing was sent.
        :raises AmqpError: the broker refuses the login, the virtual host or a queue this client needs.
        :raises WrongThread: the client was made in another thread.
        :raises gevent.exceptions.BlockingSwitchOutError: in a callback of the event loop, such as that of a result's
            ``rawlink``, where nothing can wait; nothing was sent.
        """
        return self._call

    @property
    def defer(self) -> PrettyCaller:
        """Call a remote function without waiting; gives a `gevent.event.AsyncResult`: ``client.defer.add(2, 3).get()``.

        Options as of `call`; ``wait_publish=True`` returns when the broker has the request, or the timeout is over.
        `get` of the result raises what `call` would. A result that nobody holds, and nobody has linked a callback to,
        is forgotten; its request is still sent.

        :raises BufferFull: too many requests already wait for the broker, and with ``buffer_full='wait'`` did so until
            the timeout; this one was not accepted.
        """
        return self._defer

    @property
    def try_call(self) -> PrettyCaller:
        """Call a remote function as `call` does, and raise no `Exception`: gives an `Outcome`.

        ::

            ok, value = client.try_call(timeout=5).add(2, 3)
        """
        return self._try_call

    @property
    def cast(self) -> PrettyCaller:
        """Have a remote function run, at some time, by some server, and want no answer: ``client.cast.clean_up()``.

        Returns when the broker has the request; that is persistent and waits for a server as long as it takes. When the
        function raises, the server's ``on_failure`` says what becomes of it.

        Options as of `call`; ``timeout`` is for how long to wait for the broker.

        :raises NoResult: the broker did not take the request; its subclasses and its ``executed`` say more.
        :raises TypeError: an argument cannot be serialised; or the dialect has no such requests.
        """
        return self._cast

    def _do_call(self, function: str, args: tuple[Any, ...], kwargs: dict[str, Any], options: Mapping[str, Any]) -> Any:
        self._check_thread()
        return self._calling.call(function, args, kwargs, options, monotonic() + self._timeout(options))

    def _do_try_call(self, *call: Any) -> Outcome:
        try:
            return Outcome(self._do_call(*call))
        except Exception as error:
            return Outcome(error=error)

    def _do_cast(
        self, function: str, args: tuple[Any, ...], kwargs: dict[str, Any], options: Mapping[str, Any]
    ) -> None:
        self._check_thread()
        self._calling.cast(function, args, kwargs, options, monotonic() + self._timeout(options))

    def _do_defer(
        self, function: str, args: tuple[Any, ...], kwargs: dict[str, Any], options: Mapping[str, Any]
    ) -> AsyncResult[Any]:
        self._check_thread()
        return self._calling.defer(
            function, args, kwargs, options, monotonic() + self._timeout(options), self._buffer_waits
        )

    def _timeout(self, options: Mapping[str, Any]) -> float:
        timeout = None if options is NO_OPTIONS else options.get('timeout')
        return self.timeout if timeout is None else check_seconds(timeout, 'timeout', MAX_TIMEOUT)

    # -- queues of one's own -------------------------------------------------------------------------------------------

    def create_new_request_queue(
        self, queue: str, routing_key: str | None = None, x_expires: int | None = None, nowait: bool = False
    ) -> None:
        """Make a queue ``rpc_{queue}_request`` and bind it to the request exchange.

        Servers take calls from it after ``receive_from_queue(queue)``; calls go there by their ``routing_key``. It is
        made again after a reconnect, until `remove_request_queue`.

        :param queue: a label, from which the queue's name is made.
        :param routing_key: None: the label.
        :param x_expires: milliseconds that the queue may be without consumers before RabbitMQ deletes it; None: it
            stays. (The original's reference said microseconds; RabbitMQ has always counted milliseconds:
            https://www.rabbitmq.com/docs/ttl.)
        :param nowait: do not wait until it is there: a call made at once may still be `Unroutable`.
        :raises PreconditionFailed: it exists with other arguments.
        :raises AmqpError: the broker refuses the login, the virtual host or a queue.
        :raises NotSent: there was no broker within the client's timeout.
        :raises TypeError: the dialect has no such queues; or an argument is of the wrong type.
        :raises ValueError: `x_expires` is out of range; or a name is too long.
        """
        self._check_thread()
        exchange = self._side.request_exchange
        if exchange is None:
            raise TypeError('%r has no queues of its own: its dialect has none' % self)
        arguments = self._settings.request_queue_arguments
        if x_expires is not None:
            arguments += (('x-expires', check_integer(x_expires, 'x_expires', 1, 4_294_967_295)),)
        name = request_queue(queue)
        binding = Binding(name, exchange, queue if routing_key is None else routing_key)
        records: tuple[Record, ...] = (Queue(name, arguments), binding)

        # What an earlier call has made stays, whatever becomes of this one.
        new = [record for record in records if record not in self._topology]

        def create() -> None:
            self._topology.add(*records)
            try:
                self._do_on_broker(partial(declare_all, records), 'queue %r was not created' % name)
            except BaseException:
                self._topology.discard(*new)
                raise

        if nowait:
            # Wished for at once: when there is no connection yet, the queue is there before any request is sent.
            self._topology.add(*records)
        self._maybe_wait(create, nowait)

    def remove_request_queue(self, queue: str, nowait: bool = False) -> None:
        """Delete a queue ``rpc_{queue}_request``, and the requests in it. Nothing happens when it is not there.

        :param queue: the label given to `create_new_request_queue`.
        :param nowait: do not wait until it is gone.
        :raises AmqpError: the broker refuses the login, the virtual host or a queue.
        :raises NotSent: there was no broker within the client's timeout.
        """
        self._check_thread()
        name = check_name(request_queue(queue), 'the name of a queue')

        def remove() -> None:
            self._topology.discard_queue(name)
            self._do_on_broker(lambda channel: channel.queue.delete(name), 'queue %r was not removed' % name)

        self._maybe_wait(remove, nowait)

    def _do_on_broker(self, work: Callable[[Channel], object], failure: str) -> None:
        if not self._publishing.with_channel(work, self.timeout):
            raise NotSent('%s within %g s: %s' % (failure, self.timeout, self._publishing.obstacle()))

    def _maybe_wait(self, work: Callable[[], None], nowait: bool) -> None:
        # Who removes a queue and makes it again at once, without waiting, means that order: each waits for the end of
        # the one that was asked for before it.
        before, ended = self._queue_work, Event()
        self._queue_work = ended

        def in_turn() -> None:
            try:
                before.wait()
                work()
            finally:
                ended.set()

        if not nowait:
            in_turn()
            return

        def logged() -> None:
            try:
                in_turn()
            except (AmqpError, NotSent) as error:
                logger.error('%r: %s', self, error)

        gevent.spawn(logged)

    def tune_function(self, func_name: str) -> Callable[[Tuning], Tuning]:
        """Have a function's routing key made from its arguments; usable as a decorator.

        :param func_name: name of the remote function.
        :returns: what takes the tuning function: it is called with the positional arguments as a tuple and the keyword
            arguments as a dict, and gives a dict with ``routing_key`` (``queue`` is of the past, and ignored). A call's
            own ``routing_key`` option goes first. It raises `TypeError` for what cannot be called.
        """

        def tune(tuning: Tuning) -> Tuning:
            if not callable(tuning):
                raise TypeError('the tuning of %r must be callable, which %r is not' % (func_name, tuning))
            self._tunings[func_name] = tuning
            return tuning

        return tune

    # -- life ----------------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        """`serve`, which has happened already unless ``autostart=False``."""
        self.serve()
        return self

    def __exit__(self, *exception: object) -> None:
        """`stop`."""
        self.stop()

    def serve(self, nowait: bool = True) -> None:
        """Connect and start working; sends what was held by `stop`.

        :param nowait: True: return at once and connect in the background. False: block until `stop`.
        :raises AmqpError: with ``nowait=False``, when the broker refuses the login, the virtual host or a queue.
        """
        self._check_thread()
        with self._life:
            self._stopped.clear()
            _stop_at_end_of_child()
            _working.add(self)
            at_thread_end(self, AmqpRpcClient._end_with_thread)
            self._consumer.start()
            self._publishing.start()
            self._consuming.start()
        if not nowait:
            self._publishing.wait_ready(until_stopped=True)
            self._stopped.wait()

    def stop(self) -> None:
        """Disconnect. Requests that were not sent are held until `serve`; calls go on waiting until their timeout.

        A client that is not stopped when the program ends is stopped then, after at most five seconds for what is not
        sent.
        """
        self._check_thread()
        with self._life:
            _working.discard(self)
            self._publisher.wait_settled(STOP_TIMEOUT)
            self._publishing.stop()
            self._consumer.cancel()
            if not self._pending:
                self._delete_reply_queue()
            self._consuming.stop()
            # A thread may end its hub right after this: a timer that runs then is never freed, nor what it calls.
            self._pending.rest()
            self._stopped.set()

    def stop_publisher(self) -> None:
        """Send no more requests: they are held until `serve`. Replies still come in."""
        self._check_thread()
        with self._life:
            self._publishing.stop()

    def stop_consumer(self) -> None:
        """Take no more replies: they wait in their queue until `serve`. Requests are still sent."""
        self._check_thread()
        with self._life:
            self._consumer.cancel()
            self._consuming.stop()

    def _check_thread(self) -> None:
        if get_hub() is not self._hub:
            raise WrongThread('%r belongs to another thread; make a client in this one' % self)
        if self._forked:
            self._start_afresh()

    def _delete_reply_queue(self) -> None:
        if self._consuming.connection is None:
            return
        try:
            self._consuming.with_channel(
                # Of a quorum queue RabbitMQ does not say whether it is used, and closes the connection.
                lambda channel: channel.queue.delete(
                    self._reply_queue.name, if_unused=self._settings.queue_type != 'quorum'
                ),
                DELETE_TIMEOUT,
            )
        except AmqpError as error:
            # It expires by itself; this is only tidier.
            logger.debug('%r: the reply queue stays: %s', self, error)

    def _stop_at_exit(self) -> None:
        # Not in a forked child, whose parent goes on with these connections; not from a thread that is not ours.
        if self._forked or self._hub is not get_hub():
            return
        if self._publisher.held:
            # The program may have ended before there was a connection: give it a chance.
            self._publisher.wait_settled(STOP_TIMEOUT, even_away=True)
        self.stop()

    def _end_with_thread(self) -> None:
        _working.discard(self)
        _clients.discard(self)
        if self._publisher.held:
            warn_elsewhere(logger, self._unsent_at_end('its thread'))

    def _unsent_at_end(self, of_what: str) -> str:
        return '%r: %s ends with %d requests not sent' % (self, of_what, self._publisher.held)


class AmqpRpcFanoutClient(AmqpRpcClient):
    """Calls functions of all of a service's `AmqpRpcFanoutServer`s at once; the first answer is the result.

    The parameters are those of `AmqpRpcClient`. Who hears a call is every server whose queue exists when it is
    published; when there is none, the call raises `Unroutable`.
    """

    _fanout = True
