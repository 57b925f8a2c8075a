"""Asking all servers of a virtual host what they are, and gathering whatever is answered in time."""

from __future__ import annotations

from uuid import uuid4

import msgspec
from gevent.event import Event

from amphora.amqp import Connection, Message, NotFound
from amphora.amqp.message import TRANSIENT
from amphora.dialects.base import Party
from amphora.dialects.native import INTROSPECTION_SERVICE, NativeClient, response_exchange
from amphora.envelope import Request
from amphora.errors import RemoteException, WrongRequest, WrongResult
from amphora.introspection import DESCRIBE, ServerDescription
from amphora.serializer import RpcJsonSerializer


def gather_servers(connection: Connection, seconds: float, service: str | None = None) -> list[ServerDescription]:
    """The servers that answer within so many seconds, sorted by service, host and process.

    Nothing is left on the broker, and nothing declared that was not there.

    :param service: only servers of this service; None: of all.
    :raises AccessRefused: the broker does not let this user ask.
    """
    me = str(uuid4())
    dialect = NativeClient(Party(INTROSPECTION_SERVICE, me, RpcJsonSerializer, TRANSIENT, fanout=True))
    request = dialect.encode_request(Request(me, DESCRIBE, (), {}, me), None)
    found: list[ServerDescription] = []
    # The broker has returned the request: nobody is there to answer it.
    returned = Event()

    def on_answer(message: Message) -> None:
        try:
            value = dialect.decode_reply(message.properties, message.body)
            description = msgspec.convert(value, ServerDescription)
        except (WrongResult, WrongRequest, RemoteException, msgspec.ValidationError):
            return  # a server of another version, or none at all
        if service is None or description.service == service:
            found.append(description)

    with connection.channel() as channel:
        try:
            channel.exchange.declare(request.exchange, 'fanout', durable=True, passive=True)
        except NotFound:
            return []  # there has never been a server
        channel.return_listeners.append(lambda _: returned.set())
        declared = channel.queue.declare(exclusive=True, auto_delete=True)
        assert declared is not None
        channel.queue.bind(declared.queue, response_exchange(INTROSPECTION_SERVICE), me)
        channel.basic.consume(declared.queue, on_answer, no_ack=True, direct=True)
        expiration = '%d' % max(1, seconds * 1000)
        channel.basic.publish(
            Message(request.body, **{**request.properties, 'expiration': expiration}),
            request.exchange,
            request.routing_key,
            mandatory=True,
        )
        returned.wait(seconds)
    return sorted(found, key=lambda server: (server.service, server.host, server.pid, server.uuid))
