"""Results as pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import matplotlib

from tests.benchmarks.measurement import Measurement
from tests.benchmarks.results import Results
from tests.benchmarks.work import CONCURRENCY, SIZE_CALLERS, SIZES, Work

matplotlib.use('svg')
# The same picture from the same figures: no random ids, no date.
matplotlib.rcParams['svg.hashsalt'] = 'amphora'

from matplotlib import pyplot  # noqa: E402

STYLES = {'amphora': {'linewidth': 2.5}, 'C': {'linewidth': 2.0, 'linestyle': '--'}}

Point = Callable[[int, Measurement], tuple[float, float]]


def draw(results: Results, directory: Path) -> list[Path]:
    """Write the plots that there are figures for; gives their paths."""
    callers = [(count, Work(count).name) for count in CONCURRENCY]
    sizes = [(size, Work(SIZE_CALLERS, size).name) for size in SIZES]
    return [
        path
        for path in (
            _plot(
                results,
                directory / 'throughput.svg',
                ('Throughput against concurrency', 'callers', 'calls a second'),
                callers,
                lambda count, figure: (count, figure.rate),
            ),
            _plot(
                results,
                directory / 'latency.svg',
                ('Latency against load', 'calls a second, with 1 to 10,000 callers', 'p99, milliseconds'),
                callers,
                lambda _, figure: (figure.rate, figure.p99 / 1000),
            ),
            _plot(
                results,
                directory / 'size.svg',
                ('Cost against size', 'bytes of payload', 'CPU of client and server, microseconds a call'),
                sizes,
                lambda size, figure: (size, figure.client_cpu + figure.server_cpu),
            ),
        )
        if path is not None
    ]


def _plot(
    results: Results, path: Path, words: tuple[str, str, str], works: list[tuple[int, str]], point: Point
) -> Path | None:
    figure, axes = pyplot.subplots(figsize=(9, 6))
    axes.set_prop_cycle(color=matplotlib.colormaps['tab20'].colors)
    drawn = 0
    for contender in results.contenders:
        medians = [(number, results.median(contender, work)) for number, work in works]
        points = [point(number, median) for number, median in medians if median is not None]
        if points:
            style = STYLES.get(contender.split()[0], {'linewidth': 1.0})
            axes.plot(*zip(*points, strict=True), marker='o', markersize=4, label=contender, **style)
            drawn += 1
    if not drawn:
        pyplot.close(figure)
        return None
    title, across, up = words
    axes.set(title=title, xlabel=across, ylabel=up, xscale='log', yscale='log')
    axes.grid(visible=True, which='both', alpha=0.25)
    axes.legend(loc='center left', bbox_to_anchor=(1.0, 0.5), frameon=False)
    figure.savefig(path, bbox_inches='tight', metadata={'Date': None})
    pyplot.close(figure)
    return path
