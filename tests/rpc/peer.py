"""A peer of a service made by hand, from raw AMQP messages: what looks at the wire, and what a peer of 2013 sends.

It knows the layout of exchanges, queues and bodies, and nothing of clients and servers.
"""

import json
from typing import Any

from amphora.amqp import Channel, Connection, Message, NotFound
from tests.waiting import eventually


class Peer:
    """Publishes, takes and looks at the messages of one service; JSON bodies unless given as bytes."""

    def __init__(self, connection: Connection, service: str) -> None:
        self.connection = connection
        self.channel = connection.channel()
        self.service = service
        self.request_exchange = self.request_queue = f'rpc_{service}_request'
        self.response_exchange = f'rpc_{service}_response'

    def declare_service(self) -> None:
        """What both sides declare, and a peer of 2013 with them."""
        self.channel.exchange.declare(self.request_exchange, 'direct', durable=True)
        self.channel.exchange.declare(self.response_exchange, 'direct', durable=True)
        self.channel.queue.declare(self.request_queue, durable=True)
        self.channel.queue.bind(self.request_queue, self.request_exchange, '')

    def declare_reply_queue(self, uuid: str) -> str:
        """The reply queue of a client of 2013, which was called `uuid`."""
        self.declare_service()
        queue = f'rpc_{self.service}_{uuid}_response'
        self.channel.queue.declare(queue, durable=True)
        self.channel.queue.bind(queue, self.response_exchange, uuid)
        return queue

    def declare_queue(self, queue: str, routing_key: str, **arguments: Any) -> None:
        """A queue of requests with RabbitMQ's arguments (`max_length=1` is `x-max-length`)."""
        self.declare_service()
        x_arguments = {f'x-{name.replace("_", "-")}': value for name, value in arguments.items()}
        self.channel.queue.declare(queue, durable=True, arguments=x_arguments)
        self.channel.queue.bind(queue, self.request_exchange, routing_key)

    def request(self, body: Any, routing_key: str = '', **properties: Any) -> None:
        self.channel.basic.publish(Message(as_bytes(body), **properties), self.request_exchange, routing_key)

    def call(self, func: str, *args: Any, reply_to: str, message_id: str) -> None:
        """A request as 2013's client sent it: no correlation id, no content type."""
        body = {'func': func, 'args': args, 'kwargs': {}}
        self.request(body, reply_to=reply_to, message_id=message_id, delivery_mode=2)

    def reply(self, request: Message, body: Any, **properties: Any) -> None:
        """A reply as 2013's server sent it, with what else is given."""
        message = Message(as_bytes(body), message_id=request.properties['message_id'], **properties)
        self.channel.basic.publish(message, self.response_exchange, request.properties['reply_to'])

    def take(self, queue: str | None = None) -> Message:
        """The next message of a queue, the service's own unless given."""
        return eventually(lambda: self.channel.basic.get(queue or self.request_queue, no_ack=True))

    def exists(self, queue: str) -> bool:
        try:
            self._look(queue)
        except NotFound:
            return False
        return True

    def ready(self, queue: str | None = None) -> int:
        """How many messages of a queue wait for somebody to take them."""
        return self._look(queue).message_count

    def consumers(self, queue: str | None = None) -> int:
        """How many consumers a queue has; none while there is no such queue."""
        try:
            return self._look(queue).consumer_count
        except NotFound:
            return 0

    def fresh_channel(self) -> Channel:
        """A channel that may fail without taking this peer's own with it."""
        return self.connection.channel()

    def _look(self, queue: str | None) -> Any:
        with self.fresh_channel() as channel:
            return channel.queue.declare(queue or self.request_queue, passive=True)


def as_bytes(body: Any) -> bytes:
    return body if isinstance(body, bytes) else json.dumps(body).encode()


def body_of(message: Message) -> Any:
    return json.loads(message.body)
