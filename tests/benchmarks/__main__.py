"""Measure amphora beside the limit and beside what a user would pick instead, on one private RabbitMQ."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from tests.benchmarks.contender import CONTENDERS, Contender
from tests.benchmarks.footprint import import_seconds, memory_per_call
from tests.benchmarks.limit import build
from tests.benchmarks.machine import machine, versions
from tests.benchmarks.measurement import Place, measure
from tests.benchmarks.process import Failed
from tests.benchmarks.results import Results
from tests.benchmarks.table import text
from tests.benchmarks.work import CONCURRENCY, Work, smallest_works, works
from tests.rabbitmq import RabbitNode

#: runs whose median is the time of the import
IMPORTS = 9


def parse(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='python -m tests.benchmarks', description=__doc__)
    parser.add_argument('--seconds', type=float, default=2.0, help='how long each measurement takes (2)')
    parser.add_argument('--warm-up', type=float, default=0.5, help='seconds before it, at least (0.5)')
    parser.add_argument('--rounds', type=int, default=3, help='measurements whose median counts (3)')
    parser.add_argument('--only', action='append', metavar='NAME', help='contenders whose names begin so; repeatable')
    parser.add_argument('--work', action='append', metavar='NAME', help='works whose names begin so; repeatable')
    parser.add_argument('--smallest', action='store_true', help='everything once and short, to see that it works')
    parser.add_argument('--url', help='of a RabbitMQ that runs already; by default a private one is started')
    parser.add_argument('--output', type=Path, help='a directory for the table, the figures as JSON, and the plots')
    return parser.parse_args(words)


@contextmanager
def running_broker(url: str | None, programs: Path) -> Iterator[Place]:
    if url is not None:
        yield Place(url, None, programs)
        return
    with RabbitNode() as node:
        yield Place(node.url, node.pid, programs)


def chosen(names: list[str], prefixes: list[str] | None) -> list[str]:
    """The names that begin with one of the prefixes; all, where there are none.

    :raises SystemExit: a prefix fits none.
    """
    for prefix in prefixes or ():
        if not any(name.startswith(prefix) for name in names):
            raise SystemExit(f'{prefix!r} is the beginning of none of: {"; ".join(names)}')
    return [name for name in names if not prefixes or name.startswith(tuple(prefixes))]


def cannot_run(results: Results, contender: str, work: str, reason: str) -> None:
    results.failures[contender, work] = reason
    print(f'{contender}{", " * bool(work)}{work}: cannot run here: {reason}', flush=True)


def ready_contenders(results: Results, programs: Path) -> list[Contender]:
    """Those that have all that they need; of the others it is said what is missing."""
    found = []
    no_limit = build(programs) if any(name.startswith('C ') for name in results.contenders) else None
    for contender in CONTENDERS:
        if contender.name in results.contenders:
            missing = contender.missing() if contender.module else no_limit
            if missing is None:
                found.append(contender)
            else:
                cannot_run(results, contender.name, '', missing)
    return found


def run(results: Results, place: Place, rounds: int) -> None:
    """Measure everything, round after round; in each the contenders do a work one right after the other, since the
    machine drifts."""
    contenders = ready_contenders(results, place.programs)
    for round in range(1, rounds + 1):
        for name, work in results.works.items():
            for contender in contenders:
                if work.kind in contender.kinds and (contender.name, name) not in results.failures:
                    attempt(results, place, contender, work, f'round {round}, {name}')


def attempt(results: Results, place: Place, contender: Contender, work: Work, when: str) -> None:
    reason = contender.why_not(work)
    if reason is None:
        try:
            measurement = measure(contender, work, place)
        except Failed as failure:
            reason = str(failure)
        else:
            results.measurements[contender.name, work.name].append(measurement)
            print(f'{when}: {contender.name}: {measurement.rate:,.0f} calls a second', flush=True)
    if reason is not None:
        cannot_run(results, contender.name, work.name, reason)


def measure_footprint(results: Results, place: Place, callers: int, imports: int) -> None:
    results.import_seconds = import_seconds(imports)
    try:
        results.memory = memory_per_call(place, callers)
    except Failed as failure:
        cannot_run(results, CONTENDERS[0].name, f'memory of {callers:,} calls', str(failure))


def write(results: Results, about: dict[str, dict[str, str]], shown: str, directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / 'results.txt').write_text(shown)
    (directory / 'results.json').write_text(json.dumps(results.as_json(about), indent=1) + '\n')
    if find_spec('matplotlib') is None:
        print('no plots: matplotlib is not installed')
    else:
        from tests.benchmarks.plots import draw

        draw(results, directory)


def main() -> int:
    options = parse()
    to_do = smallest_works() if options.smallest else works(options.warm_up, options.seconds)
    by_name = {work.name: work for work in to_do}
    results = Results(
        {name: by_name[name] for name in chosen(list(by_name), options.work)},
        chosen([contender.name for contender in CONTENDERS], options.only),
    )
    rounds = 1 if options.smallest else options.rounds
    with tempfile.TemporaryDirectory(prefix='amphora-benchmarks-') as programs:
        about = {'Machine': machine()}
        with running_broker(options.url, Path(programs)) as place:
            about['Versions'] = versions(place.url)
            run(results, place, rounds)
            if CONTENDERS[0].name in results.contenders and not options.work:
                callers, imports = (100, 1) if options.smallest else (CONCURRENCY[-1], IMPORTS)
                measure_footprint(results, place, callers, imports)
    seconds = max(work.seconds for work in results.works.values())
    how = f'Medians over rounds: {rounds}, of {seconds:g} s each. Figures drift with the machine; compare ratios.\n'
    shown = text(results, about, how)
    print(f'\n{shown}')
    if options.output is not None:
        write(results, about, shown, options.output)
    return 0


if __name__ == '__main__':
    sys.exit(main())
