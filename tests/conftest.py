"""What every test may ask for: a RabbitMQ of the run's own, names of the test's own, and a limit of time.

Nothing here patches the standard library: amphora has to work in a process that is not patched.
"""

import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import gevent
import pytest

from amphora import AmqpRpcClient, AmqpRpcFanoutClient, AmqpRpcFanoutServer, AmqpRpcServer
from tests.amqp.certificates import Authority
from tests.compiled import is_compiled, refuse_other_code_than_the_sources
from tests.parties import Client, Gate, Server
from tests.rabbitmq import HOST, RabbitNode, free_ports
from tests.rows import Rows
from tests.vhosts import VirtualHosts

DEFAULT_LIMIT = 60

# How long a server may take until it takes requests.
READY_LIMIT = 10

# How long a client or server may take to stop.
STOP_LIMIT = 10

# By how much the last resort, a thread that ends the whole run, comes after a test's own limit.
LAST_RESORT_MARGIN = 60


class LimitExceeded(gevent.Timeout):
    """A test ran longer than it may.

    Not an `Exception`, so that code under test which catches those cannot swallow it.
    """

    def __str__(self) -> str:
        return f'the test ran longer than its {self.seconds} s (set another with @pytest.mark.limit(seconds))'


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption('--full', action='store_true', help='inject each fault at its full size, as `make faults` does')
    parser.addoption('--fuzz-seconds', type=float, default=60, help='seconds that fuzzing takes in all (60)')
    parser.addoption('--rows', type=Path, metavar='FILE', help='write there what became of each fault')


def pytest_configure(config: pytest.Config) -> None:
    refuse_other_code_than_the_sources()
    config.addinivalue_line(
        'markers',
        f'limit(seconds, full, fuzz): how long the test may run, {DEFAULT_LIMIT} s unless given, and with --full; with '
        'fuzz=True longer by --fuzz-seconds; raises in the test',
    )
    config.addinivalue_line('markers', 'row(*rows): which faults, of those in tests/rows.py, the test is about')
    config.pluginmanager.register(Rows(config.getoption('--rows')), 'rows')


def pytest_report_header() -> str:
    return 'amphora: %s' % ('compiled' if is_compiled() else 'as Python')


def limit_of(item: pytest.Item) -> float:
    marker = item.get_closest_marker('limit')
    if marker is None:
        return DEFAULT_LIMIT
    seconds = marker.kwargs['full'] if 'full' in marker.kwargs and item.config.getoption('--full') else marker.args[0]
    return float(seconds + item.config.getoption('--fuzz-seconds') if marker.kwargs.get('fuzz') else seconds)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.add_marker(pytest.mark.timeout(limit_of(item) + LAST_RESORT_MARGIN))


@pytest.fixture(autouse=True)
def limit(request: pytest.FixtureRequest) -> Iterator[None]:
    """End a test that waits for something that never happens."""
    with LimitExceeded(limit_of(request.node)):
        yield


@pytest.fixture(scope='session')
def full(request: pytest.FixtureRequest) -> bool:
    """Whether faults are to be injected at their full size."""
    return bool(request.config.getoption('--full'))


@pytest.fixture(scope='session')
def rabbit() -> Iterator[RabbitNode]:
    """The run's RabbitMQ node. A test that stops or kills it makes sure that it runs again afterwards."""
    with RabbitNode() as node:
        yield node


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


@pytest.fixture
def amqp_url(rabbit: RabbitNode) -> str:
    return rabbit.url


@pytest.fixture
def service(request: pytest.FixtureRequest) -> str:
    """A service name of the test's own, so that tests share a broker and never a queue."""
    words = re.sub(r'\W+', '_', request.node.name).strip('_')
    return f'{words[:60]}-{secrets.token_hex(3)}'


@pytest.fixture(scope='session')
def vhosts(rabbit: RabbitNode) -> Iterator[VirtualHosts]:
    made = VirtualHosts(rabbit)
    yield made
    made.close()


@pytest.fixture
def vhost(vhosts: VirtualHosts) -> str:
    """A virtual host of the test's own, for tests that look at everything in it; its URL is `rabbit.url_of(vhost)`."""
    return vhosts.take()


@pytest.fixture
def stopped_at_the_end() -> Iterator[list[Any]]:
    """Clients and servers to stop when the test is over, the youngest first."""
    started: list[Any] = []
    yield started
    for one in reversed(started):
        with gevent.Timeout(STOP_LIMIT):
            one.stop()


@pytest.fixture
def server(amqp_url: str, service: str, stopped_at_the_end: list[Any]) -> Server:
    """Makes a server with functions, under their own names or those in `named`, and starts it unless told otherwise."""

    def make(
        *functions: Callable[..., Any],
        named: Mapping[str, Callable[..., Any]] = MappingProxyType({}),
        kind: type = AmqpRpcServer,
        service: str = service,
        serve: bool = True,
        **options: Any,
    ) -> Any:
        made = kind(service, **{'amqp_url': amqp_url, **options})
        stopped_at_the_end.append(made)
        for function in functions:
            made.add_function(function)
        for name, function in named.items():
            made.add_function(function, name=name)
        if serve:
            made.serve()
        return made

    return make


@pytest.fixture
def serving(server: Server) -> Server:
    """Makes a server as `server` does, and waits until it takes requests."""

    def make(*functions: Callable[..., Any], **options: Any) -> Any:
        made = server(*functions, **options)
        assert made.wait_ready(READY_LIMIT)
        return made

    return make


@pytest.fixture
def client(amqp_url: str, service: str, stopped_at_the_end: list[Any]) -> Client:
    """Makes a client; its timeout is short enough for a test that goes wrong to say so."""

    def make(*, kind: type = AmqpRpcClient, service: str = service, **options: Any) -> Any:
        made = kind(service, **{'amqp_url': amqp_url, 'timeout': 10, **options})
        stopped_at_the_end.append(made)
        return made

    return make


@pytest.fixture
def fanout_server(server: Server) -> Server:
    def make(*functions: Callable[..., Any], **options: Any) -> Any:
        return server(*functions, kind=AmqpRpcFanoutServer, **options)

    return make


@pytest.fixture
def fanout_client(client: Client) -> Client:
    def make(**options: Any) -> Any:
        return client(kind=AmqpRpcFanoutClient, **options)

    return make


@pytest.fixture
def gate(stopped_at_the_end: list[Any]) -> Iterator[Gate]:
    """What `server(gate.function())` serves as `wait`; opened at the test's end at the latest."""
    made = Gate()
    yield made
    made.open()


@pytest.fixture
def elsewhere() -> Callable[..., Any]:
    """Calls a function in a thread that is not this one, and returns or raises as it does."""

    def outcome(function: Callable[..., Any], *args: Any) -> tuple[Any, Exception | None]:
        # gevent prints what is raised in a thread.
        try:
            return function(*args), None
        except Exception as error:
            return None, error

    def call(function: Callable[..., Any], *args: Any) -> Any:
        returned, raised = gevent.get_hub().threadpool.spawn(outcome, function, *args).get(timeout=5)
        if raised is not None:
            raise raised
        return returned

    return call
