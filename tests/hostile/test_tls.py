"""Brokers that must not be trusted, or speak TLS where none is expected and none where it is.

What pretends to be the broker is a relay to the real one, so that a client that let itself be deceived would be served.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import gevent
import pytest
from gevent import socket
from gevent.server import StreamServer
from gevent.ssl import SSLContext

from amphora import NotSent
from amphora.amqp import CertificateRefused, Connection, ConnectionFailed
from tests.amqp.certificates import Authority
from tests.hostile.stranger import QUICK, add
from tests.parties import Client, Server
from tests.rabbitmq import HOST, RabbitNode
from tests.stopwatch import Stopwatch
from tests.waiting import eventually

pytestmark = pytest.mark.row('TLS')

Login = tuple[Path, Path]

PASSWORD = b'guest'


class Front:
    """What stands before a broker: ends the TLS of whoever connects, and passes on what they say.

    :param target: the broker's port.
    :param login: the certificate and key that it shows; None: it speaks no TLS.
    :ivar heard: what clients have said, decrypted.
    :ivar connections: how many have connected.
    """

    def __init__(self, target: int, login: Login | None) -> None:
        self.heard = b''
        self.connections = 0
        self.login = login
        self._target = target
        self._open: list[Any] = []
        self._server = StreamServer((HOST, 0), self._relay)

    def __enter__(self) -> Front:
        self._server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.stop()
        self.cut()

    def url(self, query: str, host: str = HOST, scheme: str = 'amqps') -> str:
        return f'{scheme}://guest:{PASSWORD.decode()}@{host}:{self._server.server_port}/?{query}'

    @property
    def port(self) -> int:
        return self._server.server_port

    def cut(self) -> None:
        """End all connections."""
        for each in self._open:
            each.close()
        self._open.clear()

    def _relay(self, inside: Any, _: object) -> None:
        self.connections += 1
        try:
            if self.login is not None:
                context = SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(*self.login)
                inside = context.wrap_socket(inside, server_side=True)
            with socket.create_connection((HOST, self._target)) as outside:
                self._open += (inside, outside)
                answers = gevent.spawn(self._pump, outside, inside, False)
                self._pump(inside, outside, True)
                answers.kill()
        except OSError:
            pass  # the client does not trust it
        finally:
            inside.close()

    def _pump(self, source: Any, sink: Any, heard: bool) -> None:
        try:
            while data := source.recv(65536):
                if heard:
                    self.heard += data
                sink.sendall(data)
        except OSError:
            pass


@pytest.fixture
def genuine(authority: Authority) -> Login:
    return authority.issue('localhost')


Issue = Callable[[Authority], Login]

UNTRUSTED: dict[str, tuple[Issue, str]] = {
    'self-signed': (lambda authority: authority.self_signed('localhost'), 'self.signed certificate'),
    'of another host': (lambda authority: authority.issue('localhost', names=('broker.example',)), 'mismatch'),
    'of another address': (lambda authority: authority.issue(HOST, names=('127.0.0.2',)), 'mismatch'),
    'of a host that is its name only': (lambda authority: authority.issue(HOST, names=('x.localhost',)), 'mismatch'),
    'expired': (lambda authority: authority.issue('localhost', expired=True), 'certificate has expired'),
}


@pytest.mark.parametrize('kind', UNTRUSTED)
def test_a_client_tells_nothing_to_a_broker_whose_certificate_is_not_in_order(
    client: Client, server: Server, rabbit: RabbitNode, authority: Authority, kind: str
) -> None:
    issue, says = UNTRUSTED[kind]
    with Front(rabbit.port, issue(authority)) as front:
        calling = client(amqp_url=front.url(f'cacertfile={authority.file}'))
        for call in (lambda: calling.call.add(2, 3), lambda: calling.defer.add(2, 3).get()):
            watch = Stopwatch()
            with pytest.raises(CertificateRefused, match=says):
                call()
            assert watch.awake < QUICK
        serving = server(add, amqp_url=front.url(f'cacertfile={authority.file}'))
        with pytest.raises(CertificateRefused, match=says):
            serving.wait_ready(5)

        assert front.heard == b''

        # Whoever says that he does not want to know is served by it.
        served_by = {'amqp_url': front.url('verify=verify_none')}
        calling, serving = client(**served_by), server(add, **served_by)
        assert calling.call.add(2, 3) == 5
        assert PASSWORD in front.heard


@pytest.mark.parametrize('kind', UNTRUSTED)
def test_a_refused_broker_is_asked_again_without_haste_and_served_by_when_it_has_mended(
    client: Client, server: Server, rabbit: RabbitNode, authority: Authority, genuine: Login, kind: str
) -> None:
    issue, _ = UNTRUSTED[kind]
    server(add)
    with Front(rabbit.port, issue(authority)) as front:
        calling = client(amqp_url=front.url(f'cacertfile={authority.file}'))
        eventually(lambda: front.connections >= 4)
        with pytest.raises(CertificateRefused):
            calling.call.add(2, 3)
        assert front.connections < 20

        front.login = genuine

        eventually(lambda: succeeds(calling), 10)


def succeeds(calling: Any) -> bool:
    try:
        return bool(calling.call.add(2, 3) == 5)
    except CertificateRefused:
        return False


def test_a_certificate_is_verified_at_every_reconnect(
    client: Client, server: Server, rabbit: RabbitNode, authority: Authority, genuine: Login
) -> None:
    server(add)
    with Front(rabbit.port, genuine) as front:
        calling = client(amqp_url=front.url(f'cacertfile={authority.file}'))
        assert calling.call.add(2, 3) == 5

        front.login = authority.self_signed('localhost')
        front.heard = b''
        front.cut()
        with pytest.raises(CertificateRefused):
            calling.call.add(2, 3)
        assert front.heard == b''

        front.login = genuine
        eventually(lambda: succeeds(calling), 10)


def test_a_certificate_of_an_authority_that_nobody_named_is_refused(
    client: Client, tls_rabbit: RabbitNode, tls_port: int
) -> None:
    for options in (
        {'amqp_url': f'amqps://{HOST}:{tls_port}'},
        {'amqp_url': None, 'amqp_host': HOST, 'amqp_port': tls_port, 'amqp_ssl': True},
        {'amqp_url': f'amqp://{HOST}:{tls_port}', 'amqp_ssl': True},
    ):
        with pytest.raises(CertificateRefused):
            client(**options).call.add(2, 3)


def test_a_broker_with_a_good_certificate_serves_under_its_names_only(
    client: Client, server: Server, tls_rabbit: RabbitNode, tls_port: int, authority: Authority
) -> None:
    query = f'cacertfile={authority.file}'
    server(add, amqp_url=f'amqps://{HOST}:{tls_port}/?{query}')
    for name in (HOST, 'localhost'):
        assert client(amqp_url=f'amqps://{name}:{tls_port}/?{query}').call.add(2, 3) == 5
    context = authority.client_context()
    assert client(amqp_url=None, amqp_host=HOST, amqp_port=tls_port, amqp_ssl=context).call.add(2, 3) == 5

    with pytest.raises(CertificateRefused, match='mismatch'):
        client(amqp_url=f'amqps://{HOST}:{tls_port}/?{query}&server_name_indication=broker.example').call.add(2, 3)


def test_the_next_broker_of_the_list_serves_when_one_is_not_trusted(
    client: Client, server: Server, rabbit: RabbitNode, tls_rabbit: RabbitNode, tls_port: int, authority: Authority
) -> None:
    query = f'cacertfile={authority.file}'
    good = f'amqps://{HOST}:{tls_port}/?{query}'
    server(add, amqp_url=good)
    with Front(rabbit.port, authority.self_signed('localhost')) as front:
        assert client(amqp_url=[front.url(query), good]).call.add(2, 3) == 5
        assert front.connections
        assert front.heard == b''


# -- TLS where there is none, and none where there is ------------------------------------------------------------------


@pytest.fixture
def heard(caplog: pytest.LogCaptureFixture) -> Callable[[], str]:
    caplog.set_level(logging.WARNING, 'amphora')
    return lambda: '\n'.join(record.getMessage() for record in caplog.records)


def test_a_broker_without_tls_is_told_nothing_by_who_wants_tls(
    client: Client, rabbit: RabbitNode, authority: Authority, heard: Callable[[], str]
) -> None:
    with Front(rabbit.port, None) as front:
        calling = client(amqp_url=front.url(f'cacertfile={authority.file}'))
        check_not_sent(calling)

        assert front.heard.startswith(b'\x16\x03')  # a TLS handshake
        assert PASSWORD not in front.heard
        assert b'AMQP' not in front.heard
        assert front.connections < 20
        assert heard().count('SSL') == len(heard().splitlines()) == 2
        with pytest.raises(ConnectionFailed, match='SSL'):
            Connection.from_url(front.url(f'cacertfile={authority.file}'))


def test_a_broker_with_tls_is_told_nothing_in_plain_text(
    client: Client, tls_rabbit: RabbitNode, tls_port: int, heard: Callable[[], str]
) -> None:
    with Front(tls_port, None) as front:
        calling = client(amqp_url=front.url('', scheme='amqp'))
        check_not_sent(calling)

        assert set(front.heard.split(b'AMQP\0\0\x09\x01')) == {b''}  # a greeting, and nothing else
        assert front.connections < 20
        # Each of the two connections says so, once.
        assert heard().count('wants TLS') == len(heard().splitlines()) == 2
        with pytest.raises(ConnectionFailed, match='wants TLS'):
            Connection.from_url(front.url('', scheme='amqp'))


def test_a_server_that_meets_the_wrong_kind_of_port_goes_on_trying(
    server: Server, rabbit: RabbitNode, tls_rabbit: RabbitNode, tls_port: int, authority: Authority
) -> None:
    query = f'cacertfile={authority.file}'
    with Front(rabbit.port, None) as without, Front(tls_port, None) as encrypted:
        for front, scheme in ((without, 'amqps'), (encrypted, 'amqp')):
            serving = server(add, amqp_url=front.url(query if scheme == 'amqps' else '', scheme=scheme))
            assert not serving.wait_ready(0.5)
            eventually(lambda front=front: front.connections >= 4)
            assert front.connections < 20


def check_not_sent(calling: Any) -> None:
    watch = Stopwatch()
    with pytest.raises(NotSent) as caught:
        calling.call(timeout=1).add(2, 3)
    assert caught.value.executed is False
    watch.check_timeout(1)
