"""What every test may ask for: a RabbitMQ of the run's own, names of the test's own, and a limit of time.

Nothing here patches the standard library: amphora has to work in a process that is not patched.
"""

import re
import secrets
from collections.abc import Iterator

import gevent
import pytest

from tests.rabbitmq import RabbitNode

DEFAULT_LIMIT = 60

# By how much the last resort, a thread that ends the whole run, comes after a test's own limit.
LAST_RESORT_MARGIN = 60


class LimitExceeded(gevent.Timeout):
    """A test ran longer than it may.

    Not an `Exception`, so that code under test which catches those cannot swallow it.
    """

    def __str__(self) -> str:
        return f'the test ran longer than its {self.seconds} s (set another with @pytest.mark.limit(seconds))'


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        'markers', f'limit(seconds): how long the test may run, {DEFAULT_LIMIT} s unless given; raises in the test'
    )


def limit_of(item: pytest.Item) -> float:
    marker = item.get_closest_marker('limit')
    return marker.args[0] if marker else DEFAULT_LIMIT


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.add_marker(pytest.mark.timeout(limit_of(item) + LAST_RESORT_MARGIN))


@pytest.fixture(autouse=True)
def limit(request: pytest.FixtureRequest) -> Iterator[None]:
    """End a test that waits for something that never happens."""
    with LimitExceeded(limit_of(request.node)):
        yield


@pytest.fixture(scope='session')
def rabbit() -> Iterator[RabbitNode]:
    """The run's RabbitMQ node. A test that stops or kills it makes sure that it runs again afterwards."""
    with RabbitNode() as node:
        yield node


@pytest.fixture
def amqp_url(rabbit: RabbitNode) -> str:
    return rabbit.url


@pytest.fixture
def service(request: pytest.FixtureRequest) -> str:
    """A service name of the test's own, so that tests share a broker and never a queue."""
    words = re.sub(r'\W+', '_', request.node.name).strip('_')
    return f'{words[:60]}-{secrets.token_hex(3)}'


@pytest.fixture
def vhost(rabbit: RabbitNode) -> Iterator[str]:
    """A virtual host of the test's own, for tests that look at everything in it; its URL is `rabbit.url_of(vhost)`."""
    name = f'test-{secrets.token_hex(6)}'
    rabbit.ctl('add_vhost', name)
    rabbit.ctl('set_permissions', '-p', name, 'guest', '.*', '.*', '.*')
    yield name
    rabbit.ctl('delete_vhost', name)
