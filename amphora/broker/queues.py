"""A queue: what is ready, what is unacked, who consumes, and when a message has to go.

Pure: time is handed in as `now`, in seconds of any clock that only goes forward. Dead letters are handed to a callback;
where they go is `amphora.broker.routing`'s business.

Sources: https://www.rabbitmq.com/docs/queues, /docs/maxlength, /docs/ttl, /docs/priority, /docs/consumers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from heapq import merge
from typing import Any

from amphora.amqp.errors import AccessRefused
from amphora.broker.arguments import QueueOptions
from amphora.broker.consumer import Consumer
from amphora.broker.meter import Meter
from amphora.broker.stored import StoredMessage


class Entry:
    """A message in one queue.

    :ivar position: its place in the queue; a requeued message goes back to it.
    :ivar redelivered: whether it may have been handed out before.
    :ivar expires_at: when it dies, in the queue's clock; None: never.
    :ivar returns: how often it has come back unacked.
    """

    __slots__ = ('expires_at', 'message', 'position', 'redelivered', 'returns')

    def __init__(self, message: StoredMessage, position: int, expires_at: float | None) -> None:
        self.message = message
        self.position = position
        self.expires_at = expires_at
        self.redelivered = False
        self.returns = 0


#: called with the queue, a message that died in it, and why
OnDead = Callable[['Queue', StoredMessage, str], None]


def _position(entry: Entry) -> int:
    return entry.position


class Queue:
    """A queue.

    :param name: unique in its virtual host.
    :param options: what its arguments say.
    :param now: the time.
    :param durable: told back on redeclaration; this broker keeps nothing on disk.
    :param owner: the connection that has it exclusively; None: it belongs to nobody.
    :param auto_delete: to be deleted when its last consumer is gone.
    :param arguments: as declared.
    :param on_dead: see `OnDead`.
    :param meter: counts the bytes of what is here, ready or unacked.

    :ivar ready: messages that wait for a consumer.
    :ivar unacked: messages that were handed out and are not settled.
    :ivar deleted: set once it is gone from its virtual host; what is still unacked then is dropped when it comes back.
    """

    def __init__(
        self,
        name: str,
        options: QueueOptions,
        now: float,
        *,
        durable: bool = False,
        owner: object | None = None,
        auto_delete: bool = False,
        arguments: Mapping[str, Any] | None = None,
        on_dead: OnDead | None = None,
        meter: Meter | None = None,
    ) -> None:
        self.name = name
        self.options = options
        self.durable = durable
        self.owner = owner
        self.auto_delete = auto_delete
        self.arguments = dict(arguments or {})
        self.ready = 0
        self.unacked = 0
        self.deleted = False
        #: whether anything here may ever go by itself, so that `next_deadline` is worth asking
        self.timed = options.expires is not None or options.message_ttl is not None
        #: when somebody is going to look at it next because of that; None: nobody is
        self.watched_at: float | None = None
        self._ready_bytes = 0
        self._on_dead = on_dead
        self._meter = meter
        self._limited = options.max_length is not None or options.max_bytes is not None
        # One lane for each priority, the highest first.
        self._lanes: list[deque[Entry]] = [deque() for _ in range(options.max_priority + 1)]
        self._position = 0
        self._last_used = now
        self.consumers: list[Consumer] = []
        # Priority -> the consumers that may have room, in the order of their turns; the highest priority first.
        self._turns: dict[int, deque[Consumer]] = {}
        self._active: Consumer | None = None

    def __repr__(self) -> str:
        return '<Queue %r ready=%d unacked=%d consumers=%d>' % (
            self.name,
            self.ready,
            self.unacked,
            len(self.consumers),
        )

    # -- messages in ---------------------------------------------------------------------------------------------------

    def publish(self, message: StoredMessage, now: float) -> bool:
        """Take a message; False when the queue is full and refuses it."""
        options = self.options
        if self._limited and options.overflow != 'drop-head' and self._is_full(message):
            if options.overflow == 'reject-publish-dlx':
                self._bury(message, 'maxlen')
            return False
        self._position += 1
        entry = Entry(message, self._position, self._expiry(message, now))
        if self._meter is not None:
            self._meter.add(message.size)
        if self.consumers and not self.ready:
            consumer = self._next_consumer()
            if consumer is not None:
                self._hand_over(entry, consumer)
                return True
        self._lane(message).append(entry)
        self._count(entry)
        if self._limited:
            self._shorten()
        if entry.expires_at is not None and entry.expires_at <= now:
            self.expire(now)
        return True

    def _expiry(self, message: StoredMessage, now: float) -> float | None:
        ttl, own = self.options.message_ttl, message.expiration
        if own is not None:
            self.timed = True
            if ttl is None or own < ttl:
                ttl = own
        return None if ttl is None else now + ttl

    def _lane(self, message: StoredMessage) -> deque[Entry]:
        highest = self.options.max_priority
        return self._lanes[highest - min(message.priority, highest)] if highest else self._lanes[0]

    def _is_full(self, message: StoredMessage) -> bool:
        length, size = self.options.max_length, self.options.max_bytes
        return (length is not None and self.ready + 1 > length) or (
            size is not None and self._ready_bytes + len(message.body) > size
        )

    def _shorten(self) -> None:
        length, size = self.options.max_length, self.options.max_bytes
        while self.ready and (
            (length is not None and self.ready > length) or (size is not None and self._ready_bytes > size)
        ):
            entry = self._pop()
            self._drop(entry)
            self._bury(entry.message, 'maxlen')

    # -- messages out --------------------------------------------------------------------------------------------------

    def get(self, now: float) -> Entry | None:
        """Hand out the first message; None when none is ready. It is unacked until it is settled."""
        self._last_used = now
        self.expire(now)
        if not self.ready:
            return None
        entry = self._pop()
        self.unacked += 1
        return entry

    def dispatch(self, now: float) -> None:
        """Hand out what is ready to the consumers that have room."""
        if not self.ready or not self.consumers:
            return
        while self.ready:
            if self.timed:
                # With each message that goes another is at the head, whose time may be over.
                self.expire(now)
                if not self.ready:
                    return
            consumer = self._next_consumer()
            if consumer is None:
                return
            self._hand_over(self._pop(), consumer)

    def _hand_over(self, entry: Entry, consumer: Consumer) -> None:
        if consumer.no_ack:
            self._drop(entry)
        else:
            self.unacked += 1
            consumer.lend()
        consumer.deliver(consumer, entry)

    def settle(self, entry: Entry) -> None:
        """A message that was handed out is done with."""
        self.unacked -= 1
        self._drop(entry)

    def requeue(self, entries: Iterable[Entry], now: float, refused: bool = True) -> None:
        """Messages that were handed out come back: to their places, or dead when they have come back too often.

        :param refused: whoever had them said so; otherwise it has gone.
        """
        lanes: dict[int, list[Entry]] = {}
        limit = self.options.delivery_limit
        dead = []
        for entry in entries:
            self.unacked -= 1
            entry.redelivered = True
            entry.returns += 1
            if self.deleted:
                self._drop(entry)
            elif limit is not None and entry.returns > limit:
                self._drop(entry)
                dead.append(entry)
            else:
                if refused and self.options.quorum and limit is None:
                    # RabbitMQ's quorum queues without a limit put it behind everything, so that their log can end; but
                    # not what a channel leaves behind as it ends.
                    self._position += 1
                    entry.position = self._position
                lane = self._lane(entry.message)
                lanes.setdefault(id(lane), []).append(entry)
                self._count(entry)
        for lane in self._lanes:
            back = lanes.get(id(lane))
            if back is not None:
                _put_back(lane, sorted(back, key=_position))
        for entry in dead:
            self._bury(entry.message, 'delivery_limit')
        if self._limited and self.options.overflow == 'drop-head':  # the others refuse what is new, and lose nothing
            self._shorten()
        self.expire(now)
        self.dispatch(now)

    def reject(self, entry: Entry) -> None:
        """A message that was handed out is not wanted: it becomes a dead letter."""
        self.settle(entry)
        if not self.deleted:
            self._bury(entry.message, 'rejected')

    def purge(self) -> int:
        """Drop what is ready; gives its number."""
        count = self.ready
        for lane in self._lanes:
            while lane:
                entry = lane.popleft()
                self._discount(entry)
                self._drop(entry)
        return count

    def delete(self) -> int:
        """The queue is gone; gives the number of ready messages that went with it."""
        self.deleted = True
        return self.purge()

    def _pop(self) -> Entry:
        for lane in self._lanes:
            if lane:
                entry = lane.popleft()
                self._discount(entry)
                return entry
        raise IndexError('nothing is ready')

    def _count(self, entry: Entry) -> None:
        self.ready += 1
        self._ready_bytes += len(entry.message.body)

    def _discount(self, entry: Entry) -> None:
        self.ready -= 1
        self._ready_bytes -= len(entry.message.body)

    def _drop(self, entry: Entry) -> None:
        if self._meter is not None:
            self._meter.free(entry.message.size)

    def _bury(self, message: StoredMessage, reason: str) -> None:
        if self._on_dead is not None:
            self._on_dead(self, message, reason)

    # -- time ----------------------------------------------------------------------------------------------------------

    def touch(self, now: float) -> None:
        """Somebody has declared it: `x-expires` begins anew."""
        self._last_used = now

    def expire(self, now: float) -> None:
        """Messages at the head whose time is over become dead letters."""
        dead = []
        for lane in self._lanes:
            while lane and (at := lane[0].expires_at) is not None and at <= now:
                entry = lane.popleft()
                self._discount(entry)
                self._drop(entry)
                dead.append(entry)
            if lane:
                break  # what has a lower priority is not at the head
        for entry in dead:
            self._bury(entry.message, 'expired')

    def has_expired(self, now: float) -> bool:
        """Whether the queue itself has been unused for as long as `x-expires` says."""
        expires = self.options.expires
        return expires is not None and not self.consumers and now >= self._last_used + expires

    def next_deadline(self) -> float | None:
        """When `expire` or `has_expired` will have something to say; None: never, as things are."""
        deadline = None
        if self.options.expires is not None and not self.consumers:
            deadline = self._last_used + self.options.expires
        for lane in self._lanes:
            if lane:
                if (at := lane[0].expires_at) is not None and (deadline is None or at < deadline):
                    deadline = at
                break
        return deadline

    # -- consumers -----------------------------------------------------------------------------------------------------

    def add_consumer(self, consumer: Consumer, where: str) -> None:
        """Let somebody consume; `dispatch` then gives him what is ready.

        :param where: the virtual host, for the error.
        :raises AccessRefused: he, or somebody before him, wants to be the only one.
        """
        taken = self.consumers and (consumer.exclusive or self.consumers[0].exclusive)
        if taken or (consumer.exclusive and self.options.single_active):
            raise AccessRefused("queue '%s' in vhost '%s' in exclusive use" % (self.name, where))
        consumer.queue = self
        consumer.waiting = False
        self.consumers.append(consumer)
        if consumer.priority not in self._turns:
            self._turns[consumer.priority] = deque()
            self._turns = dict(sorted(self._turns.items(), reverse=True))
        self._turns[consumer.priority].append(consumer)
        if self._active is None:
            self._active = consumer

    def remove_consumer(self, consumer: Consumer, now: float) -> None:
        """Somebody consumes no more; what he has unacked he still has."""
        self.consumers.remove(consumer)
        turns = self._turns[consumer.priority]
        if not consumer.waiting:
            turns.remove(consumer)
        if not any(each.priority == consumer.priority for each in self.consumers):
            del self._turns[consumer.priority]
        if self._active is consumer:
            # The highest priority next, of these the first that came.
            self._active = max(self.consumers, key=lambda each: each.priority, default=None)
        self._last_used = now

    def wake(self, consumer: Consumer) -> None:
        """A consumer has room again; `dispatch` makes use of it."""
        if consumer.waiting:
            consumer.waiting = False
            self._turns[consumer.priority].append(consumer)

    def _next_consumer(self) -> Consumer | None:
        """The consumer whose turn it is.

        Those without room leave the round until `wake`, so that a queue with a thousand busy consumers need not ask
        each of them for each message.
        """
        if self.options.single_active:
            active = self._active
            return active if active is not None and active.has_room else None
        for turns in self._turns.values():
            while turns:
                consumer = turns[0]
                if consumer.has_room:
                    turns.rotate(-1)
                    return consumer
                turns.popleft().waiting = True
        return None


def _put_back(lane: deque[Entry], back: list[Entry]) -> None:
    if not lane or back[-1].position < lane[0].position:
        lane.extendleft(reversed(back))
    elif lane[-1].position < back[0].position:
        # To the end, as a quorum queue has it: not for the price of the whole queue.
        lane.extend(back)
    else:
        merged = list(merge(lane, back, key=_position))
        lane.clear()
        lane.extend(merged)
