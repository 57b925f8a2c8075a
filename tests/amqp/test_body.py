"""The body of a message that comes in pieces: compiled, and as Python."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Iterator

import pytest

from amphora.amqp import body
from amphora.amqp.body import Body

MEGABYTE = 1 << 20
BODIES = list(dict.fromkeys((Body, body._Body)))


def pieces_of(whole: bytes, sizes: list[int]) -> Iterator[bytes | memoryview]:
    """Now as bytes, now as a view."""
    at = 0
    for number, size in enumerate(sizes):
        piece = whole[at : at + size]
        yield memoryview(piece) if number % 2 else piece
        at += size


@pytest.mark.parametrize('kind', BODIES)
@pytest.mark.parametrize(
    'sizes',
    [
        [],
        [1],
        [0, 1, 0],
        [70_000, 61_072],
        [131_064] * 12,
        [4 * MEGABYTE, 1],
        [1, 4 * MEGABYTE],
        [1, 4 * MEGABYTE - 1, 3],
        [13 * MEGABYTE],
        [MEGABYTE] * 9 + [5],
    ],
)
def test_a_body_is_the_sum_of_its_pieces(kind: type[Body], sizes: list[int]) -> None:
    whole = random.Random(sum(sizes)).randbytes(sum(sizes))
    made = kind(len(whole))
    for piece in pieces_of(whole, sizes):
        made.add(piece)
    octets = made.take()
    assert type(octets) is bytes
    assert octets == whole


@pytest.mark.parametrize('kind', BODIES)
def test_a_body_that_is_only_announced_takes_little_memory(kind: type[Body]) -> None:
    tracemalloc.start()
    try:
        made = kind(100 * MEGABYTE)
        announced = tracemalloc.get_traced_memory()[0]
        made.add(b'x')
        begun = tracemalloc.get_traced_memory()[0]
        made.add(bytes(6 * MEGABYTE))
        grown = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert announced < 1000
    assert begun < 4 * MEGABYTE + 1000
    assert grown < 12 * MEGABYTE + 1000
