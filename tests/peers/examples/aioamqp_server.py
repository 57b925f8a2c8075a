"""Answers `fib` as the RPC of aioamqp's documentation does."""

import asyncio
import os

import aioamqp


def fib(n):
    return n if n < 2 else fib(n - 1) + fib(n - 2)


async def on_request(channel, body, envelope, properties):
    n = int(body)

    print(' [.] fib(%s)' % n)
    response = fib(n)

    await channel.basic_publish(
        payload=str(response).encode(),
        exchange_name='',
        routing_key=properties.reply_to,
        properties={'correlation_id': properties.correlation_id},
    )
    await channel.basic_client_ack(delivery_tag=envelope.delivery_tag)


async def main():
    _, protocol = await aioamqp.from_url(os.environ['AMPHORA_AMQP_URL'])
    channel = await protocol.channel()
    await channel.queue_declare(queue_name='rpc_queue')
    await channel.basic_qos(prefetch_count=1, prefetch_size=0, connection_global=False)
    await channel.basic_consume(on_request, queue_name='rpc_queue')
    print(' [x] Awaiting RPC requests')
    await asyncio.Event().wait()


asyncio.run(main())
