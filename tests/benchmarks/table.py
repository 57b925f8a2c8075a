"""Results as text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from tests.benchmarks.results import Results
from tests.benchmarks.targets import targets

Cell = Callable[[str, str], str]


def grid(title: str, rows: Iterable[list[str]]) -> str:
    """A table, its first row its head; the first column to the left, the others to the right."""
    table = [list(row) for row in rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    lines = [
        '  '.join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in table
    ]
    rule = '  '.join('-' * width for width in widths)
    return '\n'.join([title, '', lines[0], rule, *lines[1:], ''])


def listing(title: str, facts: Mapping[str, str]) -> str:
    """Names and what there is to say of each."""
    width = max(map(len, facts))
    return '\n'.join([title, '', *(f'{name:{width}}  {value}' for name, value in facts.items()), ''])


def by_work(title: str, results: Results, cell: Cell) -> str:
    """A table of contenders and works."""
    rows = [['', *results.works]]
    for contender in results.contenders:
        cells = [cell(contender, work) for work in results.works]
        if any(cells):
            rows.append([contender, *(text or '-' for text in cells)])
    return grid(title, rows)


def text(results: Results, about: Mapping[str, Mapping[str, str]], how: str) -> str:
    """All of it.

    :param about: titles, and what is to be said under each, by name.
    :param how: how it was measured.
    """

    def rate(contender: str, work: str) -> str:
        median = results.median(contender, work)
        return '' if median is None else f'{median.rate:,.0f}'

    def latency(contender: str, work: str) -> str:
        median = results.median(contender, work)
        return '' if median is None else f'{median.p50 / 1000:,.2f} / {median.p99 / 1000:,.2f}'

    def cpu(contender: str, work: str) -> str:
        median = results.median(contender, work)
        if median is None:
            return ''
        broker = '-' if median.broker_cpu is None else f'{median.broker_cpu:,.0f}'
        return f'{median.client_cpu:,.0f} + {median.server_cpu:,.0f} + {broker}'

    def times(contender: str, work: str) -> str:
        ratio = results.ratio('amphora safe', contender, work)
        return '' if ratio is None else f'{ratio:.2f}'

    parts = [
        how,
        *(listing(title, facts) for title, facts in about.items()),
        by_work('Calls a second', results, rate),
        by_work('Calls a second of amphora safe, divided by theirs', results, times),
        by_work('Milliseconds a call: p50 / p99', results, latency),
        by_work('CPU microseconds a call: client + server + broker (which also counts its spinning)', results, cpu),
    ]
    if results.memory is not None:
        memory = results.memory
        parts.append(
            grid(
                'Bytes of memory a call under way',
                [
                    ['', 'all', 'of it the greenlet', 'rest'],
                    *(
                        [where, f'{all_:,.0f}', f'{memory.greenlet:,.0f}', f'{all_ - memory.greenlet:,.0f}']
                        for where, all_ in (('client', memory.client), ('server', memory.server))
                    ),
                ],
            )
        )
    parts.append(
        grid(
            'Targets',
            [
                ['', 'target', 'figure', ''],
                *(
                    [each.measure, each.limit, '-' if each.figure is None else f'{each.figure:.2f}', each.verdict]
                    for each in targets(results)
                ),
            ],
        )
    )
    if results.failures:
        reasons = [
            f'{contender}{", " * bool(work)}{work}: cannot run here: {reason}'
            for (contender, work), reason in results.failures.items()
        ]
        parts.append('\n'.join(['Not measured', '', *reasons, '']))
    return '\n'.join(parts)
