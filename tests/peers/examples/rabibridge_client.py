"""Calls two functions with RabiBridge."""

import asyncio
import os
from urllib.parse import urlsplit

from rabibridge import RMQClient, logger

broker = urlsplit(os.environ['AMPHORA_AMQP_URL'])
logger.remove()  # it prints every step of every call otherwise


async def main():
    async with RMQClient(
        host=broker.hostname, port=broker.port, username=broker.username, password=broker.password
    ) as client:
        res = await client.remote_call('price', ('bolt',), {'count': 3}, timeout=10)
        print(res)
        res = await client.remote_call('shout', ('hello',), ftype='sync', timeout=10)
        print(res)
        success, _ = await client.try_remote_call('missing', timeout=10)
        print(success)


asyncio.run(main())
