"""Where commands print tables."""

from __future__ import annotations

from rich.console import Console

# Wider than any line: whoever reads it from a file wants a row on one line.
_ONE_LINE = 1_000_000


def table_console() -> Console:
    """A console that breaks rows into lines on a terminal, and nowhere else."""
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = _ONE_LINE
    return console
