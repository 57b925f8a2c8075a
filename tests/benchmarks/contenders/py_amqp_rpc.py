"""py-amqp under gevent, in the shape of RabbitMQ's tutorial on RPC: each caller has a connection of its own, because
py-amqp's are not for several greenlets at once."""

from gevent import monkey

monkey.patch_all()

import uuid  # noqa: E402
from urllib.parse import urlsplit  # noqa: E402

import amqp  # noqa: E402
import gevent  # noqa: E402

from tests.benchmarks.load import drive_callers, main, ready  # noqa: E402


def connect(url):
    parts = urlsplit(url)
    connection = amqp.Connection(parts.netloc.rpartition('@')[2], userid=parts.username, password=parts.password)
    connection.connect()
    return connection


class EchoClient:
    def __init__(self, url, queue):
        self.queue = queue
        self.connection = connect(url)
        self.channel = self.connection.channel()
        self.callback_queue = self.channel.queue_declare(queue='', exclusive=True).queue
        self.channel.basic_consume(queue=self.callback_queue, callback=self.on_response, no_ack=True)
        self.response = None
        self.correlation_id = None

    def on_response(self, message):
        if self.correlation_id == message.correlation_id:
            self.response = message.body

    def call(self, text):
        self.response = None
        self.correlation_id = str(uuid.uuid4())
        message = amqp.Message(text, reply_to=self.callback_queue, correlation_id=self.correlation_id)
        self.channel.basic_publish(message, exchange='', routing_key=self.queue)
        while self.response is None:
            self.connection.drain_events()
        return self.response


def serve(url, service, kind):
    connection = connect(url)
    channel = connection.channel()
    channel.queue_declare(queue=service, auto_delete=False)

    def on_request(message):
        reply = amqp.Message(message.body, correlation_id=message.correlation_id)
        channel.basic_publish(reply, exchange='', routing_key=message.reply_to)
        channel.basic_ack(message.delivery_tag)

    channel.basic_qos(0, 1, False)
    channel.basic_consume(queue=service, callback=on_request)
    ready()
    while True:
        connection.drain_events()


def drive(url, service, work):
    drive_callers(work, lambda: EchoClient(url, service).call, gevent.spawn, gevent.sleep)


if __name__ == '__main__':
    main(serve, drive)
