"""Who sends what nobody should, and the check that no connection was lost over it."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from amphora.amqp import Connection
from tests.hostile.stranger import Stranger


@pytest.fixture
def stranger(amqp_url: str, service: str) -> Iterator[Stranger]:
    with Connection.from_url(amqp_url) as connection:
        yield Stranger(connection, service)


@pytest.fixture
def no_connection_lost(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fails a test in which a client or a server has lost a connection or a channel: each says so in the log."""
    caplog.set_level(logging.INFO)
    yield
    said = [record.getMessage() for record in caplog.get_records('call') if is_loss(record)]
    assert not said


def is_loss(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING and record.name in ('amphora.amqp', 'amphora.session', 'amphora.consumer')
