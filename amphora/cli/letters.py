"""A service's dead letters on the broker: taking them to look at, to send back or to drop.

Their queue is never declared, only looked for: it is the servers' to make.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

import gevent
import msgspec
from gevent.queue import Empty, Queue

from amphora.amqp import Channel, Connection, Message, NotFound, PublishNacked, PublishReturned
from amphora.cli.common import NO_ACCESS, Failure
from amphora.dead_letters import DELIVERIES, QUEUE, REASON, TIME, revive
from amphora.dialects.base import Party
from amphora.dialects.native import NativeServer
from amphora.errors import WrongRequest
from amphora.serializer import RpcJsonSerializer, RpcMsgPackSerializer

# Seconds in which the broker has to confirm a letter that is sent back.
_CONFIRM_LIMIT = 30.0
# How much is shown of the arguments, in characters.
_ARGUMENTS_LENGTH = 200
# Seconds without another letter after which the rest must have been taken by somebody else.
_PATIENCE = 5.0
# AMQP's 16 bits; more is only to be had without a limit.
_MAX_PREFETCH = 65535

# What is sent without a content type comes from a client of 2013, whose serializer is JSON unless it is told otherwise.
_READERS = {
    content_type: NativeServer(Party('', '', serializer))
    for content_type, serializer in (
        ('', RpcJsonSerializer),
        (RpcJsonSerializer.content_type, RpcJsonSerializer),
        (RpcMsgPackSerializer.content_type, RpcMsgPackSerializer),
    )
}


class NotSentBack(Exception):
    """A letter cannot be sent back to where it came from."""


class DeadLetter(msgspec.Struct):
    """What there is to say of a dead letter; None: it does not say, or cannot be read.

    :ivar time: when it was set aside, in UTC.
    :ivar queue: the one that it was taken from.
    :ivar arguments: those of the call, shortened.
    """

    time: datetime | None
    function: str | None
    id: str | None
    deliveries: int | None
    queue: str | None
    reason: str | None
    arguments: str | msgspec.UnsetType | None = msgspec.UNSET


def describe(message: Message, with_arguments: bool) -> DeadLetter:
    """What a dead letter says."""
    headers = message.headers
    function = arguments = None
    reader = _READERS.get(message.properties.get('content_type', ''))
    if reader is not None:
        try:
            request = reader.decode_request(message.properties, message.body)
            function, arguments = request.function, _shortened(request.args, request.kwargs)
        except WrongRequest:
            pass
    return DeadLetter(
        _time_of(headers.get(TIME)),
        function,
        id_of(message),
        _if_a(int, headers.get(DELIVERIES)),
        _if_a(str, headers.get(QUEUE)),
        _if_a(str, headers.get(REASON)),
        arguments if with_arguments else msgspec.UNSET,
    )


def id_of(message: Message) -> str | None:
    """The id of the request that a dead letter was."""
    id: str | None = message.properties.get('message_id')
    return id


def _if_a(kind: type, value: Any) -> Any:
    # Whoever may publish to the queue may have put anything there.
    return value if isinstance(value, kind) else None


def _time_of(seconds: Any) -> datetime | None:
    try:
        return datetime.fromtimestamp(seconds, timezone.utc)
    except (TypeError, ValueError, OverflowError, OSError):
        return None


def _shortened(args: Any, kwargs: Any) -> str:
    shown = [reprlib.repr(arg) for arg in args]
    shown += ('%s=%s' % (name, reprlib.repr(value)) for name, value in kwargs.items())
    text = ', '.join(shown)
    return text if len(text) <= _ARGUMENTS_LENGTH else text[: _ARGUMENTS_LENGTH - 3] + '...'


def count_letters(connection: Connection, queue: str) -> int | None:
    """How many letters are in a queue; None: there is no such queue."""
    with connection.channel() as channel:
        try:
            declared = channel.queue.declare(queue, passive=True)
        except NotFound:
            return None
    assert declared is not None
    return declared.message_count


def take(channel: Channel, queue: str, count: int) -> Iterator[Message]:
    """The first letters of a queue, so many; fewer when somebody else takes some.

    Those that are not acked go back to their places when the channel is closed. Consumed and not got one by one: what
    was got from a quorum queue comes back in any order, for to the queue each get is a consumer of its own.
    """
    arrived: Queue[Message | None] = Queue()
    channel.close_listeners.append(lambda _: arrived.put(None))
    channel.basic.qos(prefetch_count=count if count <= _MAX_PREFETCH else 0)
    channel.basic.consume(queue, arrived.put, direct=True, on_cancel=lambda _: arrived.put(None))
    for _ in range(count):
        try:
            message = arrived.get(timeout=_PATIENCE)
        except Empty:
            return
        if message is None:
            channel.check_open()
            return  # the queue has been deleted
        yield message


class Sender:
    """Sends letters back to the queues that they came from.

    :param connection: the one that it opens a channel of its own on.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._channel = connection.channel()
        self._channel.confirm.select()

    def send_back(self, message: Message) -> None:
        """Returns when the queue has the request again.

        :raises NotSentBack: the queue has not and will not get it.
        :raises Failure: the broker does not say whether it has.
        """
        queue, properties = revive(message.properties)
        if queue is None:
            raise NotSentBack('it does not say which queue it came from')
        try:
            with gevent.Timeout(_CONFIRM_LIMIT, TimeoutError):
                self._channel.basic.publish(
                    Message(message.body, **properties), routing_key=queue, mandatory=True, wait=True
                )
        except PublishReturned:
            raise NotSentBack('there is no queue %r any more' % queue) from None
        except PublishNacked:
            raise NotSentBack('queue %r takes no more: it is full' % queue) from None
        except ValueError as error:
            raise NotSentBack('it cannot be sent to queue %r: %s' % (queue, error)) from error
        except TimeoutError:
            blocked = self._connection.blocked
            why = '' if blocked is None else ': it takes no messages (%s)' % blocked
            raise Failure(
                'the broker did not confirm a letter within %d s%s; it stays, and may be in queue %r as well'
                % (_CONFIRM_LIMIT, why, queue),
                NO_ACCESS,
            ) from None
