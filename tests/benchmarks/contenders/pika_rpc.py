"""pika, as RabbitMQ's tutorial on RPC shows it: a caller blocks its connection, so each has one, and a thread."""

import uuid

import pika

from tests.benchmarks.load import drive_callers, main, ready


class EchoClient:
    def __init__(self, url, queue):
        self.queue = queue
        self.connection = pika.BlockingConnection(pika.URLParameters(url))
        self.channel = self.connection.channel()
        self.callback_queue = self.channel.queue_declare(queue='', exclusive=True).method.queue
        self.channel.basic_consume(queue=self.callback_queue, on_message_callback=self.on_response, auto_ack=True)
        self.response = None
        self.correlation_id = None

    def on_response(self, channel, method, properties, body):
        if self.correlation_id == properties.correlation_id:
            self.response = body

    def call(self, text):
        self.response = None
        self.correlation_id = str(uuid.uuid4())
        properties = pika.BasicProperties(reply_to=self.callback_queue, correlation_id=self.correlation_id)
        self.channel.basic_publish(exchange='', routing_key=self.queue, properties=properties, body=text)
        while self.response is None:
            self.connection.process_data_events(time_limit=None)
        return self.response.decode()


def serve(url, service, kind):
    channel = pika.BlockingConnection(pika.URLParameters(url)).channel()
    channel.queue_declare(queue=service)

    def on_request(channel, method, properties, body):
        reply = pika.BasicProperties(correlation_id=properties.correlation_id)
        channel.basic_publish(exchange='', routing_key=properties.reply_to, properties=reply, body=body)
        channel.basic_ack(delivery_tag=method.delivery_tag)

    channel.basic_qos(prefetch_count=1)
    channel.basic_consume(queue=service, on_message_callback=on_request)
    ready()
    channel.start_consuming()


def drive(url, service, work):
    drive_callers(work, lambda: EchoClient(url, service).call)


if __name__ == '__main__':
    main(serve, drive)
