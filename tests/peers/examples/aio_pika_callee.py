"""Serves `multiply` with aio-pika's RPC."""

import asyncio
import os

from aio_pika import connect_robust
from aio_pika.patterns import RPC


async def multiply(*, x: int, y: int) -> int:
    return x * y


async def main() -> None:
    connection = await connect_robust(os.environ['AMPHORA_AMQP_URL'], client_properties={'connection_name': 'callee'})
    channel = await connection.channel()
    rpc = await RPC.create(channel)
    await rpc.register('multiply', multiply, auto_delete=True)
    print('serving')
    try:
        await asyncio.Future()
    finally:
        await connection.close()


asyncio.run(main())
