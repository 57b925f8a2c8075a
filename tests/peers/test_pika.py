"""pika, the blocking connection."""

import gevent
import pika
import pytest
from pika.exceptions import ChannelClosedByBroker, ProbableAuthenticationError, UnroutableError

from tests.waiting import eventually


def connect(url):
    return pika.BlockingConnection(pika.URLParameters(url))


def test_publish_get_and_consume(broker, in_thread):
    def run():
        with connect(broker.url) as connection:
            channel = connection.channel()
            queue = channel.queue_declare('', exclusive=True).method.queue
            channel.queue_bind(queue, 'amq.topic', 'a.#')
            channel.confirm_delivery()
            channel.basic_publish('amq.topic', 'a.b', b'one', pika.BasicProperties(headers={'n': 1}, delivery_mode=2))
            channel.basic_publish('', queue, b'two', mandatory=True)
            with pytest.raises(UnroutableError):
                channel.basic_publish('', 'nowhere', b'three', mandatory=True)
            method, properties, body = channel.basic_get(queue)
            assert (body, properties.headers, method.message_count) == (b'one', {'n': 1}, 1)
            channel.basic_nack(method.delivery_tag, requeue=True)
            channel.basic_qos(prefetch_count=1)
            got = []
            for method, _, body in channel.consume(queue, inactivity_timeout=5):
                got.append((body, method.redelivered))
                channel.basic_ack(method.delivery_tag)
                if len(got) == 2:
                    break
            assert channel.cancel() == 0
            return got

    assert in_thread(run) == [(b'one', True), (b'two', False)]


def test_errors(broker, in_thread):
    def run():
        with connect(broker.url) as connection:
            with pytest.raises(ChannelClosedByBroker) as caught:
                connection.channel().queue_declare('nowhere', passive=True)
            assert (caught.value.reply_code, caught.value.reply_text) == (
                404,
                "NOT_FOUND - no queue 'nowhere' in vhost '/'",
            )
            connection.channel().queue_declare('q')
        with pytest.raises(ProbableAuthenticationError):
            connect(broker.url.replace('guest:guest', 'guest:wrong'))

    in_thread(run)


def test_blocked_and_unblocked(broker, in_thread):
    events = []

    def run():
        with connect(broker.url) as connection:
            connection.add_on_connection_blocked_callback(lambda *_: events.append('blocked'))
            connection.add_on_connection_unblocked_callback(lambda *_: events.append('unblocked'))
            channel = connection.channel()
            channel.queue_declare('q')
            while 'unblocked' not in events:
                if broker.alarm and not events:
                    channel.basic_publish('', 'q', b'last')
                connection.process_data_events(0.05)

    client = gevent.get_hub().threadpool.spawn(run)
    eventually(lambda: 'q' in broker.queues())
    broker.block()
    eventually(lambda: events == ['blocked'])
    broker.unblock()
    client.get()

    assert events == ['blocked', 'unblocked']
