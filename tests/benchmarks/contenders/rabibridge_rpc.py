"""RabiBridge, as its README shows it."""

import asyncio
from urllib.parse import urlsplit

import rabibridge
from rabibridge import RMQClient, RMQServer, register_call

from tests.benchmarks.load import drive_tasks, main, ready

# It reads these from a file in the project's root, which for an installed package is in nobody's project. The values
# are its README's.
rabibridge.mq.CID_MAX = 1073741824
rabibridge.mq.COMPRESS_THRESHOLD = 1024
# It prints a line for each step of each call otherwise.
rabibridge.logger.remove()


@register_call(timeout=60)
async def echo(text: str):
    return text


def place(url):
    parts = urlsplit(url)
    return {'host': parts.hostname, 'port': parts.port, 'username': parts.username, 'password': parts.password}


def serve(url, service, kind):
    async def run():
        bridge = RMQServer(**place(url))
        bridge.load_services({service: echo})
        async with bridge:
            ready()
            await bridge.run_serve()

    asyncio.run(run())


def drive(url, service, work):
    async def run():
        async with RMQClient(**place(url)) as bridge:
            await drive_tasks(work, lambda text: bridge.remote_call(service, (text,)))

    asyncio.run(run())


if __name__ == '__main__':
    main(serve, drive)
