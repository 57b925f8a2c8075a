"""Fixtures for pytest, which finds them by itself where amphora is installed.

pytest imports this at every start, whatever it is about to test: so nothing is imported here that costs time, or that
comes too early for a program which wants to be monkey-patched.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from amphora.broker import Broker


@pytest.fixture
def amphora_broker() -> Iterator[Broker]:
    """An embedded broker of the test's own: an `amphora.broker.Broker` that runs, and is empty."""
    from amphora.testing import running_broker

    with running_broker() as broker:
        yield broker


@pytest.fixture
def amphora_url(amphora_broker: Broker) -> str:
    """The URL of the test's `amphora_broker`, for the ``amqp_url`` of a client or server."""
    return amphora_broker.url
