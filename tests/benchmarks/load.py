"""What a contender's client does: so many calls at once, for so many seconds, and a line of JSON about them.

Standard library only: each contender brings its own way of waiting. A client says ``begin`` when it is warm, ``end``
when the seconds are over, so that the harness can read what the other processes have computed between the two, and then
what came of them.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import time
from array import array
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from time import perf_counter, process_time
from typing import Any, NoReturn

from tests.benchmarks.work import Work

#: seconds that a client waits, beyond its warm-up, until as many calls have returned as are under way at once; and,
#: beyond the time of the measurement, until one has
PATIENCE = 5.0

# How often it looks whether the time is over, in seconds.
LOOK = 0.005

Call = Callable[[str], object]


def main(serve: Callable[..., object], drive: Callable[..., object]) -> None:
    """Be a server, or a client, as the command line says::

        server URL SERVICE KIND [OPTION ...]
        client URL SERVICE KIND CALLERS SIZE WARM_UP SECONDS [OPTION ...]

    :param serve: called with url, service, kind and the options; calls `ready` when it is, and serves until killed.
    :param drive: called with url, service, work and the options.
    """
    role, url, service, *words = sys.argv[1:]
    if role == 'server':
        serve(url, service, *words)
    else:
        drive(url, service, Work.of_words(*words[:5]), *words[5:])


def ready() -> None:
    """The server serves."""
    print('ready', flush=True)


class Meter:
    """Counts calls, and remembers how long each took once they are measured."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._began = perf_counter()
        self._cpu = 0.0
        self._measuring = False
        self._returned = 0
        self._latencies = array('d')
        self._errors: list[str] = []

    def add(self, began: float) -> None:
        """A call that began then has ended."""
        self._returned += 1
        if self._measuring:
            self._latencies.append(perf_counter() - began)

    def fail(self, error: Exception) -> None:
        """A caller has given up."""
        self._errors.append(f'{type(error).__name__}: {error}')

    def look(self) -> None:
        """To be called often: begins to measure when all is warm, and ends the process when the time is over."""
        elapsed = perf_counter() - self._began
        if self._measuring:
            if elapsed >= self._work.seconds and (self._latencies or elapsed >= self._work.seconds + PATIENCE):
                self._end(elapsed)
        elif elapsed >= self._work.warm_up and (
            self._returned + len(self._errors) >= self._work.callers or elapsed >= self._work.warm_up + PATIENCE
        ):
            print('begin', flush=True)
            self._began, self._cpu = perf_counter(), process_time()
            self._measuring = True

    def _end(self, seconds: float) -> NoReturn:
        cpu = process_time() - self._cpu
        print('end', flush=True)
        latencies = sorted(self._latencies)
        result = {
            'calls': len(latencies),
            'seconds': seconds,
            'cpu': cpu,
            'p50': quantile(latencies, 0.5) * 1e6,
            'p99': quantile(latencies, 0.99) * 1e6,
            'errors': len(self._errors),
        }
        if self._errors:
            result['error'] = self._errors[0]
        print(json.dumps(result), flush=True)
        # At once: what is still under way is of no interest.
        os._exit(0)


def quantile(ordered: Sequence[float], part: float) -> float:
    return ordered[int(len(ordered) * part)] if ordered else 0.0


def check(got: object, payload: str) -> None:
    """Make sure that the echo is one.

    :raises ValueError: it is not.
    """
    if got != payload:
        raise ValueError(f'the reply is not the request: {got!r:.100}')


def drive_callers(
    work: Work,
    connect: Callable[[], Call],
    spawn: Callable[[Callable[[], None]], object] | None = None,
    sleep: Callable[[float], object] = time.sleep,
) -> None:
    """Have callers call, each in a greenlet or thread of its own.

    :param connect: gives a caller what it calls with; of its own, or one for all.
    :param spawn: starts a caller; None: in a thread.
    :param sleep: waits for some seconds while the callers go on.
    """
    meter = Meter(work)
    payload = work.payload()

    def caller() -> None:
        try:
            call = connect()
            while True:
                began = perf_counter()
                check(call(payload), payload)
                meter.add(began)
        except Exception as error:
            meter.fail(error)

    for _ in range(work.callers):
        if spawn is None:
            threading.Thread(target=caller, daemon=True).start()
        else:
            spawn(caller)
    while True:
        sleep(LOOK)
        meter.look()


async def drive_tasks(work: Work, call: Callable[[str], Awaitable[object]]) -> None:
    """Have callers call, each in a task of asyncio."""
    meter = Meter(work)
    payload = work.payload()

    async def caller() -> None:
        try:
            while True:
                began = perf_counter()
                check(await call(payload), payload)
                meter.add(began)
        except Exception as error:
            meter.fail(error)

    # asyncio keeps no tasks by itself.
    callers = [asyncio.create_task(caller()) for _ in range(work.callers)]
    while callers:
        await asyncio.sleep(LOOK)
        meter.look()


def drive_pipeline(work: Work, begin: Callable[[str], Any], finish: Callable[[Any], object]) -> None:
    """Have one caller who begins calls before the earlier ones have ended, so many at once.

    :param begin: begins a call.
    :param finish: waits for one that has begun and gives its result.
    """
    meter = Meter(work)
    payload = work.payload()
    under_way: deque[tuple[float, Any]] = deque()

    try:
        while True:
            while len(under_way) < work.callers:
                under_way.append((perf_counter(), begin(payload)))
            began, call = under_way.popleft()
            check(finish(call), payload)
            meter.add(began)
            meter.look()
    except Exception as error:
        meter.fail(error)
    while True:
        time.sleep(LOOK)
        meter.look()
