"""aio-pika's RPC with a serialisation of one's own, on both sides: ``aio_pika_msgpack.py call`` or ``... serve``."""

import asyncio
import os
import sys
from typing import Any

import msgpack
from aio_pika import connect_robust
from aio_pika.patterns import RPC


class MsgpackRPC(RPC):
    CONTENT_TYPE = 'application/msgpack'

    def serialize(self, data: Any) -> bytes:
        return msgpack.dumps(data)

    def deserialize(self, data: bytes) -> Any:
        return msgpack.loads(data)


async def times(*, x: int, y: int) -> int:
    return x * y


async def main() -> None:
    connection = await connect_robust(os.environ['AMPHORA_AMQP_URL'])
    async with connection:
        rpc = await MsgpackRPC.create(await connection.channel())
        if sys.argv[1] == 'call':
            print(await rpc.proxy.times(x=100, y=2))
            return
        await rpc.register('times', times, auto_delete=True)
        print('serving')
        await asyncio.Future()


asyncio.run(main())
