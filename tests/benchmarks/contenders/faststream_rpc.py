"""FastStream's `request`, as its page "RPC over RMQ" shows it."""

import asyncio

from faststream import FastStream
from faststream.rabbit import RabbitBroker

from tests.benchmarks.load import drive_tasks, main, ready

# Each message is a line of the log otherwise.
LOG = {'logger': None}


def serve(url, service, kind):
    broker = RabbitBroker(url, **LOG)
    app = FastStream(broker, **LOG)

    @broker.subscriber(service)
    async def echo(text: str) -> str:
        return text

    @app.after_startup
    async def started() -> None:
        ready()

    asyncio.run(app.run())


def drive(url, service, work):
    async def run():
        async with RabbitBroker(url, **LOG) as broker:

            async def call(text):
                reply = await broker.request(text, service, timeout=60)
                return await reply.decode()

            await drive_tasks(work, call)

    asyncio.run(run())


if __name__ == '__main__':
    main(serve, drive)
