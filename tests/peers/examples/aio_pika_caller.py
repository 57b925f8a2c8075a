"""Calls `multiply` with aio-pika's RPC."""

import asyncio
import os

from aio_pika import connect_robust
from aio_pika.patterns import RPC


async def main() -> None:
    connection = await connect_robust(os.environ['AMPHORA_AMQP_URL'], client_properties={'connection_name': 'caller'})
    async with connection:
        channel = await connection.channel()
        rpc = await RPC.create(channel)

        for i in range(3):
            print(await rpc.proxy.multiply(x=100, y=i))

        for i in range(3):
            print(await rpc.call('multiply', kwargs={'x': 100, 'y': i}))


asyncio.run(main())
