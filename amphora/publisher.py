"""Failsafe publishing: mandatory, confirmed, held while the broker is away or says stop, sent again after a loss.

Knows messages and addresses; not what they are for. Whoever publishes hears of the outcome through its `Publication`.
"""

from __future__ import annotations

from collections.abc import Callable, Sized
from itertools import count
from time import monotonic, time
from typing import Any

import gevent
from gevent.event import Event

from amphora.amqp import Channel, ChannelClosed, Closed, Connection, Message, ReturnInfo
from amphora.amqp.content import encode_publish_head
from amphora.errors import AmqpError
from amphora.logs import get_logger
from amphora.session import Session
from amphora.timing import Deadline

logger = get_logger('amphora.publisher')

#: how many messages may wait for the broker, and how many bytes of them, unless told otherwise
BUFFER_COUNT, BUFFER_BYTES = 100_000, 67_108_864

_numbers = count(1)

# Seconds before a message that the broker refused is tried again.
_RETRY_DELAY = 0.2
# So many may be held before it is looked whether some are of no use any more.
_LOOK_AT = 1000
# Seconds for which a channel that was replaced may still wait for the broker's answers.
_LINGER = 30.0


class Publication:
    """A message to be published, and what has become of it so far.

    :ivar deadline: monotonic time after which publishing it is of no use; None: never. What is left of it travels
        along as the message's expiration (https://www.rabbitmq.com/docs/ttl).
    :ivar on_settled: called in the hub, once, with this publication and True when the broker has taken it, False when
        it refused it. A returned message is settled too: see `returned`.
    :ivar on_refused: called with this publication and the reason when it will not be sent.
    :ivar waits: whether it waits while the session is refused, as replies do; otherwise it is refused too.
    :ivar context: whatever `on_settled` and `on_refused` have to know of it.
    :ivar number: publications are numbered in the order in which they were made.
    :ivar publisher: who has it.
    :ivar returned: why the broker returned it; None when it did not.
    :ivar held: whether it ever had to wait for the broker to take it.
    :ivar written: whether it has been handed to a connection at least once.
    :ivar withdrawn: whether nobody wants it to be sent any more.
    :ivar repeated: whether it was lost unconfirmed and is sent again, so that it may arrive twice: nobody knows what
        became of it the first time.
    :ivar refused_at: monotonic time at which the broker first refused it; None: it has not.
    :ivar turned_away: whether the broker has refused it, and it has not been sent again since.
    :ivar suspect: whether the broker ended the channel when this was among the unconfirmed: next time it goes alone.
    """

    __slots__ = (
        '_ended',
        '_waited',
        'body',
        'context',
        'deadline',
        'exchange',
        'held',
        'number',
        'on_refused',
        'on_settled',
        'properties',
        'publisher',
        'refused_at',
        'repeated',
        'returned',
        'routing_key',
        'suspect',
        'turned_away',
        'waits',
        'withdrawn',
        'written',
    )

    def __init__(
        self,
        exchange: str,
        routing_key: str,
        properties: dict[str, Any],
        body: bytes,
        deadline: float | None = None,
        on_settled: Callable[[Publication, bool], None] | None = None,
        on_refused: Callable[[Publication, Exception], None] | None = None,
        waits: bool = False,
        context: Any = None,
    ) -> None:
        self.exchange = exchange
        self.routing_key = routing_key
        self.properties = properties
        self.body = body
        self.deadline = deadline
        self.on_settled = on_settled
        self.on_refused = on_refused
        self.waits = waits
        self.context = context
        self.number = next(_numbers)
        self.publisher: Publisher | None = None
        self.returned: ReturnInfo | None = None
        self.held = self.written = self.withdrawn = self.repeated = self.turned_away = self.suspect = False
        self.refused_at: float | None = None
        self._ended = False
        self._waited: Event | None = None

    @property
    def message_id(self) -> str | None:
        """The message's own id; None when it has none."""
        return self.properties.get('message_id')

    def wait(self, timeout: float) -> None:
        """Block until the broker has answered, or nobody wants to know any more.

        :param timeout: seconds after which to block no longer.
        """
        if not self._ended:
            self._waited = Event()
            self._waited.wait(timeout)

    def end(self) -> None:
        """Nothing more will become of it."""
        self._ended = True
        if self._waited is not None:
            self._waited.set()

    def settled(self, acked: bool) -> None:
        """The broker has answered."""
        tried_again = not acked and self.publisher is not None and self.publisher.try_again(self)
        if not tried_again:
            if self.on_settled is not None:
                self.on_settled(self, acked)
            # As `end` does, without the call; whoever waits finds what this has led to.
            self._ended = True
            if self._waited is not None:
                self._waited.set()
        # Without confirms it is `flush` itself that settles, and must not be entered again by each of what is held.
        if self.publisher is not None and self.publisher._confirm and (self.suspect or self.publisher._held):
            self.publisher.go_on(self)

    def refused(self, error: Exception) -> None:
        """It will not be sent."""
        if self.on_refused is not None:
            self.on_refused(self, error)
        self.end()

    def lost(self, error: Exception) -> None:
        """The channel ended before the answer: the message may or may not have arrived, so it goes out again.

        A message that the broker ends the channel for, such as one above its own limit of size, would take all others
        with it again and again. So each that was on its way then goes alone the next time, and is the culprit when it
        happens again.
        """
        if self.publisher is None:
            return
        if self.suspect:
            self.publisher._alone = False
        if self.withdrawn:
            return
        if isinstance(error, ChannelClosed) and error.code:  # which this side's own does not have
            if self.suspect:
                logger.error('the broker does not take message %.100r: %s', self.message_id, error)
                self.refused(error)
                return
            self.suspect = True
        self.repeated = True
        self.publisher.hold(self)


class Publisher:
    """Publishes through a session.

    :param session: whose connection to use.
    :param confirm: whether the broker is to confirm each message; without, one is settled as soon as it is written, and
        lost when the connection is lost.
    :param on_returned: called in the hub with each message that the broker could not route; its confirm follows.
    :param buffer_count: above so many publications that wait for the broker, `full` is true.
    :param buffer_bytes: above so many bytes of bodies that wait to be sent, `full` is true.
    :param patience: seconds for which a message that the broker refuses is tried again before that is its answer.
    """

    def __init__(
        self,
        session: Session,
        confirm: bool,
        on_returned: Callable[[Message], None],
        buffer_count: int = BUFFER_COUNT,
        buffer_bytes: int = BUFFER_BYTES,
        patience: float = 0,
    ) -> None:
        self._session = session
        self._confirm = confirm
        self._on_returned = on_returned
        self._buffer_count = buffer_count
        self._buffer_bytes = buffer_bytes
        self._patience = patience
        self._opened = 0.0
        self._channel: Channel | None = None
        self._connection: Connection | None = None
        # What the channel's broker owes an answer for.
        self._unconfirmed: Sized = ()
        # Waiting for the broker, by number. A dict, so that one whose time is over leaves at once.
        self._held: dict[int, Publication] = {}
        self._held_bytes = 0
        self._look_at = _LOOK_AT
        # Refused by the broker, and about to be sent again, by number.
        self._turned_away: dict[int, Publication] = {}
        # Whether a suspect is on its way: nothing else is until it is settled, or the wrong one would be blamed.
        self._alone = False
        # Whether a channel is being opened in the place of the present one.
        self._replacing = False
        session.attach(self)

    def __repr__(self) -> str:
        return '<Publisher %d held>' % len(self._held)

    @property
    def held(self) -> int:
        """How many publications wait for the broker."""
        return len(self._held) + len(self._turned_away)

    def publish(self, publication: Publication) -> None:
        """Write a message now, or hold it until the broker takes it; never blocks. What is held already goes first.

        :raises AmqpError: the session is refused.
        :raises ValueError: it is larger than the broker takes, or cannot be encoded.
        """
        refusal = self._session.refusal
        if refusal is not None and not publication.waits:
            raise refusal.with_traceback(None)
        channel = self._channel
        connection = self._connection
        if channel is None or connection is None or self._held or self._alone or not connection.takes_messages():
            # What cannot be sent must not be found out later, when nobody is there to be told.
            encode_publish_head(
                1, publication.exchange, publication.routing_key, True, publication.properties, len(publication.body)
            )
            self.hold(publication)
        else:
            self._write(channel, publication)

    def submit(self, publication: Publication) -> None:
        """Publish a message whose errors nobody waits for here: it is told of them, instead."""
        try:
            self.publish(publication)
        except ValueError as error:
            publication.refused(error)

    @property
    def full(self) -> bool:
        """Whether as much waits for the broker as may: to be sent, or to be confirmed."""
        waiting = len(self._held) + len(self._turned_away) + len(self._unconfirmed)
        return waiting >= self._buffer_count or self._held_bytes >= self._buffer_bytes

    def withdraw_expired(self) -> None:
        """Let go of what is held and of no use any more."""
        now = monotonic()
        for publication in list(self._held.values()):
            if publication.deadline is not None and publication.deadline <= now:
                self.withdraw(publication)

    def hold(self, publication: Publication) -> None:
        """Keep a message until the broker takes it."""
        if len(self._held) >= self._look_at:
            # Of a request whose result was dropped nobody says that its time is over.
            self.withdraw_expired()
            self._look_at = max(_LOOK_AT, 2 * len(self._held))
        publication.publisher = self
        publication.held = True
        self._held[publication.number] = publication
        self._held_bytes += len(publication.body)

    def withdraw(self, publication: Publication) -> None:
        """Nobody waits for this one any more: it is not sent, or not sent again."""
        publication.withdrawn = True
        publication.end()
        if self._turned_away:
            self._turned_away.pop(publication.number, None)
        if self._held and self._held.pop(publication.number, None) is not None:
            self._held_bytes -= len(publication.body)

    def wait_settled(self, timeout: float, even_away: bool = False) -> None:
        """Block until the broker has answered for everything, or will not in time.

        :param timeout: seconds.
        :param even_away: wait, too, while the broker is away. By default that is no use, unless the first attempt to
            connect is still under way.
        """
        deadline = Deadline.after(timeout, monotonic())
        while self._held or self._turned_away or (self._channel is not None and self._channel.confirms):
            if self._channel is None and not even_away and (self._session.away or not self._session.started):
                return
            if deadline.expired(monotonic()):
                return
            # Looked at now and then, so that the hot path need not tell each time.
            gevent.sleep(0.01)

    def _write(self, channel: Channel, publication: Publication) -> None:
        if publication.deadline is not None:
            left = publication.deadline - monotonic()
            if left <= 0:
                return  # whoever waits for it is about to hear so
            milliseconds = max(1, int(left * 1000))
            publication.properties['expiration'] = f'{milliseconds:d}'
        publication.publisher = self
        confirmed = channel.confirms is not None
        publication.returned = None
        try:
            channel.publish(
                publication.exchange,
                publication.routing_key,
                publication.properties,
                publication.body,
                True,
                publication if confirmed else None,
            )
        except Closed:
            self.hold(publication)
            return
        publication.written = True
        publication.turned_away = False
        if not confirmed:
            publication.settled(True)

    def flush(self) -> None:
        """Write what is held, as far as the broker takes it now."""
        channel, connection = self._channel, self._connection
        while self._held and channel is not None and connection is not None:
            if self._alone or channel.closed or not connection.takes_messages():
                return
            number, publication = next(iter(self._held.items()))
            if publication.suspect and channel.confirms:
                return  # goes on when those before it are settled
            del self._held[number]
            self._held_bytes -= len(publication.body)
            if 'timestamp' in publication.properties:
                # Expirations are counted from here.
                publication.properties['timestamp'] = time()
            try:
                self._write(channel, publication)
            except ValueError as error:
                # Found out only now: this broker agreed on smaller frames than were assumed.
                logger.error('message %.100r cannot be sent: %s', publication.message_id, error)
                publication.refused(error)
            # Unless its time was over, or it could not be encoded, it is the only one that is unconfirmed.
            self._alone = publication.suspect and bool(channel.confirms)

    def go_on(self, settled: Publication) -> None:
        """The broker has answered for one that others may wait for."""
        if settled.suspect:
            self._alone = False
        self.flush()

    def try_again(self, publication: Publication) -> bool:
        """Send a message that the broker refused once more, in a little while; False when that was tried long enough.

        A quorum queue refuses while it elects a leader. RabbitMQ 3.10 moreover looks up the leader once for each
        channel: one that asked before the election goes on to refuse until the old leader's node is back.
        """
        if publication.withdrawn or publication.returned is not None:
            return False
        now = monotonic()
        if publication.refused_at is None:
            publication.refused_at = now
        publication.turned_away = True
        if now - publication.refused_at >= self._patience:
            return False
        if now - self._opened >= _RETRY_DELAY:
            self._opened = now
            gevent.spawn(self._replace_channel)
        self._turned_away[publication.number] = publication
        gevent.spawn_later(_RETRY_DELAY, self._send_again, publication)
        return True

    def _send_again(self, publication: Publication) -> None:
        if self._turned_away.pop(publication.number, None) is not None:
            self.hold(publication)
            self.flush()

    def _replace_channel(self) -> None:
        """Publish on a new channel; the old one stays until the broker has answered for what was sent there."""
        channel, connection = self._channel, self._connection
        if channel is None or connection is None or self._replacing:
            return
        self._replacing = True
        try:
            self._open(connection)
        except Closed as error:
            logger.debug('%r: replacing the channel: %s', self, error)
            return
        finally:
            self._replacing = False
        deadline = Deadline.after(_LINGER, monotonic())
        while channel.confirms and not deadline.expired(monotonic()):
            gevent.sleep(_RETRY_DELAY)
        channel.close()
        # What it had no answer for is held by now.
        self.flush()

    # -- as a user of the session --------------------------------------------------------------------------------------

    def resume(self, connection: Connection) -> None:
        """See `amphora.session.User`."""
        if self._channel is not None and not self._channel.closed:
            return
        self._open(connection)
        self._alone = False
        # What was lost unconfirmed has been held behind what was held before it.
        self._held = dict(sorted(self._held.items()))
        self.flush()

    def _open(self, connection: Connection) -> None:
        channel = connection.channel()
        if self._confirm:
            channel.confirm.select()
        channel.return_listeners.append(self._on_returned)
        channel.close_listeners.append(lambda _: self._on_channel_closed(channel))
        if connection is not self._connection:
            connection.blocked_listeners.append(lambda _: self.flush())
            connection.drain_listeners.append(self.flush)
        self._channel, self._connection, self._opened = channel, connection, monotonic()
        self._unconfirmed = () if channel.confirms is None else channel.confirms

    def suspend(self) -> None:
        """See `amphora.session.User`."""
        self._channel = self._connection = None

    def refuse(self, error: AmqpError) -> None:
        """See `amphora.session.User`."""
        for publication in list(self._held.values()):
            if not publication.waits:
                self.withdraw(publication)
                publication.refused(error)

    def _on_channel_closed(self, channel: Channel) -> None:
        if self._channel is channel:
            self._channel = None
            self._session.wake()
