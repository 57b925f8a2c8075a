"""Acks that are gathered: which go out, in which order, and what they include."""

import gevent
import pytest

from amphora.amqp.acks import LATE, Acks


class Written(list):
    """Acks as they were written: (delivery tag, multiple)."""

    def __call__(self, tag: int, multiple: bool) -> None:
        self.append((tag, multiple))


@pytest.fixture
def written() -> Written:
    return Written()


@pytest.fixture
def acks(written: Written) -> Acks:
    return Acks(written)


def test_acks_of_one_turn_of_the_loop_go_out_as_one(acks: Acks, written: Written) -> None:
    for tag in (1, 2, 3):
        acks.delivered(tag)
    for tag in (3, 1, 2):
        acks.add(tag)

    assert written == []
    gevent.sleep(0)
    assert written == [(3, True)]


def test_one_ack_includes_nothing_else(acks: Acks, written: Written) -> None:
    acks.delivered(1)
    acks.add(1)
    acks.flush()

    assert written == [(1, False)]


def test_what_came_after_a_delivery_in_hand_is_acked_one_by_one(acks: Acks, written: Written) -> None:
    for tag in range(1, 7):
        acks.delivered(tag)
    for tag in (5, 1, 2, 4):
        acks.add(tag)
    acks.flush()

    assert written == [(5, False), (4, False), (2, True)]


def test_a_delivery_that_was_settled_by_other_means_is_no_longer_in_hand(acks: Acks, written: Written) -> None:
    for tag in (1, 2, 3):
        acks.delivered(tag)
    acks.settled(1)
    acks.add(2)
    acks.add(3)
    acks.flush()

    assert written == [(3, True)]


def test_nothing_includes_a_delivery_that_nobody_took(acks: Acks, written: Written) -> None:
    for tag in (1, 3):
        acks.delivered(tag)
    acks.stray()
    acks.add(1)
    acks.add(3)
    acks.flush()

    assert written == [(1, False), (3, False)]


def test_what_is_acked_once_is_not_acked_again(acks: Acks, written: Written) -> None:
    acks.delivered(1)
    acks.add(1)
    acks.flush()
    gevent.sleep(0)

    assert written == [(1, False)]


def test_late_acks_wait_for_others(acks: Acks, written: Written) -> None:
    for tag in (1, 2):
        acks.delivered(tag)
        acks.add_late(tag)
        gevent.sleep(0)
        assert written == []

    gevent.sleep(2 * LATE)
    assert written == [(2, True)]


def test_late_acks_go_out_with_one_that_does_not_wait(acks: Acks, written: Written) -> None:
    for tag in (1, 2):
        acks.delivered(tag)
    acks.add_late(1)
    acks.add(2)
    gevent.sleep(0)
    assert written == [(2, True)]

    gevent.sleep(2 * LATE)
    assert written == [(2, True)]
