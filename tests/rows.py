"""Which test is about which fault, and the table of how each fault was survived.

`@pytest.mark.row('7')` says it; `make faults` runs every row at full size and prints the table. A row is held when it
has a test, all its tests have passed, and nothing was lost, unexpected or wrong. One that is skipped, or expected to
fail, is not. Called as a program with what several runs of pytest have written, it prints the table of all of them.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import pytest

#: every fault and every kind of bad input that must be survived, in the order of the table
ROWS = {
    '1': 'the broker restarts with 100 calls in flight',
    '2': 'all connections are closed every 2 s',
    '3': 'a connection is reset at every byte of a call',
    '4': 'nothing of what the broker sends arrives',
    '5': 'nothing of what is sent to the broker arrives',
    '6': 'the broker freezes for three heartbeats',
    '7': 'the link is slow',
    '8': 'the broker is short of memory',
    '9': 'the request queue is deleted',
    '10': 'the reply queue is deleted',
    '11': 'a server is killed during a call',
    '12': 'a client is killed during a call',
    '13': "the leader of a quorum queue's cluster is killed",
    '14': 'two of three nodes are down',
    '15': 'a queue exists with other arguments',
    '16': 'a queue or an exchange is missing',
    '17': 'no queue is bound to the routing key',
    '18': 'the password is wrong, or the virtual host is missing',
    '19': 'there is no broker at the start',
    '20': 'a request kills the server each time',
    '21': 'the only server ignores a request',
    '22': 'a request or a reply comes twice',
    '23': 'a reply has an unknown id',
    '24': 'the process forks',
    '25': 'a function burns the CPU',
    '26': "a function outlives the broker's consumer timeout",
    '27': '10,000 calls at the same time',
    '28': 'a body of 100 MB, and one above the limit',
    '29': 'imported before patching, after, never patched; other threads',
    '30': 'the broker accepts and says nothing',
    'shutdown': 'two servers are stopped and started under load',
    'deferred': 'stop and serve while the broker is away',
    'bounds': 'buffers, tables and caches at their limits',
    'soak': 'memory, greenlets and descriptors over time',
    'server input': 'bad input to a server',
    'client input': 'bad input to a client',
    'hostile broker': 'a hostile broker',
    'TLS': 'certificates that must not be trusted',
    'secrets': 'passwords, arguments and tracebacks stay where they belong',
    'fuzzing': 'mutated, cut and random bytes',
}

FIGURES = ('lost', 'unexpected', 'duplicated', 'wrong')
#: those of which none may be
FAULTS = ('lost', 'unexpected', 'wrong')


class Rows:
    """Collects what became of each row, as a plugin of pytest.

    :param path: a file to write it to, for `main`; None: none.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._table = Table()

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            for marker in item.iter_markers('row'):
                for row in marker.args:
                    if row not in ROWS:
                        raise pytest.UsageError(f'{item.nodeid}: there is no row {row!r}; tests/rows.py lists them')
                    item.user_properties.append(('row', row))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        rows = [row for name, row in report.user_properties if name == 'row']
        for row in rows:
            assert isinstance(row, str)
            outcome = None
            if report.when == 'call' or report.outcome != 'passed':
                outcome = 'expected to fail' if hasattr(report, 'wasxfail') else report.outcome
            ledgers = [value for name, value in report.user_properties if name == 'ledger']
            self._table.add(row, outcome, report.duration / len(rows), ledgers if report.when == 'teardown' else [])

    def pytest_sessionfinish(self) -> None:
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.write_text(json.dumps(self._table.added))


class Table:
    """What became of each row.

    :ivar added: all that was added, as arguments of `add`.
    """

    def __init__(self) -> None:
        self.added: list[tuple[object, ...]] = []
        self._outcomes: dict[str, list[str]] = defaultdict(list)
        self._seconds: dict[str, float] = defaultdict(float)
        self._figures: dict[str, dict[str, int]] = {}

    def add(self, row: str, outcome: str | None, seconds: float, ledgers: Iterable[dict[str, int]]) -> None:
        """A part of a test of a row: how it ended (None: the test goes on), how long it took, and what its ledgers
        say."""
        self.added.append((row, outcome, seconds, ledgers))
        self._seconds[row] += seconds
        if outcome is not None:
            self._outcomes[row].append(outcome)
        for ledger in ledgers:
            figures = self._figures.setdefault(row, dict.fromkeys(FIGURES, 0))
            for figure in FIGURES:
                figures[figure] += ledger[figure]

    @property
    def failed(self) -> list[str]:
        """Rows that were not held."""
        return [row for row in ROWS if self._verdict(row) != 'held']

    def _verdict(self, row: str) -> str:
        outcomes = set(self._outcomes[row])
        if not outcomes:
            return 'no test'
        figures = self._figures.get(row, {})
        wrong = [figure for figure in FAULTS if figures.get(figure)]
        return 'held' if outcomes == {'passed'} and not wrong else ', '.join([*sorted(outcomes), *wrong])

    def __str__(self) -> str:
        lines = [('row', 'fault', 'tests', *FIGURES, 'seconds', '')]
        for row, title in ROWS.items():
            figures = self._figures.get(row)
            lines.append(
                (
                    row,
                    title,
                    str(len(self._outcomes[row])),
                    *(str(figures[name]) if figures else '-' for name in FIGURES),
                    f'{self._seconds[row]:.1f}',
                    self._verdict(row),
                )
            )
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        # Words to the left, figures to the right.
        left = {0, 1, len(widths) - 1}
        return ''.join(
            '  '.join(
                cell.ljust(width) if at in left else cell.rjust(width)
                for at, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            + '\n'
            for line in lines
        )


def main(*paths: str) -> int:
    """Print the table of several runs, and write it to the last of these files; 0 when all rows were held."""
    table = Table()
    *written, path = map(Path, paths)
    for each in written:
        for added in json.loads(each.read_text()):
            table.add(*added)
    path.write_text(str(table))
    sys.stdout.write(f'{table}{len(ROWS) - len(table.failed)} of {len(ROWS)} rows held\n')
    return 1 if table.failed else 0


if __name__ == '__main__':
    sys.exit(main(*sys.argv[1:]))
