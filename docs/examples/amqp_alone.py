"""amphora.amqp without the remote calls: publish, know that it arrived, consume, ack."""

import os

from gevent.queue import Queue

from amphora.amqp import Connection, Message, PublishReturned

# Given nothing, Connection connects to localhost as guest.
url = os.environ.get('AMPHORA_AMQP_URL', 'amqp://localhost')

with Connection.from_url(url) as connection:
    channel = connection.channel()
    channel.exchange.declare('letters', 'topic', durable=True)
    channel.queue.declare('letters-to-ann', durable=True)
    channel.queue.bind('letters-to-ann', 'letters', 'to.ann.*')

    # From here on the broker confirms each message, and wait=True blocks until it has.
    channel.confirm.select()
    hello = Message('Hello, Ann!', content_type='text/plain', delivery_mode=2, headers={'from': 'Bob'})
    channel.basic.publish(hello, 'letters', 'to.ann.urgent', mandatory=True, wait=True)
    channel.basic.publish(Message(b'\x00\x01'), 'letters', 'to.ann.later', mandatory=True, wait=True)

    # No queue is bound to this routing key.
    try:
        channel.basic.publish(hello, 'letters', 'to.carl', mandatory=True, wait=True)
    except PublishReturned as error:
        print(error)

    # The consumer runs in a greenlet of its own and may block; here it hands over to this one.
    arrived = Queue()
    channel.basic.qos(prefetch_count=10)
    tag = channel.basic.consume('letters-to-ann', arrived.put)
    for _ in range(2):
        message = arrived.get()
        print(message.delivery_info.routing_key, message.body, message.headers)
        channel.basic.ack(message.delivery_info.delivery_tag)
    channel.basic.cancel(tag)

    print(channel.basic.get('letters-to-ann'))
    channel.queue.delete('letters-to-ann')
    channel.exchange.delete('letters')
