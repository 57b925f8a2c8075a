"""aio-pika's RPC pattern, as its page "Patterns and helpers" shows it."""

import asyncio

from aio_pika import connect_robust
from aio_pika.patterns import RPC

from tests.benchmarks.load import drive_tasks, main, ready


async def echo(*, text):
    return text


def serve(url, service, kind):
    async def run():
        connection = await connect_robust(url)
        rpc = await RPC.create(await connection.channel())
        await rpc.register(service, echo, auto_delete=True)
        ready()
        await asyncio.Future()

    asyncio.run(run())


def drive(url, service, work):
    async def run():
        connection = await connect_robust(url)
        rpc = await RPC.create(await connection.channel())
        await drive_tasks(work, lambda text: rpc.call(service, kwargs={'text': text}))

    asyncio.run(run())


if __name__ == '__main__':
    main(serve, drive)
