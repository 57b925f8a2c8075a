"""Works on tasks with aio-pika's Master."""

import asyncio
import os

from aio_pika import connect_robust
from aio_pika.patterns import Master, RejectMessage


async def worker(*, task_id: int) -> None:
    if task_id % 2 == 0:
        raise RejectMessage(requeue=False)

    print(task_id)


async def main() -> None:
    connection = await connect_robust(os.environ['AMPHORA_AMQP_URL'])
    channel = await connection.channel()
    master = Master(channel)
    await master.create_worker('my_task_name', worker, auto_delete=True)
    print('working')
    try:
        await asyncio.Future()
    finally:
        await connection.close()


asyncio.run(main())
