"""The RPC of aioamqp's documentation, client and server, as a program of its own: aioamqp needs an older pamqp.

``tutorial_aioamqp.py HOST PORT QUEUE serve`` answers until its input ends: a number with the next one, other bodies
with themselves, and ``wait`` never. ``... call COUNT SECONDS`` reads arguments in hexadecimal, a line each, calls COUNT
at a time, and prints the answers, or nothing in the place of one that did not come in so many seconds.
"""

import asyncio
import sys
import uuid

import aioamqp


async def serve(channel, queue):
    await channel.queue_declare(queue_name=queue)
    await channel.basic_qos(prefetch_count=1, prefetch_size=0, connection_global=False)

    async def on_request(channel, body, envelope, properties):
        if body == b'wait':
            return
        response = str(int(body) + 1).encode() if body.isdigit() else body
        await channel.basic_publish(
            payload=response,
            exchange_name='',
            routing_key=properties.reply_to,
            properties={'correlation_id': properties.correlation_id},
        )
        await channel.basic_client_ack(delivery_tag=envelope.delivery_tag)

    await channel.basic_consume(on_request, queue_name=queue)
    sys.stdout.write('ready\n')
    sys.stdout.flush()
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


class Client:
    def __init__(self, channel, queue, seconds):
        self.channel, self.queue, self.seconds, self.waiting = channel, queue, seconds, {}

    async def start(self):
        self.replies = (await self.channel.queue_declare(queue_name='', exclusive=True))['queue']
        await self.channel.basic_consume(self.on_response, no_ack=True, queue_name=self.replies)

    async def on_response(self, channel, body, envelope, properties):
        self.waiting.pop(properties.correlation_id).set_result(body)

    async def call(self, body):
        id = str(uuid.uuid4())
        answer = self.waiting[id] = asyncio.get_running_loop().create_future()
        properties = {'reply_to': self.replies, 'correlation_id': id}
        await self.channel.basic_publish(payload=body, exchange_name='', routing_key=self.queue, properties=properties)
        try:
            return await asyncio.wait_for(answer, self.seconds)
        except asyncio.TimeoutError:
            return b''


async def call(channel, queue, at_once, seconds):
    client = Client(channel, queue, seconds)
    await client.start()
    bodies = [bytes.fromhex(line) for line in sys.stdin.read().split('\n')[:-1]]
    for begin in range(0, len(bodies), at_once):
        for answer in await asyncio.gather(*map(client.call, bodies[begin : begin + at_once])):
            sys.stdout.write(answer.hex() + '\n')


async def main(host, port, queue, verb, *rest):
    transport, protocol = await aioamqp.connect(host, int(port))
    channel = await protocol.channel()
    if verb == 'serve':
        await serve(channel, queue)
    else:
        await call(channel, queue, int(rest[0]), float(rest[1]))
    await protocol.close()
    transport.close()


if __name__ == '__main__':
    asyncio.run(main(*sys.argv[1:]))
