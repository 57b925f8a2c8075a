"""What the contenders are asked to do. Standard library only: their own processes import it, in any environment."""

from __future__ import annotations

import base64
import random
from dataclasses import dataclass

#: bytes; an argument as small as most are
SMALL = 16

CONCURRENCY = (1, 10, 100, 1_000, 10_000)
SIZES = {1_000: '1 kB', 64_000: '64 kB', 1_000_000: '1 MB'}
#: callers that send the larger payloads
SIZE_CALLERS = 10
#: results that are under way at once when calls are pipelined
PIPELINED = 1_000
#: servers that hear each call of a fanout
FANOUT = 10


@dataclass(frozen=True)
class Work:
    """One thing to measure.

    :param callers: how many calls are under way at once.
    :param size: bytes of text that a call carries there and back.
    :param kind: ``call``: each caller waits for its result; ``defer``: one caller that does not; ``fanout``: to ten
        servers at once; ``hold``: calls that never return.
    :param warm_up: seconds before the measurement.
    :param seconds: how long to measure.
    """

    callers: int
    size: int = SMALL
    kind: str = 'call'
    warm_up: float = 0.5
    seconds: float = 2.0

    @property
    def name(self) -> str:
        if self.kind == 'defer':
            return f'defer, {self.callers:,} under way'
        if self.kind == 'fanout':
            return f'fanout to {FANOUT}, {self.callers:,} callers'
        if self.size in SIZES:
            return f'{SIZES[self.size]}, {self.callers:,} callers'
        return f'{self.callers:,} caller{"s" * (self.callers > 1)}'

    @property
    def words(self) -> list[str]:
        """As arguments of a client's command line."""
        return [self.kind, str(self.callers), str(self.size), str(self.warm_up), str(self.seconds)]

    @classmethod
    def of_words(cls, kind: str, callers: str, size: str, warm_up: str, seconds: str) -> Work:
        return cls(int(callers), int(size), kind, float(warm_up), float(seconds))

    def payload(self) -> str:
        """Text that compresses no better than text does; some of the contenders compress."""
        return base64.b64encode(random.Random(self.size).randbytes(self.size)).decode()[: self.size]


def works(warm_up: float, seconds: float) -> list[Work]:
    """Everything that `make bench` measures as calls a second."""
    return [
        *(Work(callers, warm_up=warm_up, seconds=seconds) for callers in CONCURRENCY),
        *(Work(SIZE_CALLERS, size, warm_up=warm_up, seconds=seconds) for size in SIZES),
        Work(PIPELINED, kind='defer', warm_up=warm_up, seconds=seconds),
        Work(100, kind='fanout', warm_up=warm_up, seconds=seconds),
    ]


def smallest_works() -> list[Work]:
    """Each kind of work once, so small that it only shows that it can be done."""
    return [
        Work(2, warm_up=0, seconds=0.1),
        Work(2, 1_000, warm_up=0, seconds=0.1),
        Work(2, kind='defer', warm_up=0, seconds=0.1),
        Work(2, kind='fanout', warm_up=0, seconds=0.1),
    ]
