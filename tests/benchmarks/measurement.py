"""One contender does one work: how fast, and at what cost."""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.contender import Contender
from tests.benchmarks.load import PATIENCE
from tests.benchmarks.process import Failed, cpu_seconds, running
from tests.benchmarks.work import Work
from tests.rabbitmq import HOST, free_ports

#: seconds that a server may take to start
START_LIMIT = 20.0
#: seconds that a client may take beyond what it was told to
MARGIN = 20.0


@dataclass(frozen=True)
class Place:
    """Where the contenders meet.

    :ivar url: of RabbitMQ.
    :ivar broker: its process id; None: not known.
    :ivar programs: the directory of what was compiled.
    """

    url: str
    broker: int | None
    programs: Path


@dataclass(frozen=True)
class Measurement:
    """What came of a work.

    :ivar rate: calls a second.
    :ivar p50: microseconds in which half of the calls returned.
    :ivar p99: microseconds in which 99 of 100 did.
    :ivar client_cpu: microseconds of CPU a call, user and system, in the client.
    :ivar server_cpu: in the server.
    :ivar broker_cpu: in the broker; an estimate, since Erlang's schedulers spin while they wait. None: not known.
    """

    rate: float
    p50: float
    p99: float
    client_cpu: float
    server_cpu: float
    broker_cpu: float | None


@contextmanager
def meeting_place(contender: Contender, place: Place) -> Iterator[tuple[str, int | None]]:
    """The URL that server and client of a contender meet at, and the process id of the broker there."""
    if contender.broker == 'rabbitmq':
        yield place.url, place.broker
        return
    (port,) = free_ports(1)
    if contender.broker == 'none':
        yield f'tcp://{HOST}:{port}', None
        return
    with running([sys.executable, '-m', 'amphora', 'broker', '--port', str(port)]) as broker:
        broker.expect('amphora broker', START_LIMIT)
        yield f'amqp://guest:guest@{HOST}:{port}/', broker.pid


def measure(contender: Contender, work: Work, place: Place) -> Measurement:
    """Start a server, have a client call it, and end both.

    :raises Failed: that did not work; the text says why.
    """
    # Queues of its own for each: what a client leaves behind at its end is nobody's.
    service = f'bench-{secrets.token_hex(6)}'
    with (
        meeting_place(contender, place) as (url, broker),
        running(contender.server(place.programs, url, service, work.kind)) as server,
    ):
        server.expect('ready', START_LIMIT)
        with running(contender.client(place.programs, url, service, work)) as client:
            others = [server.pid] if broker is None else [server.pid, broker]
            client.expect('begin', work.warm_up + PATIENCE + MARGIN)
            before = [cpu_seconds(pid) for pid in others]
            client.expect('end', work.seconds + PATIENCE + MARGIN)
            spent = [cpu_seconds(pid) - earlier for pid, earlier in zip(others, before, strict=True)]
            result = json.loads(client.expect('{', MARGIN))
    calls = result['calls']
    if result['errors']:
        raise Failed(f'{result["errors"]:,} of {work.callers:,} callers failed: {result["error"]}')
    if not calls:
        raise Failed(f'no call returned within {work.seconds:g} s')
    return Measurement(
        rate=calls / result['seconds'],
        p50=result['p50'],
        p99=result['p99'],
        client_cpu=result['cpu'] / calls * 1e6,
        server_cpu=spent[0] / calls * 1e6,
        broker_cpu=None if broker is None else spent[1] / calls * 1e6,
    )
