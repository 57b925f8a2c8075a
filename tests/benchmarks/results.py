"""All measurements of a run, their medians, and what the medians say."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from tests.benchmarks.footprint import MemoryPerCall
from tests.benchmarks.measurement import Measurement
from tests.benchmarks.work import Work


@dataclass
class Results:
    """What a run has found so far, by the names of works and contenders.

    :ivar failures: why a contender has no measurement of a work, or ('' for the work) of any.
    :ivar memory: of calls under way; None: not measured.
    :ivar import_seconds: see `footprint.import_seconds`; None: not measured.
    """

    works: dict[str, Work]
    contenders: list[str]
    measurements: dict[tuple[str, str], list[Measurement]] = field(default_factory=lambda: defaultdict(list))
    failures: dict[tuple[str, str], str] = field(default_factory=dict)
    memory: MemoryPerCall | None = None
    import_seconds: float | None = None

    def median(self, contender: str, work: str) -> Measurement | None:
        """The medians of each figure over the rounds; None when there is no measurement."""
        rounds = self.measurements.get((contender, work))
        if not rounds:
            return None
        figures: dict[str, Any] = {}
        for each in fields(Measurement):
            values = [getattr(one, each.name) for one in rounds]
            figures[each.name] = None if None in values else statistics.median(values)
        return Measurement(**figures)

    def rate(self, contender: str, work: str) -> float | None:
        """Calls a second."""
        median = self.median(contender, work)
        return None if median is None else median.rate

    def ratio(self, contender: str, other: str, work: str, other_work: str | None = None) -> float | None:
        """How many times as many calls a second one makes as the other; None when one was not measured."""
        mine, theirs = self.rate(contender, work), self.rate(other, other_work or work)
        return None if mine is None or theirs is None else mine / theirs

    def as_json(self, about: Mapping[str, Any]) -> dict[str, Any]:
        """Everything, with what the run was made on."""
        return {
            **about,
            'works': {name: asdict(work) for name, work in self.works.items()},
            'memory_bytes_per_call': None if self.memory is None else asdict(self.memory),
            'import_seconds': self.import_seconds,
            'measurements': [
                {'contender': contender, 'work': work, 'rounds': [asdict(each) for each in rounds]}
                for (contender, work), rounds in self.measurements.items()
            ],
            'failures': [
                {'contender': contender, 'work': work, 'reason': reason}
                for (contender, work), reason in self.failures.items()
            ],
        }
