"""TLS: who is trusted and who is not, logging in by a certificate, and that everything works as without it."""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from time import monotonic
from urllib.parse import quote

import gevent
import pytest
from gevent import socket, subprocess
from gevent.event import AsyncResult
from gevent.ssl import SSLContext

from amphora.amqp import CertificateRefused, Connection, ConnectionClosed, ConnectionFailed, LoginRefused, Message
from amphora.amqp.tls import TlsEngine, TlsTransport
from tests.amqp.certificates import Authority
from tests.amqp.scripted import Peer, ScriptedBroker
from tests.proxy import Proxy
from tests.rabbitmq import HOST, RabbitNode, free_ports
from tests.stopwatch import Stopwatch
from tests.waiting import eventually

Secure = Callable[..., Connection]
Login = tuple[Path, Path]


@pytest.fixture
def secure(tls_rabbit: RabbitNode, tls_port: int, authority: Authority) -> Iterator[Secure]:
    """Connects to the broker with TLS."""
    made: list[Connection] = []

    def connect(**options: object) -> Connection:
        made.append(Connection(**{'host': HOST, 'port': tls_port, 'ssl': authority.client_context(), **options}))
        return made[-1]

    yield connect
    for connection in made:
        connection.close()


def impostor(login: Login) -> Callable[[Peer], str]:
    """The script of a broker that shows this certificate; gives what it heard instead of a first AMQP word."""

    def script(peer: Peer) -> str:
        context = SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*login)
        try:
            peer.sock = context.wrap_socket(peer.sock, server_side=True)
            return repr(peer.sock.recv(8))
        except OSError as error:
            return str(error)

    return script


def round_trip(connection: Connection, body: bytes) -> bytes:
    channel = connection.channel()
    declared = channel.queue.declare(exclusive=True)
    assert declared is not None
    channel.basic.publish(Message(body), routing_key=declared.queue)
    message = channel.basic.get(declared.queue)
    assert message is not None
    return message.body


# -- who is trusted ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('host', ['localhost', HOST])
def test_a_broker_whose_certificate_is_in_order_is_trusted(secure: Secure, host: str) -> None:
    assert round_trip(secure(host=host), b'hello') == b'hello'


def test_the_certificate_may_be_for_another_name_when_told_so(secure: Secure) -> None:
    assert round_trip(secure(host=HOST, server_hostname='localhost'), b'hello') == b'hello'
    with pytest.raises(CertificateRefused, match='Hostname mismatch'):
        secure(host=HOST, server_hostname='broker.example')


def test_a_certificate_of_an_authority_that_is_not_trusted_is_refused(secure: Secure, tls_port: int) -> None:
    with pytest.raises(
        CertificateRefused, match=rf'the certificate of {HOST}:{tls_port} is refused: .*(self.signed|issuer)'
    ):
        secure(ssl=True)


@pytest.mark.parametrize(
    ('issue', 'says'),
    [
        (lambda authority: authority.issue('localhost', expired=True), 'certificate has expired'),
        (lambda authority: authority.issue('localhost', names=('broker.example',)), 'mismatch'),
        (lambda authority: authority.self_signed('localhost'), 'self.signed certificate'),
    ],
    ids=['expired', 'another host', 'self-signed'],
)
def test_a_certificate_that_is_not_in_order_is_refused_before_a_word_of_amqp(
    authority: Authority, issue: Callable[[Authority], Login], says: str
) -> None:
    with ScriptedBroker(impostor(issue(authority))) as broker:
        watch = Stopwatch()
        with pytest.raises(CertificateRefused, match=says):
            broker.connect(ssl=authority.client_context())
        assert watch.awake < 1
        # the peer is told why, and hears neither a greeting nor a password
        heard = broker.result()
    assert 'alert' in heard
    assert 'AMQP' not in heard


def test_a_context_that_verifies_nothing_is_taken_at_its_word(secure: Secure) -> None:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    assert round_trip(secure(ssl=context), b'hello') == b'hello'


def test_a_port_without_tls_is_a_failed_connection_that_says_so(rabbit: RabbitNode, authority: Authority) -> None:
    watch = Stopwatch()
    with pytest.raises(ConnectionFailed, match=rf':{rabbit.port}: .*(SSL|TLS)') as caught:
        Connection(rabbit.host, rabbit.port, ssl=authority.client_context())
    assert watch.awake < 2
    assert not isinstance(caught.value, CertificateRefused)


def test_a_port_that_says_nothing_to_tls_is_given_up_in_time(authority: Authority) -> None:
    with ScriptedBroker(Peer.last_words_raw) as broker:
        with pytest.raises(ConnectionFailed, match=r'within 0\.3 s'):
            broker.connect(ssl=authority.client_context(), connect_timeout=0.3)
        # and the socket is not left open
        assert broker.result(limit=1).startswith(b'\x16\x03')


def test_a_port_that_hangs_up_on_tls_is_a_failed_connection(authority: Authority) -> None:
    with ScriptedBroker(lambda peer: peer.read_exactly(5)) as broker, pytest.raises(ConnectionFailed):
        broker.connect(ssl=authority.client_context())


def test_plain_text_to_a_port_with_tls_is_a_failed_connection(tls_rabbit: RabbitNode, tls_port: int) -> None:
    watch = Stopwatch()
    with pytest.raises(ConnectionFailed, match=f'{tls_port}'):
        Connection(HOST, tls_port)
    assert watch.awake < 2


# -- what a URL says ---------------------------------------------------------------------------------------------------


def test_a_url_names_the_authority_and_the_certificate(
    tls_rabbit: RabbitNode, tls_port: int, authority: Authority, client_login: Login
) -> None:
    certificate, key = (quote(str(path), safe='') for path in client_login)
    url = f'amqps://{HOST}:{tls_port}?cacertfile={authority.file}'
    with Connection.from_url(f'{url}&certfile={certificate}&keyfile={key}&auth_mechanism=external') as connection:
        assert round_trip(connection, b'hello') == b'hello'
    with Connection.from_url(f'{url}&server_name_indication=localhost') as connection:
        assert round_trip(connection, b'hello') == b'hello'
    with pytest.raises(CertificateRefused, match='mismatch'):
        Connection.from_url(f'{url}&server_name_indication=broker.example')
    with pytest.raises(CertificateRefused):
        Connection.from_url(f'amqps://{HOST}:{tls_port}')
    with Connection.from_url(f'amqps://{HOST}:{tls_port}?verify=verify_none') as connection:
        assert round_trip(connection, b'hello') == b'hello'


@pytest.mark.parametrize('parameter', ['cacertfile', 'certfile', 'keyfile'])
def test_a_url_with_a_file_that_cannot_be_read_is_refused_by_parameter_and_file(
    client_login: Login, tmp_path: Path, parameter: str
) -> None:
    # A keyfile needs a certfile; each wrong file is the only one.
    certificate = f'certfile={client_login[0]}&' if parameter == 'keyfile' else ''
    missing = tmp_path / 'missing.pem'

    with pytest.raises(FileNotFoundError, match=f'{parameter} .* cannot be read') as raised:
        Connection.from_url(f'amqps://{HOST}?{certificate}{parameter}={missing}')
    assert raised.value.filename == str(missing)
    with pytest.raises(IsADirectoryError, match=f'{parameter} .*{re.escape(str(tmp_path))}'):
        Connection.from_url(f'amqps://{HOST}?{certificate}{parameter}={tmp_path}')


@pytest.mark.parametrize('content', ['', 'no certificate'])
def test_a_url_with_a_file_that_holds_no_certificate_is_refused_by_parameter_and_file(
    client_login: Login, tmp_path: Path, content: str
) -> None:
    odd = tmp_path / 'odd.pem'
    odd.write_text(content)

    for query, parameter in (
        (f'cacertfile={odd}', 'cacertfile'),
        (f'certfile={odd}', 'certfile'),
        (f'certfile={client_login[0]}&keyfile={odd}', 'keyfile'),
    ):
        with pytest.raises(ValueError, match=f'{parameter}.*{re.escape(str(odd))}'):
            Connection.from_url(f'amqps://{HOST}?{query}')


# -- a login by certificate --------------------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def client_login(tls_rabbit: RabbitNode, authority: Authority) -> Login:
    """The certificate of a client whose name the broker knows."""
    tls_rabbit.ctl('add_user', 'letters-client', 'a password that nobody uses')
    tls_rabbit.ctl('set_permissions', 'letters-client', '.*', '.*', '.*')
    return authority.issue('letters-client')


def test_a_client_logs_in_by_its_certificate(
    secure: Secure, authority: Authority, client_login: Login, tls_rabbit: RabbitNode
) -> None:
    connection = secure(
        ssl=authority.client_context(client_login), auth_mechanisms=['EXTERNAL'], password='not this one'
    )
    assert round_trip(connection, b'hello') == b'hello'
    assert 'letters-client' in tls_rabbit.ctl('list_connections', 'user').split()


def test_a_certificate_of_an_unknown_client_is_a_refused_login(secure: Secure, authority: Authority) -> None:
    context = authority.client_context(authority.issue('stranger'))
    with pytest.raises(LoginRefused, match='403 ACCESS_REFUSED'):
        secure(ssl=context, auth_mechanisms=['EXTERNAL'])


def test_the_first_mechanism_that_both_sides_know_is_used(
    secure: Secure, authority: Authority, client_login: Login, tls_rabbit: RabbitNode
) -> None:
    context = authority.client_context(client_login)
    connection = secure(ssl=context, auth_mechanisms=['CRAM', 'PLAIN', 'EXTERNAL'], name='by-password')
    assert not connection.closed
    listed = tls_rabbit.ctl('list_connections', 'user', 'client_properties')
    [line] = [line for line in listed.splitlines() if 'by-password' in line]
    assert line.startswith('guest')


# -- everyday life -----------------------------------------------------------------------------------------------------


def test_bodies_of_any_size_arrive_whole(secure: Secure) -> None:
    connection = secure()
    for size in (0, 1, 16384, 131072, 5_000_000):
        body = bytes(range(256)) * (size // 256 + 1)
        assert round_trip(connection, body[:size]) == body[:size]


def test_many_greenlets_share_a_connection(secure: Secure) -> None:
    connection = secure()
    bodies = [b'%d,' % number * 5000 for number in range(100)]
    workers = [gevent.spawn(round_trip, connection, body) for body in bodies]
    gevent.joinall(workers, timeout=20, raise_error=True)
    assert [worker.value for worker in workers] == bodies


def test_a_busy_hub_does_not_keep_heartbeats_from_leaving(secure: Secure) -> None:
    connection = secure(heartbeat=1)
    end = monotonic() + 4
    while monotonic() < end:
        pass
    assert round_trip(connection, b'hello') == b'hello'


def test_a_silent_broker_is_noticed_within_two_heartbeats(secure: Secure, tls_rabbit: RabbitNode) -> None:
    connection = secure(heartbeat=1)
    reason: AsyncResult[Exception] = AsyncResult()
    connection.close_listeners.append(reason.set)
    tls_rabbit.pause()
    try:
        watch = Stopwatch()
        assert 'silent' in str(reason.get(timeout=5))
        assert watch.awake <= 3
    finally:
        tls_rabbit.resume()


def test_a_broker_that_ends_the_session_is_a_lost_connection(authority: Authority) -> None:
    def script(peer: Peer) -> None:
        context = SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*authority.issue('localhost'))
        peer.sock = context.wrap_socket(peer.sock, server_side=True)
        peer.accept()
        peer.accept_channel()
        try:
            peer.sock.unwrap()
        except OSError:  # the client may still have said something
            pass

    with ScriptedBroker(script) as broker:
        connection = broker.connect(ssl=authority.client_context())
        with pytest.raises(ConnectionClosed, match='was lost'):
            connection.channel().queue.declare('a')


def test_bytes_that_are_no_tls_are_a_lost_connection(authority: Authority) -> None:
    def script(peer: Peer) -> None:
        plain = peer.sock.dup()
        context = SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*authority.issue('localhost'))
        peer.sock = context.wrap_socket(peer.sock, server_side=True)
        peer.accept()
        peer.accept_channel()
        plain.sendall(b'HTTP/1.1 400 Bad Request\r\n')
        peer.sock.recv(100)

    with ScriptedBroker(script) as broker:
        connection = broker.connect(ssl=authority.client_context())
        with pytest.raises(ConnectionClosed, match=r'was lost: .*SSL'):
            connection.channel().queue.declare('a')


def test_what_is_written_while_the_peer_negotiates_anew_is_sent_afterwards(
    authority: Authority, tmp_path: Path
) -> None:
    [port] = free_ports(1)
    certificate, key = authority.issue('a server')
    command = ['openssl', 's_server', '-tls1_2', '-accept', str(port), '-cert', str(certificate), '-key', str(key)]
    heard = tmp_path / 'heard'
    with heard.open('wb') as output, ExitStack() as stack:
        server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT)
        stack.callback(server.wait)
        stack.callback(server.kill)
        eventually(lambda: b'ACCEPT' in heard.read_bytes())
        proxy = stack.enter_context(Proxy(port))
        # So that much is written until the peer has had its say.
        proxy.delay = 0.05
        sock = socket.create_connection((HOST, proxy.port))
        engine = TlsEngine(authority.client_context(), 'localhost')
        engine.handshake(sock, 'the server')
        lost: list[Exception] = []
        transport = TlsTransport(sock, engine, lambda _: None, lost.append, lambda: None, 1_000_000)
        transport.start()
        transport.write(b'first\n')
        eventually(lambda: b'first' in heard.read_bytes())

        server.stdin.write(b'r\n')
        server.stdin.flush()
        most = 0
        for number in range(100):
            transport.write(b'line %d.\n' % number)
            most = max(most, transport.unsent)
            gevent.sleep(0.005)
        eventually(lambda: lost or b'line 99.' in heard.read_bytes())

        assert not lost
        places = [heard.read_bytes().index(b'line %d.' % number) for number in range(100)]
        assert places == sorted(places)
        assert most > transport.unsent == 0
        transport.close()
