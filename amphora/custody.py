"""Requests that may end their server run one at a time, each kept in a queue of its own meanwhile.

A server that ends takes all its requests with it, the one that is to blame and those that ran beside it, and RabbitMQ
says of each only that it was delivered before. So a request that has come to grief several times is run alone among its
like: the server moves it, with its deliveries counted, to a queue made for it, and holds it there unacked. When the
server ends, this one goes back to the request queue from there, counted; those that waited for their turn go back as
they were.

Knows jobs and queues; not what is in a request.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from time import monotonic
from typing import Any
from uuid import uuid4

import gevent
from gevent.lock import BoundedSemaphore

from amphora.amqp import Channel, Message
from amphora.errors import AmqpError, NotSent
from amphora.intake import Job
from amphora.queue_arguments import QueueArguments
from amphora.session import Session
from amphora.timing import Deadline

logger = logging.getLogger('amphora.server')

#: milliseconds after which a request whose server has ended goes back to its request queue
RETURN_AFTER = 1000
#: milliseconds after which the queue of a server that has ended is gone; long after the request has gone back
EXPIRES = 60_000
#: seconds that moving a request may take
MOVE_TIMEOUT = 10.0
#: seconds for which the reply may wait for the broker, before the request goes back
REPLY_TIMEOUT = 30.0
#: seconds that deleting the queue may take; it expires by itself
DELETE_TIMEOUT = 1.0
# How often to look whether the request has ended, in seconds.
_POLL = 0.05


class Custody:
    """Runs one request at a time.

    :param session: on whose connection the requests are kept.
    :param service: name of the service.
    :param queue_arguments: arguments that a queue of the service's is declared with.
    """

    def __init__(self, session: Session, service: str, queue_arguments: QueueArguments) -> None:
        self._session = session
        self._service = service
        self._queue_arguments = queue_arguments
        self._turn = BoundedSemaphore(1)

    def run(self, job: Job, properties: dict[str, Any], work: Callable[[Job], None]) -> None:
        """Do a job when it is its turn; returns when it has ended.

        :param properties: those of the request while it is kept, with its deliveries counted.
        """
        with self._turn:
            try:
                seconds = 0 if job.stale or job.recalled else MOVE_TIMEOUT  # since it has waited for its turn
                connection = self._session.wait_ready(Deadline.after(seconds, monotonic()))
                if job.stale or job.recalled or connection is None:
                    job.give_back()
                    return
                with _no_longer_than_a_move():
                    channel = connection.channel()
                with channel:
                    self._run(channel, job, Message(job.body, **properties), work)
            except (AmqpError, NotSent) as error:
                # What is kept already goes back with the channel's end.
                if not (job.ended or job.alone):
                    logger.warning('a request that came to grief before is given back: %s', error)
                    job.give_back()

    def _run(self, channel: Channel, job: Job, message: Message, work: Callable[[Job], None]) -> None:
        name = 'rpc_%s_%s_custody' % (self._service, uuid4())
        arguments = {
            **dict(self._queue_arguments),
            'x-message-ttl': RETURN_AFTER,
            'x-dead-letter-exchange': '',
            'x-dead-letter-routing-key': job.queue,
            'x-expires': EXPIRES,
        }
        with _no_longer_than_a_move():
            channel.confirm.select()
            channel.queue.declare(name, durable=True, arguments=arguments)
            try:
                channel.basic.publish(message, '', name, mandatory=True, wait=True)
            except ValueError as error:
                # Its headers leave no room for the count: given back, it would come again and again.
                logger.error('a request that came to grief before is dropped: it cannot be sent again: %s', error)
                channel.queue.delete(name)
                job.drop()
                return
            kept = channel.basic.get(name)
        if kept is None:
            # It took so long that it has gone back already.
            job.done()
            return
        # If this is the end of the server, the broker shall not have two of them.
        job.continue_as(kept, channel)
        work(job)
        deadline = Deadline.after(REPLY_TIMEOUT, monotonic())
        while not (job.ended or channel.closed or deadline.expired(monotonic())):
            gevent.sleep(_POLL)
        if job.ended and not job.gone_back and not channel.closed:
            channel.acks.flush()
            gevent.with_timeout(DELETE_TIMEOUT, channel.queue.delete, name, timeout_value=None)


def _no_longer_than_a_move() -> gevent.Timeout:
    return gevent.Timeout(MOVE_TIMEOUT, NotSent('the broker was too busy to keep it apart'))
