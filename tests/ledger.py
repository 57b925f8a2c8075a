"""What was called, what ran, and what came back: so that a test of faults can say that nothing was lost or wrong."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import gevent

from amphora import AmqpRpcClient

logger = logging.getLogger(__name__)

# How much later than its timeout a call may end.
GRACE = 0.25


class Ledger:
    """Calls of one remote function of a number, `double`, each in a greenlet of its own.

    :param client: who calls.
    :param timeout: seconds, of each call.
    :ivar executed: how often the function ran for each number; `double` counts by itself when it is served from this
        process.
    :ivar answers: what came back for each number.
    :ivar errors: what a call raised, by number.
    :ivar late: seconds that calls took which outlived their timeout, by number.
    """

    def __init__(self, client: AmqpRpcClient, timeout: float = 20) -> None:
        self.client = client
        self.timeout = timeout
        self.executed: Counter[int] = Counter()
        self.answers: dict[int, Any] = {}
        self.errors: dict[int, Exception] = {}
        self.late: dict[int, float] = {}
        self._calls: dict[int, gevent.Greenlet] = {}

    def double(self, pause: float = 0) -> Callable[[int], int]:
        """The remote function, which takes some seconds."""

        def double(number: int) -> int:
            self.executed[number] += 1
            gevent.sleep(pause)
            return 2 * number

        return double

    def call(self, numbers: Iterable[int]) -> None:
        """Begin a call for each number."""
        for number in numbers:
            self._calls[number] = gevent.spawn(self._call, number)

    def keep_calling(self, until: Callable[[], bool], callers: int) -> None:
        """Begin calls, so many at a time and one after the other, as long as the condition is false."""

        def caller(first: int) -> None:
            number = first
            while not until():
                self._calls[number] = gevent.getcurrent()
                self._call(number)
                number += callers

        for first in range(callers):
            self._calls[first] = gevent.spawn(caller, first)

    def _call(self, number: int) -> None:
        began = time.monotonic()
        try:
            self.answers[number] = self.client.call(timeout=self.timeout).double(number)
        except Exception as error:
            self.errors[number] = error
        took = time.monotonic() - began
        if took > self.timeout + GRACE:
            self.late[number] = took

    @property
    def sent(self) -> int:
        """How many calls have begun."""
        return len(self._calls)

    @property
    def ended(self) -> int:
        """How many calls have come back, with a result or an error."""
        return len(self.answers) + len(self.errors)

    def wait(self) -> None:
        """Block until each call has ended, by its timeout and a little."""
        gevent.joinall(list(set(self._calls.values())), timeout=self.timeout + 2)
        assert self.ended == self.sent, f'{self.sent - self.ended} of {self.sent} calls hang'
        assert not self.late, f'calls outlived their timeout of {self.timeout} s: {self.late}'

    def check(self, executed_here: bool = True) -> None:
        """Each call has ended, and with the right answer; what ran had been asked for."""
        self.wait()
        assert not self.errors, (
            f'{len(self.errors)} of {self.sent} calls failed: {set(map(repr, self.errors.values()))}'
        )
        wrong = {number: answer for number, answer in self.answers.items() if answer != 2 * number}
        assert not wrong
        if executed_here:
            assert set(self.executed) == set(self._calls)
        logger.info('%d called, %d of them ran more than once', self.sent, len(self.duplicated))

    @property
    def duplicated(self) -> dict[int, int]:
        """Numbers for which the function ran more than once, and how often."""
        return {number: times for number, times in self.executed.items() if times > 1}
