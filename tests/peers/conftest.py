"""Other people's clients, unchanged, against the embedded broker."""

from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest

from amphora.broker import Broker


@pytest.fixture
def broker() -> Iterator[Broker]:
    with Broker() as broker:
        yield broker


@pytest.fixture
def in_thread() -> Callable[..., Any]:
    """Runs a function in a native thread and waits for it: these clients block theirs, and the broker needs its own."""
    return gevent.get_hub().threadpool.apply
