"""A RabbitMQ that a test may do anything to, a proxy in front of it, and the ledger."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from gevent import subprocess

from amphora import AmqpRpcClient
from tests.faults import doubling_server
from tests.faults.parties import BROKER_LIMIT, Ledgers, ServerProcess
from tests.ledger import Ledger
from tests.proxy import Proxy
from tests.rabbitmq import RabbitNode


@pytest.fixture(scope='session')
def private_node() -> Iterator[RabbitNode]:
    with RabbitNode(config={'max_message_size': BROKER_LIMIT}) as node:
        yield node


@pytest.fixture
def node(private_node: RabbitNode) -> Iterator[RabbitNode]:
    """A RabbitMQ that a test may do anything to."""
    yield private_node
    if not private_node.is_running:
        private_node.start()


@pytest.fixture
def amqp_url(node: RabbitNode) -> str:
    """Where servers and clients go unless told otherwise."""
    return node.url


@pytest.fixture
def proxy(node: RabbitNode) -> Iterator[Proxy]:
    with Proxy(node.port) as made:
        yield made


@pytest.fixture
def ledger_of(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ledgers]:
    """Makes ledgers, `ledger_of(client, timeout)`; what they found goes into the table of the rows."""
    made: list[Ledger] = []

    def make(client: AmqpRpcClient, timeout: float = 20) -> Ledger:
        directory = tmp_path / f'ledger-{len(made)}'
        directory.mkdir()
        made.append(Ledger(client, timeout, directory))
        return made[-1]

    yield make
    for each in made:
        if each.reported:
            request.node.user_properties.append(('ledger', each.figures()))
        each.close()


@pytest.fixture
def server_process(node: RabbitNode, service: str) -> Iterator[Callable[..., ServerProcess]]:
    """Starts a `doubling_server`: `server_process(ledger, pause, **options of the server)`."""
    started: list[ServerProcess] = []

    def start(ledger: Ledger, pause: float = 0.2, **options: Any) -> ServerProcess:
        arguments = [service, str(ledger.directory), str(pause), json.dumps({'amqp_url': node.url, **options})]
        started.append(
            ServerProcess(
                subprocess.Popen(
                    [sys.executable, '-m', doubling_server.__name__, *arguments],
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    universal_newlines=True,
                )
            )
        )
        return started[-1]

    yield start
    for each in started:
        each.kill()


@pytest.fixture
def memory_alarm(node: RabbitNode) -> Iterator[Callable[[bool], None]]:
    """Sets the broker's memory alarm off, and clears it."""

    def alarm(on: bool) -> None:
        node.ctl('set_vm_memory_high_watermark', '0.0000001' if on else '0.4')

    yield alarm
    alarm(False)
