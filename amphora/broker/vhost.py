"""A virtual host: names to exchanges, queues and bindings, and what may be done with them.

Pure: time is handed in as `now`; whoever wants to know of deadlines and cancels hands in callbacks. What a client may
not do is raised as the exception of the reply code that RabbitMQ answers with, and in its words. Where messages go is
`amphora.broker.routing`'s business.

Sources: AMQP 0-9-1 section 3.1, https://www.rabbitmq.com/docs/exchanges, /docs/queues.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from datetime import datetime, timezone

from amphora.amqp.errors import (
    AccessRefused,
    CommandInvalid,
    NotFound,
    NotImplemented_,
    PreconditionFailed,
    ResourceLocked,
)
from amphora.broker.arguments import QUEUE_ARGUMENTS, QueueOptions, amqp_type, check_equivalent, check_property
from amphora.broker.consumer import Consumer
from amphora.broker.exchanges import TYPES, X_MATCH, Arguments, DefaultExchange, Exchange, HeadersExchange
from amphora.broker.meter import Meter
from amphora.broker.queues import Entry, Queue
from amphora.broker.routing import Router
from amphora.broker.stored import StoredMessage

_PREDECLARED = {
    'amq.direct': 'direct',
    'amq.fanout': 'fanout',
    'amq.topic': 'topic',
    'amq.headers': 'headers',
    'amq.match': 'headers',
}


class VirtualHost:
    """Exchanges, queues and bindings of one name.

    :param name: such as ``/``.
    :param meter: counts the bytes of all messages.
    :param on_deadline: called with a queue and the time when `tick` wants to be called for it.
    :param wall_clock: the time of day, for dead letters.
    """

    def __init__(
        self,
        name: str,
        meter: Meter,
        on_deadline: Callable[[VirtualHost, Queue, float], None],
        wall_clock: Callable[[], datetime] = lambda: datetime.now(timezone.utc),
    ) -> None:
        self.name = name
        self._meter = meter
        self._on_deadline = on_deadline
        self.queues: dict[str, Queue] = {}
        self.exchanges: dict[str, Exchange] = {'': DefaultExchange(self.queues)}
        for exchange, kind in _PREDECLARED.items():
            self.exchanges[exchange] = TYPES[kind](exchange, durable=True)
        self.exchanges['amq.rabbitmq.trace'] = TYPES['topic']('amq.rabbitmq.trace', durable=True, internal=True)
        #: direct reply-to: full name -> whoever is handed the replies
        self.reply_consumers: dict[str, Callable[[StoredMessage], None]] = {}
        self._router = Router(self.exchanges, self.reply_consumers, self._watch, wall_clock)

    # -- exchanges -----------------------------------------------------------------------------------------------------

    def exchange(self, name: str) -> Exchange:
        """The exchange of this name.

        :raises NotFound: there is none.
        """
        exchange = self.exchanges.get(name)
        if exchange is None:
            raise NotFound("no exchange '%s' in vhost '%s'" % (name, self.name))
        return exchange

    def declare_exchange(
        self,
        name: str,
        kind: str,
        passive: bool = False,
        durable: bool = False,
        auto_delete: bool = False,
        internal: bool = False,
        arguments: Arguments | None = None,
    ) -> None:
        """Make an exchange, or see that it is there.

        :raises AccessRefused: the name is reserved.
        :raises NotFound: passive, and it does not exist.
        :raises PreconditionFailed: it exists and is another.
        :raises CommandInvalid: there are no exchanges of this kind.
        """
        self._not_default(name)
        if passive:
            self.exchange(name)
            return
        if kind not in TYPES:
            raise CommandInvalid("unknown exchange type '%s'" % kind)
        arguments = arguments or {}
        what = "exchange '%s'" % name
        current = self.exchanges.get(name)
        if current is not None:
            check_property('type', current.type, kind, what, self.name)
            check_property('durable', current.durable, durable, what, self.name)
            check_property('auto_delete', current.auto_delete, auto_delete, what, self.name)
            check_property('internal', current.internal, internal, what, self.name)
            check_equivalent(current.arguments, arguments, ('alternate-exchange',), what, self.name)
            return
        _not_reserved('exchange', name)
        alternate = arguments.get('alternate-exchange', '')
        if not isinstance(alternate, str):
            raise PreconditionFailed(
                "invalid type '%s' for arg 'alternate-exchange' in %s in vhost '%s'"
                % (amqp_type(alternate), what, self.name)
            )
        self.exchanges[name] = TYPES[kind](name, durable, auto_delete, internal, arguments)

    def delete_exchange(self, name: str, if_unused: bool = False) -> None:
        """Delete an exchange and every binding to and from it; nothing happens when it is not there.

        :raises AccessRefused: it is the broker's own.
        :raises PreconditionFailed: `if_unused`, and something is bound to it.
        """
        self._not_default(name)
        if name.startswith('amq.'):
            raise AccessRefused("deletion of system exchange '%s' in vhost '%s' not allowed" % (name, self.name))
        exchange = self.exchanges.get(name)
        if exchange is None:
            return
        if if_unused and exchange.in_use:
            raise PreconditionFailed("exchange '%s' in vhost '%s' in use" % (name, self.name))
        del self.exchanges[name]
        for destination in exchange.destinations():
            exchange.unbind_all(destination)
        self._unbind_everywhere(exchange)

    def _unbind_everywhere(self, destination: Queue | Exchange) -> None:
        """Remove every binding to what is gone, and the exchanges that go with their last binding."""
        # Not by recursion: a chain of such exchanges may be of any length.
        gone = [destination]
        while gone:
            destination = gone.pop()
            for exchange in list(self.exchanges.values()):
                if exchange.unbind_all(destination) and exchange.auto_delete and not exchange.in_use:
                    del self.exchanges[exchange.name]
                    gone.append(exchange)

    def bind_exchange(self, destination: str, source: str, routing_key: str, arguments: Arguments) -> None:
        """Let messages flow from one exchange to another.

        :raises NotFound: one of them does not exist.
        """
        self._not_default(destination)
        self._not_default(source)
        self._bind(self.exchange(source), self.exchange(destination), routing_key, arguments)

    def unbind_exchange(self, destination: str, source: str, routing_key: str, arguments: Arguments) -> None:
        """Undo `bind_exchange`; nothing happens when there is no such binding."""
        self._not_default(destination)
        self._not_default(source)
        self._unbind(self.exchanges.get(source), self.exchanges.get(destination), routing_key, arguments)

    def bind_queue(self, queue: str, exchange: str, routing_key: str, arguments: Arguments, owner: object) -> None:
        """Let messages of an exchange flow to a queue.

        :param owner: the connection that asks.
        :raises NotFound: one of them does not exist.
        :raises ResourceLocked: another connection has the queue exclusively.
        """
        self._not_default(exchange)
        self._bind(self.exchange(exchange), self.queue(queue, owner), routing_key, arguments)

    def unbind_queue(self, queue: str, exchange: str, routing_key: str, arguments: Arguments, owner: object) -> None:
        """Undo `bind_queue`; nothing happens when there is no such binding.

        :param owner: the connection that asks.
        :raises ResourceLocked: another connection has the queue exclusively.
        """
        self._not_default(exchange)
        source = self.exchanges.get(exchange)
        destination = self.queues.get(queue)
        if destination is not None and source is not None and source.has(destination, routing_key, arguments):
            self.queue(queue, owner)
        self._unbind(source, destination, routing_key, arguments)

    def _bind(self, source: Exchange, destination: Queue | Exchange, routing_key: str, arguments: Arguments) -> None:
        if isinstance(source, HeadersExchange):
            how = arguments.get('x-match', 'all')
            if not isinstance(how, str):
                raise PreconditionFailed(
                    'Invalid x-match field type %s (value %r); expected longstr' % (amqp_type(how), how)
                )
            if how not in X_MATCH:
                raise PreconditionFailed(
                    'Invalid x-match field value <<"%s">>; expected all, any, all-with-x, or any-with-x' % how
                )
        source.bind(destination, routing_key, arguments)

    def _unbind(
        self, source: Exchange | None, destination: Queue | Exchange | None, routing_key: str, arguments: Arguments
    ) -> None:
        if source is None or destination is None or not source.unbind(destination, routing_key, arguments):
            return
        if source.auto_delete and not source.in_use:
            del self.exchanges[source.name]
            self._unbind_everywhere(source)

    def _not_default(self, exchange: str) -> None:
        if not exchange:
            raise AccessRefused('operation not permitted on the default exchange')

    # -- queues --------------------------------------------------------------------------------------------------------

    def queue(self, name: str, owner: object) -> Queue:
        """The queue of this name.

        :param owner: the connection that asks.
        :raises NotFound: there is none.
        :raises ResourceLocked: another connection has it exclusively.
        """
        queue = self.queues.get(name)
        if queue is None:
            raise NotFound("no queue '%s' in vhost '%s'" % (name, self.name))
        if queue.owner is not None and queue.owner is not owner:
            raise self._locked(name)
        return queue

    def _locked(self, name: str) -> ResourceLocked:
        return ResourceLocked(
            "cannot obtain exclusive access to locked queue '%s' in vhost '%s'. It could be "
            'originally declared on another connection or the exclusive property value does not match that of the '
            'original declaration.' % (name, self.name)
        )

    def declare_queue(
        self,
        name: str,
        owner: object,
        now: float,
        passive: bool = False,
        durable: bool = False,
        exclusive: bool = False,
        auto_delete: bool = False,
        arguments: Arguments | None = None,
    ) -> Queue:
        """Make a queue, or see that it is there.

        :param name: empty: one is made up.
        :param owner: the connection that asks.
        :raises AccessRefused: the name is reserved.
        :raises NotFound: passive, and it does not exist.
        :raises PreconditionFailed: it exists and is another, or an argument makes no sense.
        :raises ResourceLocked: another connection has it exclusively, or it exists and is not exclusive.
        """
        if passive:
            queue = self.queue(name, owner)
            queue.touch(now)
            self._watch(queue)
            return queue
        arguments = arguments or {}
        # What goes with its connection is not durable, whatever was asked for.
        durable = durable and not exclusive
        if name:
            _not_reserved('queue', name)
        if name in self.queues:
            queue = self.queue(name, owner)
            what = "queue '%s'" % name
            if exclusive != (queue.owner is not None):
                raise self._locked(name)
            check_property('durable', queue.durable, durable, what, self.name)
            check_property('auto_delete', queue.auto_delete, auto_delete, what, self.name)
            check_equivalent(queue.arguments, arguments, QUEUE_ARGUMENTS, what, self.name)
            queue.touch(now)
            self._watch(queue)
            return queue
        made_up = not name
        if made_up:
            name = 'amq.gen-' + secrets.token_urlsafe(16)
        options = QueueOptions.parse(arguments, name, self.name)
        if options.quorum:
            if made_up:
                raise PreconditionFailed('Cannot declare a server-named queue for type rabbit_quorum_queue')
            self._check_quorum(name, durable, exclusive, auto_delete)
        queue = self.queues[name] = Queue(
            name,
            options,
            now,
            durable=durable,
            owner=owner if exclusive else None,
            auto_delete=auto_delete,
            arguments=arguments,
            on_dead=self._router.died,
            meter=self._meter,
        )
        self._watch(queue)
        return queue

    def _check_quorum(self, name: str, durable: bool, exclusive: bool, auto_delete: bool) -> None:
        for wrong, what in ((auto_delete, 'auto-delete'), (exclusive, 'exclusive-owner'), (not durable, 'non-durable')):
            if wrong:
                raise PreconditionFailed("invalid property '%s' for queue '%s' in vhost '%s'" % (what, name, self.name))

    def delete_queue(self, name: str, owner: object, if_unused: bool = False, if_empty: bool = False) -> int:
        """Delete a queue; gives the number of messages that were ready. Nothing happens when it is not there.

        :param owner: the connection that asks.
        :raises ResourceLocked: another connection has it exclusively.
        :raises PreconditionFailed: `if_unused` and it has consumers, or `if_empty` and it has messages.
        :raises NotImplemented_: either of them, and it is a quorum queue.
        """
        if name not in self.queues:
            return 0
        queue = self.queue(name, owner)
        if queue.options.quorum and (if_unused or if_empty):
            raise NotImplemented_(
                "cannot delete queue '%s' in vhost '%s'. queue.delete operations with %s flag set are not supported by "
                'quorum queues' % (name, self.name, 'if-unused' if if_unused else 'if-empty')
            )
        if if_unused and queue.consumers:
            raise PreconditionFailed("queue '%s' in vhost '%s' in use" % (name, self.name))
        if if_empty and queue.ready:
            raise PreconditionFailed("queue '%s' in vhost '%s' not empty" % (name, self.name))
        return self.remove_queue(queue)

    def remove_queue(self, queue: Queue) -> int:
        """Delete a queue, whoever has it; its consumers are told. Gives the number of messages that were ready."""
        if queue.deleted:
            return 0
        del self.queues[queue.name]
        self._unbind_everywhere(queue)
        consumers, queue.consumers = queue.consumers, []
        count = queue.delete()
        for consumer in consumers:
            consumer.on_cancel(consumer)
        return count

    def remove_owned(self, owner: object) -> None:
        """A connection has ended: its exclusive queues go."""
        for queue in [queue for queue in self.queues.values() if queue.owner is owner]:
            self.remove_queue(queue)

    # -- consuming -----------------------------------------------------------------------------------------------------

    def consume(self, queue: Queue, consumer: Consumer, now: float) -> None:
        """Add a consumer; `wake` it to begin with the deliveries.

        :raises AccessRefused: he, or somebody before him, wants to be the only one.
        """
        queue.add_consumer(consumer, self.name)
        queue.touch(now)

    def cancel(self, consumer: Consumer, now: float, dispatch: bool = True) -> None:
        """Remove a consumer; an auto-delete queue goes with its last one.

        :param dispatch: whether others get at once what was his; otherwise `dispatch` is to be called.
        """
        queue = consumer.queue
        assert queue is not None
        if queue.deleted:
            return
        queue.remove_consumer(consumer, now)
        if queue.auto_delete and not queue.consumers:
            self.remove_queue(queue)
        elif dispatch:
            # Where only one consumer is active it may have been this one.
            self.dispatch(queue, now)

    def dispatch(self, queue: Queue, now: float) -> None:
        """Hand out what is ready to those who have room."""
        if not queue.deleted:
            queue.dispatch(now)
            self._router.settle(queue, now)

    def wake(self, consumer: Consumer, now: float) -> None:
        """A consumer has room: give it what is ready."""
        queue = consumer.queue
        assert queue is not None
        if not queue.deleted:
            queue.wake(consumer)
            self.dispatch(queue, now)

    def get(self, queue: Queue, now: float) -> Entry | None:
        """Hand out a queue's first message; None when none is ready."""
        entry = queue.get(now)
        self._router.settle(queue, now)
        return entry

    def requeue(self, queue: Queue, entries: Iterable[Entry], now: float, refused: bool = True) -> None:
        """Messages that were handed out come back; see `Queue.requeue`."""
        queue.requeue(entries, now, refused)
        self._router.settle(queue, now)

    def reject(self, queue: Queue, entries: Iterable[Entry], now: float) -> None:
        """Messages that were handed out become dead letters."""
        for entry in entries:
            queue.reject(entry)
        self._router.settle(queue, now)

    def tick(self, queue: Queue, now: float) -> None:
        """The time that `on_deadline` was told has come."""
        if queue.deleted or (queue.watched_at is not None and now < queue.watched_at):
            return  # the queue had an earlier deadline once, which is met; this one will be told of
        queue.watched_at = None
        if queue.has_expired(now):
            self.remove_queue(queue)
        else:
            queue.expire(now)
            self._router.settle(queue, now)

    def watch_all(self) -> None:
        """Tell of every queue's deadline anew: nobody has watched them for a while."""
        for queue in self.queues.values():
            queue.watched_at = None
            self._watch(queue)

    def _watch(self, queue: Queue) -> None:
        deadline = queue.next_deadline()
        if deadline is not None and (queue.watched_at is None or deadline < queue.watched_at):
            queue.watched_at = deadline
            self._on_deadline(self, queue, deadline)

    # -- publishing ----------------------------------------------------------------------------------------------------

    def publish(self, message: StoredMessage, now: float) -> tuple[bool, bool]:
        """Put a message into the queues it is for.

        :returns: whether there is any, and whether all of them took it.
        :raises NotFound: there is no such exchange.
        :raises AccessRefused: the exchange is internal.
        """
        exchange = self.exchange(message.exchange)
        if exchange.internal:
            raise AccessRefused(
                "cannot publish to internal exchange '%s' in vhost '%s'" % (message.exchange, self.name)
            )
        return self._router.publish(exchange, message, now)


def _not_reserved(what: str, name: str) -> None:
    if name.startswith('amq.'):
        raise AccessRefused("%s name '%s' contains reserved prefix 'amq.*'" % (what, name))
