"""What amphora must reach, and whether it has."""

from __future__ import annotations

from dataclasses import dataclass

from tests.benchmarks.results import Results
from tests.benchmarks.work import CONCURRENCY, SIZE_CALLERS, Work


@dataclass(frozen=True)
class Target:
    """One row of the table.

    :param least: what the figure must be at least, where more is better.
    :param most: what it must be at most, where less is better.
    """

    measure: str
    figure: float | None
    least: float | None = None
    most: float | None = None
    unit: str = ''

    @property
    def limit(self) -> str:
        return f'>= {self.least:g}{self.unit}' if self.least is not None else f'<= {self.most:g}{self.unit}'

    @property
    def verdict(self) -> str:
        if self.figure is None:
            return 'not measured'
        reached = self.figure >= self.least if self.least is not None else self.figure <= self.most
        return 'reached' if reached else 'not reached'


def targets(results: Results) -> list[Target]:
    """The table, from the medians of a run."""
    one, _, hundred, thousand, ten_thousand = (Work(callers).name for callers in CONCURRENCY)
    megabyte = Work(SIZE_CALLERS, 1_000_000).name
    safe, bare = 'amphora safe', 'amphora bare'

    def against(mine: str, theirs: str, work: str, least: float) -> Target:
        return Target(f'{mine} / {theirs}, {work}', results.ratio(mine, theirs, work), least)

    median = results.median(safe, hundred)
    memory = results.memory
    return [
        *(against(bare, 'C bare', work, 0.75) for work in (hundred, thousand, one)),
        *(against(safe, 'C safe', work, 0.80) for work in (hundred, thousand, one)),
        against(safe, 'aio-pika', hundred, 10),
        against(safe, 'aio-pika', one, 2.4),
        against(safe, 'zerorpc', hundred, 3.5),
        Target(f'{safe}, {ten_thousand} / {hundred}', results.ratio(safe, safe, ten_thousand, hundred), 0.80),
        against(safe, 'C safe', megabyte, 0.80),
        against(bare, 'C bare', megabyte, 0.80),
        Target(
            f'CPU a call, client and server, {safe}, {hundred}',
            None if median is None else median.client_cpu + median.server_cpu,
            most=45,
            unit=' us',
        ),
        Target(
            'memory a call under way, 10,000 of them, client, beyond the waiting greenlet',
            None if memory is None else (memory.client - memory.greenlet) / 1024,
            most=4,
            unit=' KiB',
        ),
        Target(
            'import of client and server, beyond gevent and msgspec',
            None if results.import_seconds is None else results.import_seconds * 1000,
            most=60,
            unit=' ms',
        ),
    ]
