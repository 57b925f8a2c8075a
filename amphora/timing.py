"""Deadlines, backoff and throttles: pure values in seconds of a monotonic clock.

They are told what time it is and what was drawn at random; they read no clock, draw nothing and never sleep.
"""

from __future__ import annotations

from math import inf

from msgspec import Struct

__all__ = ('Backoff', 'Deadline', 'Throttle')


class Deadline(Struct, frozen=True):
    """A moment by which something must have happened.

    :param at: the moment, in seconds of the clock that ``now`` is read from; infinity for "never".
    """

    at: float = inf

    @classmethod
    def after(cls, timeout: float | None, now: float) -> Deadline:
        """The moment `timeout` seconds from `now`.

        :param timeout: seconds; 0 is allowed and has passed at once, None means "never".
        :param now: seconds of a monotonic clock.
        :raises TypeError: the timeout is not a number.
        :raises ValueError: the timeout is negative or NaN.
        """
        if timeout is None:
            return cls(inf)
        # True is an int; as a timeout it is a mistake.
        if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
            raise TypeError(f'a timeout must be a number of seconds or None, not {type(timeout).__name__}')
        if not timeout >= 0:  # NaN is neither
            raise ValueError(f'a timeout must be 0 or more seconds, not {timeout!r}')
        try:
            return cls(now + timeout)
        except OverflowError:  # an int beyond all floats
            return cls(inf)

    def remaining(self, now: float) -> float:
        """Seconds until the moment: 0 once it has passed, infinity for "never"."""
        return self.at - now if self.at > now else 0.0

    def expired(self, now: float) -> bool:
        """Whether the moment has come."""
        return now >= self.at


class Backoff:
    """The delays between attempts: longer from one to the next up to a cap, and drawn within their limits.

    Drawn, so that the many clients that lose one broker do not come back to it in step.

    :param first: the longest that the first delay can be, in seconds.
    :param factor: by how much the limit grows from one delay to the next, at least 1.
    :param cap: the longest that any delay can be, jitter included, in seconds.
    :param jitter: which part of a delay is drawn: 0 for none of it, 0.5 for delays from half the limit to all of it.
    :raises ValueError: a parameter is out of its range.
    """

    __slots__ = ('_cap', '_factor', '_first', '_jitter', '_limit')

    def __init__(self, first: float = 0.05, factor: float = 2.0, cap: float = 2.0, jitter: float = 0.5) -> None:
        if not 0 < first <= cap < inf:
            raise ValueError(f'first and cap must be seconds with 0 < first <= cap, not {first!r} and {cap!r}')
        if not 1 <= factor < inf:
            raise ValueError(f'factor must be at least 1, not {factor!r}')
        if not 0 <= jitter <= 1:
            raise ValueError(f'jitter must be 0 to 1, not {jitter!r}')
        self._first = first
        self._factor = factor
        self._cap = cap
        self._jitter = jitter
        self._limit = first

    def next_delay(self, random: float) -> float:
        """How long to wait before the next attempt, in seconds; the attempt after that waits longer.

        :param random: what was drawn, from 0 (included) to 1 (excluded).
        """
        delay = self._limit * (1 - self._jitter * random)
        self._limit = min(self._cap, self._limit * self._factor)
        return delay

    def reset(self) -> None:
        """Begin again with the first delay: an attempt has succeeded."""
        self._limit = self._first


class Throttle:
    """Lets something happen at most once in an interval: a log line that the peer can cause as often as it likes.

    :param interval: seconds.
    """

    __slots__ = ('_interval', '_next')

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._next = -inf

    def admits(self, now: float) -> bool:
        """Whether it may happen now; then it has."""
        if now < self._next:
            return False
        self._next = now + self._interval
        return True
