"""A server in a process of its own, so that its memory can be looked at.

Called with a service's name and a prefetch; the broker is in ``AMPHORA_AMQP_URL``. Says ``up`` when it takes calls.
"""

from __future__ import annotations

import gc
import signal
import sys

import gevent

from amphora import AmqpRpcServer
from tests.hostile.stranger import add


def give(size: int) -> str:
    """Text of so many characters."""
    return 'x' * size


def main(service: str, prefetch: int) -> None:
    gc.disable()  # what waits for the garbage collector is in the memory, too
    server = AmqpRpcServer(service, prefetch=prefetch)
    server.add_function(add)
    server.add_function(give)
    server.add_function(len, name='size')
    server.serve()
    gevent.signal_handler(signal.SIGTERM, lambda: gevent.spawn(server.stop))
    server.wait_ready()
    sys.stdout.write('up\n')
    sys.stdout.flush()
    server.serve(nowait=False)


if __name__ == '__main__':
    main(sys.argv[1], int(sys.argv[2]))
