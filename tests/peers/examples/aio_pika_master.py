"""Makes tasks with aio-pika's Master."""

import asyncio
import os

from aio_pika import connect_robust
from aio_pika.patterns import Master


async def main() -> None:
    connection = await connect_robust(os.environ['AMPHORA_AMQP_URL'])
    async with connection:
        channel = await connection.channel()
        master = Master(channel)

        for task_id in range(3):
            await master.proxy.my_task_name(task_id=task_id)

        for task_id in range(3, 6):
            await master.create_task('my_task_name', kwargs={'task_id': task_id})

    print('6 tasks made')


asyncio.run(main())
