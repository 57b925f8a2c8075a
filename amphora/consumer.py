"""Failsafe consuming: prefetch, resubscribing, a channel of its own.

Knows deliveries; not what is in them.
"""

from __future__ import annotations

import logging
from time import time

import gevent
from gevent.lock import RLock

from amphora.amqp import Channel, Closed, Connection
from amphora.amqp.consumers import DeliveryListener
from amphora.errors import AmqpError
from amphora.logs import get_logger
from amphora.session import Session

logger = get_logger('amphora.consumer')

#: seconds that `Consumer.cancel` waits for the broker unless told otherwise
CANCEL_TIMEOUT = 5.0


class Consumer:
    """Consumes a queue through a session, on a channel of its own.

    :param session: whose connection to use.
    :param queue: the queue's name.
    :param on_delivery: called in the hub with what was delivered; must not block.
    :param prefetch: unacked deliveries at once; 0: no limit.
    :param no_ack: the broker forgets a message as soon as it is sent.
    :param sole: nobody else is to consume this queue.
    """

    def __init__(
        self,
        session: Session,
        queue: str,
        on_delivery: DeliveryListener,
        prefetch: int = 0,
        no_ack: bool = False,
        sole: bool = False,
    ) -> None:
        self.queue = queue
        self._session = session
        self._on_delivery = on_delivery
        self._prefetch = prefetch
        self._no_ack = no_ack
        self._sole = sole
        self._channel: Channel | None = None
        self._tag: str | None = None
        self._wanted = True
        self._lock = RLock()

    def __repr__(self) -> str:
        return '<Consumer of %r>' % self.queue

    def start(self) -> None:
        """Consume from now on, whenever there is a connection.

        :raises AmqpError: there is one, and the broker refused.
        """
        self._wanted = True
        self._session.attach(self)

    def cancel(self, timeout: float = CANCEL_TIMEOUT) -> None:
        """Consume no more: returns when the broker has said so and everything that was under way has been delivered.

        What was delivered can still be acked.

        :param timeout: seconds to wait for the broker.
        """
        self._wanted = False
        self._session.detach(self)
        # A broker that does not answer must not keep a program from ending.
        gevent.with_timeout(timeout, self._cancel, timeout_value=None)

    def _is_over(self) -> bool:
        return not self._wanted

    def _cancel(self) -> None:
        with self._lock:
            channel, tag, self._tag = self._channel, self._tag, None
            if channel is not None and tag is not None and not channel.closed:
                try:
                    channel.basic.cancel(tag)
                except Closed as error:
                    logger.debug('%r: cancelling: %s', self, error)

    def close(self) -> None:
        """Consume no more, and give back what was not acked."""
        self.cancel()
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()

    # -- as a user of the session --------------------------------------------------------------------------------------

    def resume(self, connection: Connection) -> None:
        """See `amphora.session.User`."""
        with self._lock:
            if not self._wanted or (self._tag is not None and self._channel is not None and not self._channel.closed):
                return
            channel = self._channel
            if channel is None or channel.closed:
                channel = connection.channel()
                channel.close_listeners.append(lambda error: self._on_channel_closed(channel, error))
            if self._prefetch:
                channel.basic.qos(prefetch_count=self._prefetch)
            self._channel = channel
            tag = channel.consume(
                self.queue,
                self._on_delivery,
                no_ack=self._no_ack,
                # The later goes before the earlier, also when that was another process: while the broker still believes
                # in a connection that is lost, it would send half of the messages there.
                arguments={'x-priority': int(time() * 1000)} if self._sole else None,
                on_cancel=self._on_cancel,
            )
            # The broker may have ended it again before this greenlet went on.
            self._tag = tag if tag.encode() in channel.consumers else None
            if self._is_over():  # since then, and who said so may not have waited
                self._cancel()

    def suspend(self) -> None:
        """See `amphora.session.User`."""
        self._channel = self._tag = None

    def refuse(self, error: AmqpError) -> None:
        """See `amphora.session.User`: who consumes just waits."""

    def _on_cancel(self, tag: str) -> None:
        logger.warning('the broker ended the consumer of %r, most likely because the queue was deleted', self.queue)
        self._tag = None
        self._session.wake()

    def _on_channel_closed(self, channel: Channel, error: Exception) -> None:
        if self._channel is channel:
            consuming = self._tag is not None
            self._channel = self._tag = None
            if self._wanted and not channel.connection.closed:
                # Where consuming did not even begin, the session tells.
                logger.log(logging.WARNING if consuming else logging.DEBUG, '%r: %s', self, error)
                self._session.wake()
