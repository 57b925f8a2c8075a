"""aio-pika, on an asyncio loop in a thread of its own."""

import asyncio

import aio_pika
import pytest
from aio_pika.patterns import RPC


def test_publish_and_consume(broker, in_thread):
    async def run():
        connection = await aio_pika.connect_robust(broker.url, timeout=10)
        async with connection:
            channel = await connection.channel()
            await channel.set_qos(prefetch_count=1)
            exchange = await channel.declare_exchange('e', aio_pika.ExchangeType.HEADERS, auto_delete=True)
            queue = await channel.declare_queue('q', durable=True, arguments={'x-max-priority': 3})
            await queue.bind(exchange, arguments={'x-match': 'any', 'a': 1})
            message = aio_pika.Message(b'one', headers={'a': 1}, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
            await exchange.publish(message, routing_key='')
            async with queue.iterator() as messages:
                async for got in messages:
                    async with got.process():
                        return got.body, got.headers
        return None

    assert in_thread(asyncio.run, (run(),)) == (b'one', {'a': 1})


def test_an_unroutable_message_is_returned(broker, in_thread):
    async def run():
        async with await aio_pika.connect(broker.url) as connection:
            channel = await connection.channel(on_return_raises=True)
            with pytest.raises(aio_pika.exceptions.DeliveryError):
                await channel.default_exchange.publish(aio_pika.Message(b''), routing_key='nowhere')

    in_thread(asyncio.run, (run(),))


def test_remote_calls(broker, in_thread):
    async def run():
        async with await aio_pika.connect_robust(broker.url) as connection:
            channel = await connection.channel()
            rpc = await RPC.create(channel)

            async def multiply(*, x, y):
                return x * y

            await rpc.register('multiply', multiply, auto_delete=True)
            results = [await rpc.proxy.multiply(x=x, y=2) for x in range(10)]
            await rpc.close()
            return results

    assert in_thread(asyncio.run, (run(),)) == [x * 2 for x in range(10)]
