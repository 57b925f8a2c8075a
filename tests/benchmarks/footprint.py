"""What amphora takes up: memory of calls under way, and time to be imported."""

from __future__ import annotations

import os
import secrets
import statistics
import sys
import tempfile
from dataclasses import dataclass, replace

import gevent
from gevent import subprocess

from tests.benchmarks.contender import CONTENDERS
from tests.benchmarks.measurement import START_LIMIT, Place
from tests.benchmarks.process import ROOT, memory_bytes, running
from tests.benchmarks.work import Work

#: calls under way in the process that the others are compared with
FEW = 100
# Seconds that all calls may take to reach the server, and that their confirms may take from then on.
HELD_LIMIT = 60.0
SETTLING = 1.0

# The package imports its parts when they are asked for.
IMPORT = """
import time, gevent, msgspec
began = time.perf_counter()
import amphora
amphora.AmqpRpcClient, amphora.AmqpRpcServer
print(time.perf_counter() - began)
"""

# Greenlets that wait, and nothing else.
GREENLETS = """
import sys, gevent, gevent.event
event = gevent.event.Event()
for _ in range(int(sys.argv[1])):
    gevent.spawn(lambda: event.wait())
gevent.sleep()
print('held', flush=True)
event.wait()
"""


@dataclass(frozen=True)
class MemoryPerCall:
    """Bytes that each of many calls under way takes.

    :ivar client: in the client, with the greenlet that waits for it.
    :ivar server: in the server, with the greenlet that runs it.
    :ivar greenlet: of these, what a greenlet that waits for an event takes by itself.
    """

    client: float
    server: float
    greenlet: float


def memory_per_call(place: Place, callers: int) -> MemoryPerCall:
    """Compare many calls under way with few.

    :raises Failed: the calls did not get under way.
    """
    few, many = ((*held_memory(place, count), greenlet_memory(count)) for count in (FEW, FEW + callers))
    return MemoryPerCall(*((more - less) / callers for more, less in zip(many, few, strict=True)))


def held_memory(place: Place, callers: int) -> tuple[int, int]:
    """Bytes of client and server while the server runs that many calls, none of which returns."""
    contender = CONTENDERS[0]
    service = f'bench-{secrets.token_hex(6)}'
    forever = replace(Work(callers), warm_up=10 * HELD_LIMIT)
    with running(contender.server(place.programs, place.url, service, 'hold', str(callers))) as server:
        server.expect('ready', START_LIMIT)
        with running(contender.client(place.programs, place.url, service, forever)) as client:
            server.expect('held', HELD_LIMIT)
            gevent.sleep(SETTLING)
            return memory_bytes(client.pid), memory_bytes(server.pid)


def greenlet_memory(count: int) -> int:
    """Bytes of a process with that many greenlets that wait."""
    with running([sys.executable, '-c', GREENLETS, str(count)]) as process:
        process.expect('held', HELD_LIMIT)
        return memory_bytes(process.pid)


def import_seconds(runs: int) -> float:
    """The median time that importing amphora's client and server takes once gevent and msgspec are imported."""
    command = [sys.executable, '-c', IMPORT]
    with tempfile.TemporaryDirectory() as directory:
        # As where it is installed, it is compiled already.
        environ = {**os.environ, 'PYTHONPYCACHEPREFIX': directory}
        environ.pop('PYTHONDONTWRITEBYTECODE', None)
        subprocess.check_output(command, cwd=ROOT, env=environ)
        return statistics.median(float(subprocess.check_output(command, cwd=ROOT, env=environ)) for _ in range(runs))
