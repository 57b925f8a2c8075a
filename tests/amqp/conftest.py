"""What the tests of `amphora.amqp` share: connections that are closed behind them, and a broker with TLS."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from amphora.amqp import Channel, Connection
from tests.amqp.certificates import Authority
from tests.rabbitmq import HOST, RabbitNode, free_ports

Connect = Callable[..., Connection]


@pytest.fixture
def connect(rabbit: RabbitNode) -> Iterator[Connect]:
    """Connects to the run's RabbitMQ with the options given; what the test has left open is closed behind it."""
    made: list[Connection] = []

    def connect(**options: Any) -> Connection:
        made.append(Connection(**{'host': rabbit.host, 'port': rabbit.port, **options}))
        return made[-1]

    yield connect
    for connection in made:
        connection.close()


@pytest.fixture
def connection(connect: Connect) -> Connection:
    return connect()


@pytest.fixture
def channel(connection: Connection) -> Channel:
    return connection.channel()


@pytest.fixture
def queue(channel: Channel, service: str) -> str:
    """A queue of the test's own, which goes with its connection."""
    channel.queue.declare(service, exclusive=True)
    return service


@pytest.fixture(scope='session')
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """A certificate authority of the run's own."""
    return Authority(tmp_path_factory.mktemp('certificates'))


@pytest.fixture(scope='session')
def tls_port() -> int:
    return free_ports(1)[0]


@pytest.fixture(scope='session')
def tls_rabbit(authority: Authority, tls_port: int) -> Iterator[RabbitNode]:
    """A RabbitMQ that also speaks TLS, on `tls_port`, and takes a client's certificate for a login."""
    certificate, key = authority.issue('localhost')
    config: dict[str, str | int] = {
        'listeners.ssl.1': f'{HOST}:{tls_port}',
        'ssl_options.cacertfile': str(_readable(authority.file)),
        'ssl_options.certfile': str(_readable(certificate)),
        'ssl_options.keyfile': str(_readable(key)),
        'ssl_options.verify': 'verify_peer',
        'ssl_options.fail_if_no_peer_cert': 'false',
        'auth_mechanisms.1': 'PLAIN',
        'auth_mechanisms.2': 'AMQPLAIN',
        'auth_mechanisms.3': 'EXTERNAL',
        'ssl_cert_login_from': 'common_name',
    }
    with RabbitNode(config=config, plugins=['rabbitmq_auth_mechanism_ssl']) as node:
        yield node


def _readable(path: Path) -> Path:
    path.chmod(0o644)
    return path
