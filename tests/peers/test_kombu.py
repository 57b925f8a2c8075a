"""kombu, over py-amqp."""

import kombu


def test_produce_and_consume(broker, in_thread):
    def run():
        exchange = kombu.Exchange('news', 'topic')
        queue = kombu.Queue('sport', exchange, 'sport.#', max_length=10, message_ttl=60)
        got = []

        def take(body, message):
            got.append(body)
            message.ack()

        with kombu.Connection(broker.url) as connection:
            producer = connection.Producer(serializer='json')
            producer.publish({'n': 1}, exchange=exchange, routing_key='sport.chess', declare=[queue], retry=True)
            producer.publish({'n': 2}, exchange=exchange, routing_key='sport.go', expiration=60, priority=3)
            with connection.Consumer(queue, callbacks=[take], prefetch_count=1):
                while len(got) < 2:
                    connection.drain_events(timeout=5)
        return got

    assert in_thread(run) == [{'n': 1}, {'n': 2}]


def test_simple_queue(broker, in_thread):
    def run():
        with kombu.Connection(broker.url) as connection, connection.SimpleQueue('simple') as queue:
            queue.put({'hello': 'world'})
            message = queue.get(timeout=5)
            message.ack()
            return message.payload, queue.qsize()

    assert in_thread(run) == ({'hello': 'world'}, 0)
