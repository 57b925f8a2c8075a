"""The example of haigha's README on amphora.amqp: its imports and its print have changed, and where the broker is."""

import os

from amphora.amqp import AmqpUrl, Connection, Message

url = AmqpUrl.parse(os.environ.get('AMPHORA_AMQP_URL', 'amqp://localhost'))

connection = Connection(
    user=url.user, password=url.password, vhost=url.vhost, host=url.host, port=url.port, heartbeat=None, debug=True
)

ch = connection.channel()
ch.exchange.declare('test_exchange', 'direct')
ch.queue.declare('test_queue', auto_delete=True)
ch.queue.bind('test_queue', 'test_exchange', 'test_key')
ch.basic.publish(
    Message('body', application_headers={'hello': 'world'}), exchange='test_exchange', routing_key='test_key'
)
print(ch.basic.get('test_queue'))
connection.close()
