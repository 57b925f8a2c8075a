"""Which test is about which fault, and the table of how each fault was survived.

`@pytest.mark.row('7')` says it; `make faults` runs every row at full size and prints the table. A row is held when it
has a test and all its tests have passed: a row that is skipped, or expected to fail, is not.
"""

from __future__ import annotations

from collections import defaultdict
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


class Rows:
    """Collects what became of each row, as a plugin of pytest.

    :param path: a file to write the table to; None: none. With it a row that was not held fails the run.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._outcomes: dict[str, list[str]] = defaultdict(list)
        self._seconds: dict[str, float] = defaultdict(float)
        self._figures: dict[str, dict[str, int]] = {}

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
            self._seconds[row] += report.duration / len(rows)
            if report.when == 'call' or report.outcome != 'passed':
                self._outcomes[row].append('expected to fail' if hasattr(report, 'wasxfail') else report.outcome)
            if report.when == 'teardown':
                self._add_figures(row, report)

    def _add_figures(self, row: str, report: pytest.TestReport) -> None:
        for name, value in report.user_properties:
            if name == 'ledger':
                assert isinstance(value, dict)
                figures = self._figures.setdefault(row, dict.fromkeys(FIGURES, 0))
                for figure in FIGURES:
                    figures[figure] += value[figure]

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self._path is not None:
            self._path.write_text(self.table())
            if self._failed:
                session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self._path is not None:
            terminalreporter.section('faults')
            terminalreporter.write(self.table())
            held = len(ROWS) - len(self._failed)
            terminalreporter.write_line(f'{held} of {len(ROWS)} rows held')

    @property
    def _failed(self) -> list[str]:
        return [row for row in ROWS if not self._is_held(row)]

    def _is_held(self, row: str) -> bool:
        return set(self._outcomes[row]) == {'passed'}

    def table(self) -> str:
        """The table as text, a row a line."""
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
                    'held' if self._is_held(row) else ', '.join(sorted(set(self._outcomes[row]))) or 'no test',
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
