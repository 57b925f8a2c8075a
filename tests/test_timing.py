"""`Deadline` and `Backoff`, at times and with random numbers that the tests hand in."""

from __future__ import annotations

from decimal import Decimal
from math import inf, nan
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amphora.timing import Backoff, Deadline, Throttle

moments = st.floats(0, 1e9)
timeouts = st.floats(0, 1e9) | st.integers(0, 10**9)
draws = st.floats(0, 1, exclude_max=True)


def test_a_deadline_is_its_timeout_from_now() -> None:
    deadline = Deadline.after(5, now=100.0)
    assert deadline.at == 105.0
    assert deadline.remaining(now=101.5) == 3.5
    assert not deadline.expired(now=104.9)


def test_a_deadline_has_passed_at_its_moment_and_ever_after() -> None:
    deadline = Deadline.after(5, now=100.0)
    assert deadline.expired(now=105.0)
    assert deadline.remaining(now=105.0) == 0
    assert deadline.expired(now=1000.0)
    assert deadline.remaining(now=1000.0) == 0


def test_a_timeout_of_zero_has_passed_at_once() -> None:
    deadline = Deadline.after(0, now=100.0)
    assert deadline.expired(now=100.0)
    assert deadline.remaining(now=100.0) == 0


@pytest.mark.parametrize('timeout', [None, inf, 10**400])
def test_no_timeout_means_never(timeout: float | None) -> None:
    deadline = Deadline.after(timeout, now=100.0)
    assert deadline == Deadline()
    assert deadline.at == inf
    assert deadline.remaining(now=1e300) == inf
    assert not deadline.expired(now=1e300)


@pytest.mark.parametrize('timeout', [-1, -0.001, -inf, nan])
def test_a_timeout_that_is_negative_or_nan_is_refused(timeout: float) -> None:
    with pytest.raises(ValueError, match=f'0 or more seconds, not {timeout!r}'):
        Deadline.after(timeout, now=100.0)


@pytest.mark.parametrize('timeout', ['5', b'5', True, False, [5], Decimal(5), 5j, object()])
def test_a_timeout_that_is_no_number_is_refused(timeout: Any) -> None:
    with pytest.raises(TypeError, match=f'number of seconds or None, not {type(timeout).__name__}'):
        Deadline.after(timeout, now=100.0)


def test_a_deadline_is_a_value() -> None:
    assert Deadline.after(5, now=1.0) == Deadline(6.0)
    assert hash(Deadline(6.0)) == hash(Deadline(6.0))
    with pytest.raises(AttributeError):
        Deadline(6.0).at = 7.0  # type: ignore[misc]


@given(timeouts, moments, moments)
def test_a_deadline_has_expired_exactly_when_nothing_remains(timeout: float, now: float, later: float) -> None:
    deadline = Deadline.after(timeout, now)
    assert deadline.remaining(later) >= 0
    assert deadline.expired(later) == (deadline.remaining(later) == 0)


def test_delays_without_jitter_double_from_the_first_to_the_cap() -> None:
    backoff = Backoff(first=0.05, factor=2.0, cap=2.0, jitter=0)
    assert [backoff.next_delay(0.9) for _ in range(8)] == [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]


def test_jitter_takes_from_a_delay_in_proportion_to_what_was_drawn() -> None:
    assert Backoff(first=1.0, jitter=0.5).next_delay(0.0) == 1.0
    assert Backoff(first=1.0, jitter=0.5).next_delay(0.5) == 0.75
    assert Backoff(first=1.0, jitter=1.0).next_delay(0.75) == 0.25


def test_what_was_drawn_once_does_not_change_later_delays() -> None:
    lucky, unlucky = Backoff(), Backoff()
    lucky.next_delay(0.99)
    unlucky.next_delay(0.0)
    assert lucky.next_delay(0.5) == unlucky.next_delay(0.5)


def test_reset_begins_again_with_the_first_delay() -> None:
    backoff = Backoff(first=0.05)
    for _ in range(5):
        backoff.next_delay(0.0)
    backoff.reset()
    assert backoff.next_delay(0.0) == 0.05
    assert backoff.next_delay(0.0) == 0.1


def test_a_thousand_attempts_and_the_delay_is_still_the_cap() -> None:
    backoff = Backoff(factor=1e300)
    assert [backoff.next_delay(0.0) for _ in range(1000)][-1] == 2.0


@given(st.lists(draws, min_size=1, max_size=50))
def test_no_delay_is_longer_than_the_cap_or_shorter_than_half_the_first(drawn: list[float]) -> None:
    backoff = Backoff()
    assert all(0.025 <= backoff.next_delay(random) <= 2.0 for random in drawn)


@pytest.mark.parametrize(
    ('parameters', 'says'),
    [
        ({'first': 0}, 'first and cap'),
        ({'first': -1}, 'first and cap'),
        ({'first': 3}, 'first and cap'),
        ({'first': nan}, 'first and cap'),
        ({'cap': inf}, 'first and cap'),
        ({'factor': 0.5}, 'factor'),
        ({'factor': nan}, 'factor'),
        ({'jitter': -0.1}, 'jitter'),
        ({'jitter': 1.1}, 'jitter'),
        ({'jitter': nan}, 'jitter'),
    ],
)
def test_parameters_out_of_their_range_are_refused(parameters: dict[str, float], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Backoff(**parameters)


def test_a_throttle_admits_the_first_and_then_one_in_each_interval() -> None:
    throttle = Throttle(2)
    assert [now for now in (-5.0, -4.5, -3.0, 0.0, 1.9, 2.0, 3.9, 10.0) if throttle.admits(now)] == [-5, -3, 0, 2, 10]
