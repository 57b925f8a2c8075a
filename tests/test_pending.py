"""The table of calls that wait: what it keeps of those that do not wait any more."""

import tracemalloc
from time import monotonic
from typing import Any

from amphora.pending import Entry, Pending
from tests.waiting import eventually

DAY = 86_400


def test_calls_that_have_ended_leave_nothing_until_their_deadline() -> None:
    pending = Pending(lambda entry: None)
    now = monotonic()
    # One that waits, as there always is one: an empty table forgets all by itself.
    pending.open(Entry('waiting', now + DAY))

    def work(second: int) -> None:
        ids = ['%d-%d' % (second, number) for number in range(200)]
        for id in ids:
            pending.open(Entry(id, now + DAY + second))
        for id in ids[::2]:
            assert pending.resolve(id, None)
        for id in ids[1::2]:
            assert pending.take(id) is not None

    work(0)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for second in range(1, 501):
            work(second)
        kept = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
        pending.abandon()

    assert kept < 50_000


def test_a_deadline_that_others_have_left_still_holds() -> None:
    expired: list[Any] = []
    pending = Pending(lambda entry: expired.append(entry.id))
    deadline = monotonic() + 0.2
    for _ in range(3):
        pending.open(Entry('gone', deadline))
        assert pending.take('gone') is not None
    pending.open(Entry('late', deadline))

    eventually(lambda: expired == ['late'])
    assert len(pending) == 0
