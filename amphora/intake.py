"""Requests from one queue: taken up to a limit, each settled once, the surplus given back.

Knows deliveries and how many of them are in hand; not what is in them.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import Any

import gevent
from gevent.event import Event

from amphora.amqp import Channel, Closed, Message
from amphora.consumer import Consumer
from amphora.session import Session
from amphora.timing import Deadline

#: seconds before a request that has come before goes back to its queue, so that one which nobody wants does not spin
REQUEUE_DELAY = 1.0


class Job:
    """A request in hand, and the channel that its ack belongs to. It ends with one of `done`, `moved`, `drop` and
    `give_back`.

    Once that channel has ended, the broker has given the request back to the queue and it comes again: acking or
    requeueing it does nothing then.

    :ivar tag: the delivery tag.
    :ivar redelivered: whether it may have been delivered before.
    :ivar ended: whether it has ended.
    :ivar gone_back: whether it ended so that it comes again.
    :ivar alone: whether it was moved to where it is run alone.
    :ivar stays: whether its queue takes no copy of it.
    """

    __slots__ = (
        '_intake',
        'alone',
        'body',
        'channel',
        'ended',
        'gone_back',
        'properties',
        'redelivered',
        'stays',
        'tag',
    )

    def __init__(
        self,
        channel: Channel,
        tag: int,
        redelivered: bool,
        properties: dict[str, Any],
        body: bytes,
        intake: Intake,
    ) -> None:
        self.channel = channel
        self.tag = tag
        self.redelivered = redelivered
        self.properties = properties
        self.body = body
        self.ended = self.gone_back = self.alone = self.stays = False
        self._intake = intake

    @property
    def stale(self) -> bool:
        """Whether the channel has ended."""
        return self.channel.closed

    @property
    def queue(self) -> str:
        """Name of the queue it was taken from."""
        return self._intake.queue

    @property
    def function(self) -> str | None:
        """The function that all requests in that queue are for; None: each says so itself."""
        return self._intake.function

    @property
    def recalled(self) -> bool:
        """Whether its intake has ended: what has not begun goes back."""
        return self._intake.told_to_finish

    def begin(self) -> bool:
        """Count it among the calls that its intake has taken; False when that has taken as many as it should."""
        return self._intake.count()

    def continue_as(self, message: Message, channel: Channel) -> None:
        """It goes on as another message, which was got on a channel; the one that it came by is acked, for certain."""
        self._ack()
        self.wait_acked()
        assert message.delivery_info is not None
        self.channel, self.tag, self.redelivered = channel, message.delivery_info.delivery_tag, False
        self.properties, self.body = message.properties, message.body
        self.alone = True

    def wait_acked(self) -> bool:
        """Block until the broker has dealt with all acks of its channel; False when that has ended before.

        They are not answered. And those that RabbitMQ has received and not yet dealt with when a connection ends, it
        forgets: of a process that is killed, the last may be lost although it had written them long before.
        """
        with suppress(Closed):
            self.channel.sync()
        return not self.stale

    def stay(self) -> None:
        """In the hub: its queue takes no copy of it, so it is dealt with as it is."""
        self.stays = True
        self._intake.look_again(self)

    def done(self) -> None:
        """It is answered: ack at the end of this turn of the loop, together with others."""
        self.channel.acks.add(self.tag)
        self._end()

    def moved(self) -> None:
        """It is somewhere else: ack at once."""
        self._ack()
        self._end()

    def drop(self) -> None:
        """It cannot be answered: drop it, or dead-letter it where its queue says so."""
        if self.alone:
            # From where it is kept, it would come again.
            self._ack()
        else:
            self._refuse(requeue=False)
        self._end()

    def give_back(self) -> None:
        """Somebody else may answer it: requeue, at once the first time, after a delay from then on."""
        self.ended = self.gone_back = True
        if self.redelivered:
            gevent.spawn_later(REQUEUE_DELAY, self._requeue)
        else:
            self._requeue()

    def _requeue(self) -> None:
        self._refuse(requeue=True)
        self._end()

    def _ack(self) -> None:
        self.channel.acks.settled(self.tag)
        with suppress(Closed):
            self.channel.ack(self.tag)

    def _refuse(self, requeue: bool) -> None:
        self.channel.acks.settled(self.tag)
        with suppress(Closed):
            self.channel.basic.reject(self.tag, requeue=requeue)

    def _end(self) -> None:
        self.ended = True
        self._intake.settled()


class Intake:
    """Takes requests from a queue.

    :param session: whose connection to use.
    :param queue: the queue's name.
    :param on_job: called in the hub with each `Job`; must not block.
    :param prefetch: how many may be in hand at once.
    :param max_calls: how many may begin; None: no end. What comes beyond is `on_job`'s to pass on.
    :param sole: nobody else is to take from this queue.
    :param function: the function that all requests in it are for; None: each says so itself.
    :ivar taken: how many have begun.
    """

    def __init__(
        self,
        session: Session,
        queue: str,
        on_job: Callable[[Job], None],
        prefetch: int,
        max_calls: int | None = None,
        sole: bool = False,
        function: str | None = None,
    ) -> None:
        self.taken = 0
        self.queue = queue
        self.function = function
        self._on_job = on_job
        self._max_calls = -1 if max_calls is None else max_calls
        self._in_hand = 0
        self._told_to_finish = False
        # Set by that, or when as many were taken as should.
        self._finished = Event()
        self._drained = Event()
        self._drained.set()
        self._consumer = Consumer(session, queue, self._on_delivery, prefetch, sole=sole)

    @property
    def in_hand(self) -> int:
        """How many requests are taken and not settled."""
        return self._in_hand

    @property
    def told_to_finish(self) -> bool:
        """Whether it was told to take no more."""
        return self._told_to_finish

    def start(self) -> None:
        """Take requests from now on, whenever there is a connection.

        :raises AmqpError: there is one, and the broker refused.
        """
        try:
            self._consumer.start()
        except BaseException:
            self.close()
            raise

    def finish(self) -> None:
        """Take no more; returns when the broker has said so. What comes until then is given back."""
        self._told_to_finish = True
        self._finished.set()
        self._consumer.cancel()

    def wait_finished(self, deadline: Deadline) -> bool:
        """Block until the limit is reached or `finish` is called; False when the deadline has come before."""
        return bool(self._finished.wait(deadline.remaining(monotonic())))

    def wait_drained(self) -> None:
        """Block until nothing is in hand."""
        self._drained.wait()

    def close(self) -> None:
        """Take no more, and let the broker give what is in hand to others."""
        self._told_to_finish = True
        self._finished.set()
        self._consumer.close()
        # What is in hand ends when the broker is back, if ever; whoever waits for it has been waiting for this.
        self._drained.set()

    def count(self) -> bool:
        """One more is about to run; False when as many have as should."""
        if self.taken == self._max_calls:
            return False
        self.taken += 1
        if self.taken == self._max_calls:
            self._finished.set()
        return True

    def look_again(self, job: Job) -> None:
        """In the hub: have a job that is in hand dealt with once more."""
        self._on_job(job)

    def settled(self) -> None:
        """One that was in hand has ended."""
        self._in_hand -= 1
        if not self._in_hand:
            self._drained.set()

    def _on_delivery(
        self, channel: Channel, tag: int, redelivered: bool, properties: dict[str, Any], body: bytes
    ) -> None:
        job = Job(channel, tag, redelivered, properties, body, self)
        if not self._in_hand:
            self._drained.clear()
        self._in_hand += 1
        if self._told_to_finish:
            # Prefetched messages still come after a cancel was sent.
            job.give_back()
        else:
            self._on_job(job)
