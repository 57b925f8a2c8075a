"""Calls `fib` as the RPC of aioamqp's documentation does."""

import asyncio
import os
import uuid

import aioamqp


class FibonacciRpcClient:
    async def connect(self):
        self.transport, self.protocol = await aioamqp.from_url(os.environ['AMPHORA_AMQP_URL'])
        self.channel = await self.protocol.channel()
        result = await self.channel.queue_declare(queue_name='', exclusive=True)
        self.callback_queue = result['queue']
        await self.channel.basic_consume(self.on_response, queue_name=self.callback_queue, no_ack=True)

    async def on_response(self, channel, body, envelope, properties):
        if properties.correlation_id == self.correlation_id:
            self.response = body
            self.waiter.set()

    async def call(self, n):
        self.waiter = asyncio.Event()
        self.correlation_id = str(uuid.uuid4())
        await self.channel.basic_publish(
            payload=str(n).encode(),
            exchange_name='',
            routing_key='rpc_queue',
            properties={'reply_to': self.callback_queue, 'correlation_id': self.correlation_id},
        )
        await self.waiter.wait()
        return int(self.response)

    async def close(self):
        await self.protocol.close()
        self.transport.close()


async def main():
    fibonacci_rpc = FibonacciRpcClient()
    await fibonacci_rpc.connect()
    result = await fibonacci_rpc.call(4)
    print('fib(4) is %r' % result)
    await fibonacci_rpc.close()


asyncio.run(main())
