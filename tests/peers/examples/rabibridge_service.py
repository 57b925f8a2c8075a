"""Serves two functions with RabiBridge."""

import asyncio
import os
from urllib.parse import urlsplit

from rabibridge import RMQServer, logger, register_call

broker = urlsplit(os.environ['AMPHORA_AMQP_URL'])
logger.remove()  # it prints every step of every call otherwise


@register_call(queue_size=100, fetch_size=10, timeout=10, validate=True)
async def price(item: str, count: int = 1):
    await asyncio.sleep(0)
    return {'item': item, 'price': 5 * count}


@register_call()
def shout(text):
    return text.upper()


async def main():
    server = RMQServer(host=broker.hostname, port=broker.port, username=broker.username, password=broker.password)
    server.load_services(globals())
    async with server:
        print('serving')
        await server.run_serve()


asyncio.run(main())
