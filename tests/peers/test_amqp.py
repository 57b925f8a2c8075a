"""py-amqp, the library under kombu."""

import amqp
import pytest


def test_publish_get_and_consume(broker, in_thread):
    def run():
        with amqp.Connection('127.0.0.1:%d' % broker.port, heartbeat=10, confirm_publish=True) as connection:
            channel = connection.channel()
            channel.exchange_declare('e', 'direct', auto_delete=False)
            queue, _, _ = channel.queue_declare(exclusive=True)
            channel.queue_bind(queue, 'e', 'key')
            headers = {'text': 'ü', 'number': -1, 'list': [1, {'a': None}]}
            channel.basic_publish_confirm(amqp.Message('one', application_headers=headers), 'e', 'key')
            message = channel.basic_get(queue)
            assert (message.body, message.headers) == ('one', headers)
            message.channel.basic_reject(message.delivery_tag, requeue=True)
            got = []
            channel.basic_consume(queue, callback=got.append)
            while not got:
                connection.drain_events(timeout=5)
            got[0].channel.basic_ack(got[0].delivery_tag)
            connection.send_heartbeat()
            return got[0].body, got[0].delivery_info['redelivered']

    assert in_thread(run) == ('one', True)


def test_errors(broker, in_thread):
    def run():
        with amqp.Connection('127.0.0.1:%d' % broker.port) as connection:
            with pytest.raises(amqp.NotFound, match="no queue 'nowhere' in vhost '/'"):
                connection.channel().queue_declare('nowhere', passive=True)
            channel = connection.channel()
            channel.queue_declare('q', durable=True, auto_delete=False)
            with pytest.raises(amqp.PreconditionFailed, match="inequivalent arg 'durable'"):
                channel.queue_declare('q', durable=False, auto_delete=False)
        with pytest.raises(amqp.AccessRefused):
            amqp.Connection('127.0.0.1:%d' % broker.port, password='wrong').connect()

    in_thread(run)


def test_the_consumer_is_told_when_its_queue_is_deleted(broker, in_thread):
    def run():
        with amqp.Connection('127.0.0.1:%d' % broker.port) as connection:
            channel = connection.channel()
            channel.queue_declare('q', auto_delete=False)
            cancelled = []
            channel.basic_consume('q', 'tag', on_cancel=cancelled.append)
            connection.channel().queue_delete('q')
            while not cancelled:
                connection.drain_events(timeout=5)
            return cancelled

    assert in_thread(run) == ['tag']
