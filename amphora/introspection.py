"""What a server says of itself to whoever asks: its service, where it runs, and its functions.

Every server has a queue of its own behind a fanout exchange that all services of a virtual host share, in the wire
names of a fanout service called ``amphora`` with one function, ``describe``. So one request is answered by every server
there is, and any fanout client can ask. It is read-only, apart from the service's own requests, and never in their way:
where the broker does not allow it, a server just goes on without.
"""

from __future__ import annotations

import inspect
import os
import socket
from collections.abc import Callable
from time import monotonic
from typing import Any

import gevent
from msgspec import Struct

from amphora.amqp import ChannelClosed, Connection
from amphora.amqp.message import TRANSIENT
from amphora.consumer import Consumer
from amphora.dialects.base import Party
from amphora.dialects.native import (
    INTROSPECTION_SERVICE,
    NativeServer,
    fanout_queue,
    request_exchange,
    response_exchange,
)
from amphora.dispatch import FunctionTable
from amphora.errors import AmqpError, WrongRequest
from amphora.logs import get_logger
from amphora.publisher import Publication, Publisher
from amphora.serializer import RpcJsonSerializer
from amphora.session import Session
from amphora.topology import Binding, Exchange, Queue, Record, declare_all

logger = get_logger('amphora.introspection')

#: its one function
DESCRIBE = 'describe'
#: milliseconds that the queue outlives its server's connection: time to come back after a fault
QUEUE_EXPIRES = 60_000
#: seconds after which an answer that could not be sent is of no use
ANSWER_TIMEOUT = 5.0
#: seconds that `Introspection.stop` waits for each of the broker's answers: it has nothing to lose
STOP_TIMEOUT = 1.0
# Characters of a signature, which may hold a default of any size.
_SIGNATURE_LENGTH = 500


class FunctionDescription(Struct, frozen=True):
    """A function as its callers see it.

    :ivar name: what clients call it.
    :ivar signature: its parameters as in Python, ``(x, y=1)``; ``(...)`` where Python does not know them.
    :ivar doc: the first line of its docstring; empty without one.
    """

    name: str
    signature: str
    doc: str


class ServerDescription(Struct, frozen=True):
    """What `describe` answers.

    :ivar service: name of the service.
    :ivar uuid: the server's own name.
    :ivar host: name of the machine it runs on.
    :ivar pid: its process there.
    :ivar fanout: whether it is a server of a fanout service.
    :ivar functions: in the order in which they were added.
    """

    service: str
    uuid: str
    host: str
    pid: int
    fanout: bool
    functions: list[FunctionDescription]


def describe_server(service: str, uuid: str, fanout: bool, functions: FunctionTable) -> ServerDescription:
    """What this process says of a server in it."""
    return ServerDescription(
        service, uuid, socket.gethostname(), os.getpid(), fanout, [_describe(*each) for each in functions.items()]
    )


def _describe(name: str, function: Callable[..., Any]) -> FunctionDescription:
    try:
        signature = str(inspect.signature(function))
    except Exception:  # built-in functions may have none, and the `repr` of a default is the user's code
        signature = '(...)'
    if len(signature) > _SIGNATURE_LENGTH:
        signature = signature[:_SIGNATURE_LENGTH] + '...'
    # Of the object itself: a `partial` or an instance would give the docstring of its class.
    doc = inspect.getdoc(function) if inspect.isroutine(function) or inspect.isclass(function) else None
    return FunctionDescription(name, signature, doc.strip().partition('\n')[0] if doc else '')


class Introspection:
    """Answers for one server.

    :param describe: what to answer; called for each request.
    :param uuid: the server's own name.
    :param session: the one that the server consumes with.
    :param publisher: what the server publishes with.
    """

    def __init__(
        self, describe: Callable[[], ServerDescription], uuid: str, session: Session, publisher: Publisher
    ) -> None:
        self._functions = FunctionTable()
        self._functions.add(describe, DESCRIBE)
        self._session = session
        self._publisher = publisher
        self._side = NativeServer(Party(INTROSPECTION_SERVICE, uuid, RpcJsonSerializer, TRANSIENT, fanout=True))
        self._queue = fanout_queue(INTROSPECTION_SERVICE, uuid)
        # Not among the server's own: without them it works as well.
        self._records: list[Record] = [
            Exchange(request_exchange(INTROSPECTION_SERVICE), 'fanout'),
            Exchange(response_exchange(INTROSPECTION_SERVICE), 'direct'),
            Queue(self._queue, (('x-expires', QUEUE_EXPIRES),)),
            Binding(self._queue, request_exchange(INTROSPECTION_SERVICE), ''),
        ]
        self._consumer: Consumer | None = None
        # By the broker, on the present connection.
        self._refused = False

    def __repr__(self) -> str:
        return '<Introspection %r>' % self._queue

    def start(self) -> None:
        """Answer from now on, whenever there is a connection; nothing happens when that has begun."""
        if self._consumer is not None:
            return
        # Without acks: who asks waits for a second, so nothing is worth delivering again.
        self._consumer = Consumer(self._session, self._queue, self._on_delivery, no_ack=True, sole=True)
        try:
            self._session.attach(self)
        except AmqpError as error:
            # The connection ended just now; the session resumes on the next one.
            logger.debug('%r: %s', self, error)

    def stop(self) -> None:
        """Answer no more, and leave nothing behind. `start` may follow."""
        consumer, self._consumer = self._consumer, None
        if consumer is None:
            return
        self._session.detach(self)
        consumer.cancel(STOP_TIMEOUT)
        if self._session.connection is not None and not self._refused:
            try:
                self._session.with_channel(lambda channel: channel.queue.delete(self._queue), STOP_TIMEOUT)
            except AmqpError as error:
                # It expires by itself; this is only tidier.
                logger.debug('%r: the queue stays: %s', self, error)
        consumer.close()

    # -- as a user of the session --------------------------------------------------------------------------------------

    def resume(self, connection: Connection) -> None:
        """See `amphora.session.User`. What the broker refuses is not tried again on this connection."""
        consumer = self._consumer
        if consumer is None or self._refused:
            return
        try:
            with connection.channel() as channel:
                declare_all(self._records, channel)
                if self._consumer is None:
                    # `stop` came meanwhile, and may have deleted the queue too early.
                    channel.queue.delete(self._queue)
            if self._consumer is consumer:
                consumer.resume(connection)
        except ChannelClosed as error:
            self._refused = True
            logger.info('no introspection: the broker refuses: %s', error)

    def suspend(self) -> None:
        """See `amphora.session.User`."""
        self._refused = False
        if self._consumer is not None:
            self._consumer.suspend()

    def refuse(self, error: AmqpError) -> None:
        """See `amphora.session.User`: who consumes just waits."""

    # -- a request -----------------------------------------------------------------------------------------------------

    def _on_delivery(self, *delivery: Any) -> None:
        """In the hub; signatures and docstrings of a thousand functions take their time."""
        _, _, _, properties, body = delivery
        gevent.spawn(self._answer, properties, body)

    def _answer(self, properties: dict[str, Any], body: bytes) -> None:
        _, reply_to = self._side.return_address(properties)
        if reply_to is None:
            return
        try:
            request = self._side.decode_request(properties, body)
            answer = self._side.encode_reply(self._functions.invoke(request), properties)
            deadline = monotonic() + ANSWER_TIMEOUT
            self._publisher.publish(
                Publication(answer.exchange, answer.routing_key, answer.properties, answer.body, deadline)
            )
        except (WrongRequest, TypeError, ValueError, AmqpError) as error:
            # No request; or a name or docstring that is not text for the wire, such as half a surrogate pair; or the
            # broker refuses what the service needs, and nothing is sent.
            logger.debug('%r: cannot answer: %s', self, error)
