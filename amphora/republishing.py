"""Requests that go elsewhere than to a function: to their queue again as a copy, or into the queue of dead letters.

The copy is published first, and what the request came by is acked when the broker has it: a crash in between leaves two
of a request, never none.

Knows jobs, queues and properties; not what is in a request, nor why it is to go.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from time import time
from typing import Any

from amphora.amqp import AccessRefused, Channel, PreconditionFailed
from amphora.dead_letters import bury, dead_queue, dead_queue_arguments
from amphora.errors import AmqpError
from amphora.intake import Job
from amphora.logs import get_logger
from amphora.publisher import Publication, Publisher
from amphora.queue_arguments import QueueArguments
from amphora.redelivery import count_deliveries, send_again
from amphora.session import Session
from amphora.topology import Queue

logger = get_logger('amphora.server')

#: seconds that setting a request aside may take, before it goes back to its queue
BURY_TIMEOUT = 10.0


class Republishing:
    """Publishes requests of one service again.

    :param service: name of the service.
    :param session: the one that the server publishes with.
    :param publisher: publishes the copies.
    :param queue_arguments: arguments that a queue of the service's is declared with.
    :param shared: whether other servers take requests from the same queues.
    :ivar allowed: whether the broker lets this server publish to its queues by their names.
    """

    def __init__(
        self, service: str, session: Session, publisher: Publisher, queue_arguments: QueueArguments, shared: bool
    ) -> None:
        self.allowed = True
        self._session = session
        self._publisher = publisher
        self._shared = shared
        # The copies that the broker does not have yet, by number; the oldest is the first.
        self._under_way: dict[int, None] = {}
        self._count = 0
        self._dead_queue = Queue(dead_queue(service), dead_queue_arguments(queue_arguments))

    def copies_so_far(self) -> Callable[[], bool]:
        """Gives what says whether the broker has all copies that were published until now."""
        last = self._count
        return lambda: next(iter(self._under_way), last + 1) > last

    def send_again(self, job: Job, deliveries: int) -> None:
        """Have a request delivered again, with so many deliveries counted."""
        # A queue that is full takes no copy. What was given back would come first again, and nothing else ever.
        self._send([job], job.queue, send_again(job.properties, deliveries, time()), if_full=Job.stay)

    def pass_on(self, jobs: list[Job], ignored: bool = False) -> None:
        """Leave a request to another server; all its deliveries end with that.

        :param ignored: its function did not want it.
        """
        if not (self._shared and self.allowed):
            for job in jobs:
                job.give_back()
            return
        # A copy and not the request itself, which would look as if this delivery had come to grief.
        first = jobs[0]
        # This delivery has not: so it does not count.
        deliveries = count_deliveries(first.properties) - first.alone
        self._send(jobs, first.queue, send_again(first.properties, deliveries, time(), ignored))

    def bury(self, jobs: list[Job], deliveries: int, reason: str) -> bool:
        """Set a request aside; False when that is not possible now, and it has gone back.

        :param deliveries: how many times it was delivered.
        :param reason: for whoever looks at it.
        """
        if _end_if_gone_back(jobs):
            return False
        first = jobs[0]
        if not self._have_dead_queue(first, reason):
            for job in jobs:
                job.give_back()
            return False
        logger.error(
            'request %.100r is set aside in queue %s: %s',
            first.properties.get('message_id'),
            self._dead_queue.name,
            reason,
        )
        self._send(jobs, self._dead_queue.name, bury(first.properties, first.queue, deliveries, reason))
        return True

    def _have_dead_queue(self, job: Job, reason: str) -> bool:
        """Have the queue of dead letters on the broker; False when that cannot be."""
        if not self.allowed:
            logger.error(
                'request %.100r cannot be set aside, and is tried again: this server may not publish to the default '
                'exchange: %s',
                job.properties.get('message_id'),
                reason,
            )
            return False
        try:
            return self._session.with_channel(self._declare_dead_queue, BURY_TIMEOUT)
        except AmqpError as error:
            logger.error('request %.100r cannot be set aside: %s', job.properties.get('message_id'), error)
            return False

    def _declare_dead_queue(self, channel: Channel) -> None:
        try:
            self._dead_queue.declare(channel)
        except PreconditionFailed:
            logger.debug('queue %s is as somebody else has made it', self._dead_queue.name)

    def _send(
        self,
        jobs: list[Job],
        queue: str,
        properties: dict[str, Any],
        if_full: Callable[[Job], None] = Job.give_back,
    ) -> None:
        if _end_if_gone_back(jobs):
            return
        self._count = number = self._count + 1
        self._under_way[number] = None
        self._publisher.submit(
            Publication(
                '',
                queue,
                properties,
                jobs[0].body,
                on_settled=partial(self._on_settled, number, jobs, if_full),
                on_refused=partial(self._on_refused, number, jobs),
                waits=True,
            )
        )

    def _on_settled(
        self,
        number: int,
        jobs: list[Job],
        if_full: Callable[[Job], None],
        publication: Publication,
        acked: bool,
    ) -> None:
        del self._under_way[number]
        for job in jobs:
            if acked and publication.returned is None:
                job.moved()
            elif acked or job.stale or job.recalled:
                job.give_back()
            else:
                if_full(job)

    def _on_refused(self, number: int, jobs: list[Job], publication: Publication, error: Exception) -> None:
        del self._under_way[number]
        if isinstance(error, AccessRefused):
            logger.error(
                'this server may not publish to the default exchange, so requests that kill it are not noticed: %s',
                error,
            )
            self.allowed = False
        else:
            logger.error('request %.100r is dropped: it cannot be sent again: %s', publication.message_id, error)
        for job in jobs:
            if self.allowed:
                job.drop()
            else:
                job.give_back()


def _end_if_gone_back(jobs: list[Job]) -> bool:
    """End the deliveries of a request that the broker delivers again by itself, so that a copy would make two of it;
    False when it does not."""
    if not all(job.stale for job in jobs):
        return False
    for job in jobs:
        job.done()
    return True
