"""Properties that are tried with random examples until their share of the time is over.

An example must not raise, must not make gevent's hub print an error, must not let amphora log an error of its own, and
must not take long. What fails is shrunk, shown, and kept in `CORPUS`, from where it is tried first the next time.
"""

from __future__ import annotations

import io
import logging
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

import gevent
import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from hypothesis.database import DirectoryBasedExampleDatabase

CORPUS = Path(__file__).parent / 'corpus'

# Hypothesis remembers every example of a round, so that an hour must not be one round.
ROUND = 2000
# Seconds, and seconds of CPU time, that an example may take; the slowest take a hundredth of it.
LIMIT = 10
CPU_LIMIT = 3

Check = Callable[..., None]


class TimeIsUp(BaseException):
    """The property has had its share. Not an `Exception`: it is not to be taken for a failure."""


class Corpus(DirectoryBasedExampleDatabase):
    """The examples that have failed. Hypothesis would keep the one at which time was up as well.

    :param has_failed: whether anything has.
    """

    def __init__(self, has_failed: Callable[[], bool]) -> None:
        super().__init__(CORPUS)
        self._has_failed = has_failed

    def save(self, key: bytes, value: bytes) -> None:
        if self._has_failed():
            super().save(key, value)


class Mishaps(logging.Handler):
    """What went wrong where nobody could catch it: errors in gevent's hub, and errors logged with a traceback."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self._printed = io.StringIO()
        self._logged: list[str] = []

    @contextmanager
    def watching(self) -> Iterator[None]:
        hub, logger = gevent.get_hub(), logging.getLogger('amphora')
        hub.exception_stream = self._printed
        logger.addHandler(self)
        # pytest would keep all that is logged, and every connection that it is about.
        logger.propagate = False
        try:
            yield
        finally:
            logger.propagate = True
            logger.removeHandler(self)
            del hub.exception_stream

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info:
            self._logged.append(logging.Formatter().format(record))

    def check(self) -> None:
        """Fail when something went wrong since the last time."""
        said = self._printed.getvalue() + '\n'.join(self._logged)
        self._printed.seek(0)
        self._printed.truncate()
        self._logged.clear()
        assert not said, said


@contextmanager
def cpu_limit(seconds: float) -> Iterator[None]:
    """Raise an AssertionError when this process burns more CPU time: a greenlet that never lets go is found out too."""

    def give_up(*_: object) -> None:
        raise AssertionError(f'more than {seconds} s of CPU time')

    before = signal.signal(signal.SIGVTALRM, give_up)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


class Fuzz:
    """Tries a property until its time is over::

        @fuzz(st.binary(), examples=[b'what once failed'])
        def check(data: bytes) -> None: ...

    :param seconds: from now on.
    :ivar tried: how many examples there were.
    """

    def __init__(self, seconds: float) -> None:
        self.tried = 0
        self._began = time.monotonic()
        self._end = self._began + seconds
        self._failed = False
        self._mishaps = Mishaps()

    @property
    def rate(self) -> float:
        """Examples a second."""
        return self.tried / (time.monotonic() - self._began)

    def __call__(self, *strategies: st.SearchStrategy[Any], examples: Iterable[Any] = ()) -> Callable[[Check], None]:
        """Try the decorated property now.

        :param strategies: what its examples are drawn from, an argument each.
        :param examples: those that are always tried: one that has failed before has its place here. A tuple holds
            several arguments.
        """

        def run(check: Check) -> None:
            with self._mishaps.watching():
                try:
                    while True:
                        self._round(check, strategies, examples)
                except TimeIsUp:
                    return

        return run

    def _round(self, check: Check, strategies: tuple[st.SearchStrategy[Any], ...], examples: Iterable[Any]) -> None:
        @wraps(check)
        def checked(**arguments: Any) -> None:
            # A failure is shrunk to its end.
            if time.monotonic() > self._end and not self._failed:
                raise TimeIsUp
            self.tried += 1
            try:
                # An error and no Timeout: it is a failure of the example, to be shrunk and kept like any other.
                with cpu_limit(CPU_LIMIT), gevent.Timeout(LIMIT, AssertionError(f'not over after {LIMIT} s')):
                    check(**arguments)
                self._mishaps.check()
            except Exception:
                self._failed = True
                raise

        test: Any = given(*strategies)(checked)
        for each in examples:
            test = example(*(each if isinstance(each, tuple) else (each,)))(test)
        settings(
            max_examples=ROUND,
            database=Corpus(lambda: self._failed),
            phases=(Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
            deadline=None,
            derandomize=False,
            print_blob=False,
            report_multiple_bugs=False,
        )(test)()


class Rates:
    """Prints how many examples each property was tried with, as a plugin of pytest."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def add(self, name: str, fuzz: Fuzz) -> None:
        self._lines.append(f'{fuzz.tried:8} examples, {fuzz.rate:6.0f} a second: {name}')

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self._lines:
            terminalreporter.section('fuzzing')
            for line in self._lines:
                terminalreporter.write_line(line)
