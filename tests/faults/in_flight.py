"""How much memory a call takes that is under way: prints it in bytes, one figure a line.

Called with what to measure, the broker's URL, a service's name and a number of calls:

- `client`: makes them, and nobody answers. The figures are of a `defer`, and of a `call` with the greenlet that waits.
- `server`: takes them all at once, and answers none. The figure is of a request with the greenlet that runs it.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable
from pathlib import Path

import gevent
import gevent.event

from amphora import AmqpRpcClient, AmqpRpcServer
from tests.waiting import eventually

LIMIT = 30


def resident() -> int:
    """How many bytes of memory this process has."""
    gc.collect()
    return int(Path('/proc/self/statm').read_text().split()[1]) * os.sysconf('SC_PAGE_SIZE')


def measure_client(url: str, service: str, count: int) -> list[int]:
    client = AmqpRpcClient(service, amqp_url=url)
    client.create_new_request_queue(service)
    kept = []

    def measure(begin: Callable[[int], object]) -> int:
        before = resident()
        kept.append([begin(number) for number in range(count)])
        # All are sent and confirmed.
        eventually(lambda: len(client._pending) == count * len(kept), LIMIT)
        eventually(lambda: not client._publisher._channel.confirms, LIMIT)
        return (resident() - before) // count

    # The first ones make room in all that grows.
    measure(client.defer(routing_key=service).wait)
    return [
        measure(client.defer(routing_key=service).wait),
        measure(lambda number: gevent.spawn(client.call(routing_key=service).wait, number)),
    ]


def measure_server(url: str, service: str, count: int) -> list[int]:
    entered = []
    server = AmqpRpcServer(service, amqp_url=url, prefetch=count)

    @server.add_function
    def wait(number: int) -> None:
        entered.append(number)
        gevent.event.Event().wait()

    server.serve()
    server.wait_ready()
    client = AmqpRpcClient(service, amqp_url=url)
    before = resident()
    for number in range(count):
        client.defer.wait(number)
    eventually(lambda: len(entered) == count, LIMIT)
    return [(resident() - before) // count]


if __name__ == '__main__':
    measure = {'client': measure_client, 'server': measure_server}[sys.argv[1]]
    figures = measure(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    sys.stdout.write(''.join(f'{figure}\n' for figure in figures))
    # Nothing of it is to be kept, or waited for.
    sys.stdout.flush()
    os._exit(0)
