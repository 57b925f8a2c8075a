"""From a call to its result: `Calling.call` is the whole way of one call.

How requests and replies look is the dialect's business, faults of the connection are those of `publisher` and
`consumer`; `pending` knows who waits. What the user of a client is offered is in `client`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any

import gevent
from gevent.event import AsyncResult
from gevent.exceptions import BlockingSwitchOutError
from greenlet import getcurrent, greenlet

from amphora.amqp import Channel, Message
from amphora.caller import NO_OPTIONS
from amphora.dialects.base import ClientSide
from amphora.envelope import Request
from amphora.errors import BufferFull, NoResult, NotSent, QueueFull, Unroutable
from amphora.logs import get_logger
from amphora.pending import Deferred, DeferredEntry, Entry, Pending
from amphora.publisher import Publication, Publisher
from amphora.session import Session
from amphora.topology import Topology

logger = get_logger('amphora.client')

#: seconds between two looks, after calls without a result, whether what replies come by is still there
CHECK_INTERVAL = 5.0
#: how many calls may wait for their results
MAX_PENDING = 1_000_000

# How often a full buffer is looked at, in seconds.
_POLL = 0.01

#: gets the positional and the keyword arguments of a call; gives a dict with ``routing_key``
Tuning = Callable[[tuple[Any, ...], dict[str, Any]], Mapping[str, Any]]


class Calling:
    """Calls functions for one client.

    :param name: what the log calls the client.
    :param uuid: where replies go, in the dialect's words.
    :param side: how requests and replies look.
    :param tunings: what makes the routing key of a function's calls from their arguments.
    :param topology: what the client has on the broker.
    :param publishing: the session that requests are sent through.
    :param consuming: the session that replies come through.
    :param confirm: whether requests are confirmed, and replies acked.
    :param buffer_count: number of requests that may wait for the broker.
    :param buffer_bytes: number of bytes of them that may wait to be sent.
    :param patience: seconds for which a request that the broker refuses is tried again.
    :param fanout: whether a request may go into many queues.
    :ivar encode_request: the dialect's.
    :ivar pending: the calls that wait.
    :ivar publisher: publishes the requests.
    :ivar ignored_replies: replies that nobody waited for: late ones, second ones, strangers'.
    """

    def __init__(
        self,
        name: str,
        uuid: str,
        side: ClientSide,
        tunings: Mapping[str, Tuning],
        topology: Topology,
        publishing: Session,
        consuming: Session,
        confirm: bool,
        buffer_count: int,
        buffer_bytes: int,
        patience: float,
        fanout: bool,
    ) -> None:
        self._name = name
        self._uuid = uuid
        self._side = side
        self._tunings = tunings
        self._topology = topology
        self._publishing = publishing
        self._consuming = consuming
        self._confirm = confirm
        self._fanout = fanout
        self._buffer = (buffer_count, buffer_bytes)
        self._hub = gevent.get_hub()
        self._next_id = side.new_ids()
        self.ignored_replies = 0
        self.pending = Pending(self._on_expired)
        self.publisher = Publisher(publishing, confirm, self._on_returned, buffer_count, buffer_bytes, patience)
        # Bound once, and not for each call.
        self._settled, self._refused = self._on_settled, self._on_refused
        self.encode_request, self._decode_reply, self._reply_id = side.encode_request, side.decode_reply, side.reply_id
        # When it was last made sure that replies can come.
        self._checked = 0.0

    def call(
        self, function: str, args: tuple[Any, ...], kwargs: dict[str, Any], options: Mapping[str, Any], deadline: float
    ) -> Any:
        """Send a request, wait for its reply, and give the result that is in it; see `AmqpRpcClient.call`.

        :param deadline: monotonic time until which to wait.
        """
        return self._decode(self._wait_for_outcome(function, args, kwargs, options, deadline, True))

    def cast(
        self, function: str, args: tuple[Any, ...], kwargs: dict[str, Any], options: Mapping[str, Any], deadline: float
    ) -> None:
        """Send a request that wants no answer, and wait until the broker has it; see `AmqpRpcClient.cast`."""
        self._wait_for_outcome(function, args, kwargs, options, deadline, False)

    def defer(
        self,
        function: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: Mapping[str, Any],
        deadline: float,
        buffer_waits: bool,
    ) -> AsyncResult[Any]:
        """Send a request; its reply resolves what is given at once. See `AmqpRpcClient.defer`.

        :param buffer_waits: wait for room when too much waits for the broker already.
        """
        if self._is_full() and not self._wait_for_room(deadline if buffer_waits else 0):
            raise BufferFull(
                '%d requests wait for the broker, and %d for their results; at most %d requests of %d bytes may wait'
                % (self.publisher.held, len(self.pending), *self._buffer)
            )
        wait_publish = options.get('wait_publish')
        if wait_publish:
            self._who_waits()
        result = Deferred()
        entry = DeferredEntry(self._next_id(), deadline, result, self._decode, self.pending.drop)
        self._send(entry, function, args, kwargs, options, True)
        if wait_publish:
            entry.publication.wait(max(0, deadline - monotonic()))
        return result

    def _wait_for_outcome(
        self,
        function: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: Mapping[str, Any],
        deadline: float,
        answered: bool,
    ) -> Any:
        """Send a request; what became of it: properties and body of its reply, or None of one that wants none and is
        confirmed."""
        if self._is_full() and not self._wait_for_room(deadline):
            raise NotSent('too many requests waited for the broker until the timeout: %s' % self._publishing.obstacle())
        waiting = self._who_waits()
        entry = Entry(self._next_id(), deadline)
        self._send(entry, function, args, kwargs, options, answered)
        try:
            return entry.wait(self._hub, waiting)
        except BaseException:
            # Killed, timed out from outside, or failed: nobody waits any more.
            self._forget(entry.id)
            raise

    def _who_waits(self) -> greenlet:
        current: greenlet = getcurrent()
        if current is self._hub:
            # The wait would raise this too, when the request is sent already.
            raise BlockingSwitchOutError(
                'nothing can wait in a callback of the event loop, and nothing was sent: use defer, or gevent.spawn'
            )
        return current

    def _is_full(self) -> bool:
        return self.publisher.full or len(self.pending) >= MAX_PENDING

    def _wait_for_room(self, deadline: float) -> bool:
        """Block until one more request can be accepted; False when none can until the deadline."""
        self.publisher.withdraw_expired()
        while self._is_full():
            if monotonic() >= deadline:
                return False
            gevent.sleep(_POLL)
        return True

    def _send(
        self,
        entry: Entry,
        function: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: Mapping[str, Any],
        answered: bool,
    ) -> None:
        routing_key = None if options is NO_OPTIONS else options.get('routing_key')
        if routing_key is None and function in self._tunings:
            routing_key = self._tune(function, args, kwargs)
        if answered:
            request = Request(entry.id, function, args, kwargs, self._uuid)
            encoded = self.encode_request(request, routing_key)
            deadline, on_settled = entry.deadline, self._settled
        else:
            request = Request(entry.id, function, args, kwargs)
            encoded = self._side.encode_task(request, routing_key)
            # The entry's deadline is that of the wait for the broker: the request itself does not expire.
            deadline, on_settled = None, self._on_task_settled
        entry.publication = Publication(
            encoded.exchange,
            encoded.routing_key,
            encoded.properties,
            encoded.body,
            deadline,
            on_settled,
            self._refused,
        )
        # Waiting before it is written: the reply may be that quick.
        self.pending.open(entry)
        try:
            self.publisher.publish(entry.publication)
        except BaseException:
            self.pending.take(entry.id)
            raise

    def _tune(self, function: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        tuned = self._tunings[function](args, kwargs)
        try:
            routing_key: str = tuned['routing_key']
        except (TypeError, KeyError):
            raise TypeError(
                "the tuning of %r must give a dict with the key 'routing_key', not %r" % (function, tuned)
            ) from None
        return routing_key

    def _decode(self, reply: tuple[dict[str, Any], bytes]) -> Any:
        properties, body = reply
        return self._decode_reply(properties, body)

    def _forget(self, id: str) -> None:
        entry = self.pending.take(id)
        if entry is not None:
            self.publisher.withdraw(entry.publication)

    # -- what becomes of a request: in the hub, nothing below may block ------------------------------------------------

    def on_delivery(
        self, channel: Channel, tag: int, redelivered: bool, properties: dict[str, Any], body: bytes
    ) -> None:
        """In the hub: take what has come to the reply queue."""
        if self._confirm:
            # A reply that comes again is ignored.
            channel.acks.add_late(tag)
        id = self._reply_id(properties)
        entry = self.pending.take(id)
        if entry is None:
            self.ignored_replies += 1
            logger.debug('%s: nobody waits for the reply %.100r', self._name, id)
            return
        # It has arrived, whatever becomes of its confirm: it must not be sent again.
        self.publisher.withdraw(entry.publication)
        entry.deliver((properties, body))

    def _on_settled(self, publication: Publication, acked: bool) -> None:
        # A returned request has failed already: its return came first.
        if not acked and publication.returned is None:
            self.pending.fail(self._side.request_id(publication.properties), self._queue_full(publication))

    def _on_task_settled(self, publication: Publication, acked: bool) -> None:
        if not acked:
            self._on_settled(publication, acked)
        elif publication.returned is None:
            # From the loop: without confirms this may be another greenlet, and only the hub may switch to a waiter.
            self._hub.loop.run_callback(self._end_task, self._side.request_id(publication.properties))

    def _end_task(self, id: str | None) -> None:
        self.pending.resolve(id, None)

    def _on_returned(self, message: Message) -> None:
        info = message.return_info
        assert info is not None
        text = 'no queue takes the request: exchange %r, routing key %r (%d %s)'
        text %= (info.exchange, info.routing_key, info.code, info.text)
        entry = self.pending.get(self._side.request_id(message.properties))
        if entry is not None:
            self.pending.fail(entry.id, Unroutable(text, _executed(entry.publication)))
            self.publisher.withdraw(entry.publication)
        if self._topology.binds(info.exchange, info.routing_key):
            # Somebody has deleted the queue or its binding.
            self._publishing.wake()

    def _on_refused(self, publication: Publication, error: Exception) -> None:
        self.pending.fail(self._side.request_id(publication.properties), error)

    def _on_expired(self, entry: Entry) -> None:
        publication: Publication = entry.publication
        self.publisher.withdraw(publication)
        error: NoResult
        if publication.turned_away:
            error = self._queue_full(publication)
        elif publication.written:
            error = NoResult(
                'no result in time; the call may have run, or may be running'
                if publication.deadline is not None
                else 'the broker did not confirm the request in time; it may run'
            )
            # Somebody may have deleted what its reply comes by, the exchange or the binding: that nobody tells. But
            # most often the reason is another, and a broker in trouble shall not be asked all the time.
            now = monotonic()
            if now - self._checked > CHECK_INTERVAL:
                self._checked = now
                self._consuming.wake()
        elif publication.held:
            error = NotSent('the request was not sent in time: %s' % self._publishing.obstacle())
        else:
            error = NotSent('the request was not sent in time: its time was over before this program came to send it')
        entry.throw(error)

    def _queue_full(self, publication: Publication) -> QueueFull:
        text = 'the broker refused the request: the queue is full, or too many of its nodes are down'
        # One queue of many may have refused it, while others have taken it.
        return QueueFull(text, None if self._fanout else _executed(publication))


def _executed(publication: Publication) -> bool | None:
    """What is known of a request that the broker did not take: when it was sent before, that one may have run."""
    return None if publication.repeated else False
