"""The options of clients and servers: the way to the broker, and how requests, replies and queues are made."""

from __future__ import annotations

import json
import ssl
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent.ssl
import pytest
from gevent import subprocess
from gevent.server import StreamServer

from amphora import AmqpError, AmqpRpcClient, AmqpRpcFanoutClient, AmqpRpcFanoutServer, AmqpRpcServer, NotSent
from amphora.dialects import AioPikaMaster, AioPikaRpc, RabiBridge, Tutorial
from amphora.settings import make_settings
from tests.amqp.certificates import Authority
from tests.parties import Client, Gate, Server
from tests.proxy import Proxy
from tests.rabbitmq import HOST, RabbitNode, free_ports
from tests.rpc.peer import Peer
from tests.waiting import eventually

EACH_KIND = pytest.mark.parametrize(
    'kind', [AmqpRpcServer, AmqpRpcFanoutServer, AmqpRpcClient, AmqpRpcFanoutClient], ids=lambda kind: kind.__name__
)


def add(x: int, y: int) -> int:
    return x + y


@EACH_KIND
@pytest.mark.parametrize('name', ['timout', 'host', 'amqp_hots', 'Persistent'])
def test_an_unknown_option_is_a_type_error(kind: type, service: str, amqp_url: str, name: str) -> None:
    with pytest.raises(TypeError, match=name):
        kind(service, amqp_url=amqp_url, **{name: 5})


@EACH_KIND
def test_a_url_of_another_protocol_is_an_error(kind: type, service: str) -> None:
    with pytest.raises(ValueError, match='http'):
        kind(service, amqp_url='http://127.0.0.1/')


@pytest.mark.parametrize(
    ('kind', 'flag'),
    [(AmqpRpcClient, 'autostart'), (AmqpRpcServer, 'introspection'), (AmqpRpcFanoutServer, 'fresh_greenlets')],
)
def test_what_is_yes_or_no_is_no_text(kind: type, flag: str, service: str) -> None:
    with pytest.raises(TypeError, match=f'{flag} must be True or False, not a str'):
        kind(service, **{flag: 'no'})


@EACH_KIND
@pytest.mark.parametrize(
    'option',
    [
        {'amqp_url': []},
        {'amqp_url': 5},
        {'heartbeat': -1},
        {'amqp_port': 100_000},
        {'queue_type': 'no such type'},
        {'persistent': 'false'},
        {'confirm': 'false'},
        {'amqp_ssl': 'false'},
    ],
    ids=lambda option: next(iter(option)),
)
def test_an_option_that_makes_no_sense_is_an_error_that_names_it(
    kind: type, service: str, option: dict[str, Any]
) -> None:
    with pytest.raises((ValueError, TypeError), match=next(iter(option))):
        kind(service, **option)


def test_a_dialect_that_is_no_list_is_an_error_that_says_so(service: str) -> None:
    with pytest.raises(TypeError, match=r'dialects must be a list, such as dialects=\[Tutorial\(\.\.\.\)\]'):
        AmqpRpcServer(service, dialects=Tutorial(function='add'))


def test_a_dialects_function_is_named_by_text() -> None:
    with pytest.raises(TypeError, match='the name of a function must be a str, not <function add'):
        Tutorial(function=add)


@pytest.mark.parametrize(
    ('dialect', 'flag'),
    [
        (Tutorial, 'durable'),
        (RabiBridge, 'auto_delete'),
        (AioPikaRpc, 'durable'),
        (AioPikaRpc, 'auto_delete'),
        (AioPikaMaster, 'durable'),
        (AioPikaMaster, 'auto_delete'),
    ],
)
def test_what_is_yes_or_no_in_a_dialect_is_no_text(dialect: type, flag: str) -> None:
    with pytest.raises(TypeError, match=f'{flag} must be True or False, not a str'):
        dialect(**{flag: 'no'})


# -- the way to the broker ---------------------------------------------------------------------------------------------


@pytest.fixture
def alice(rabbit: RabbitNode, vhost: str) -> Any:
    """A user's name, who may enter that virtual host and no other; the password is `wonder/land`."""
    rabbit.ctl('add_user', 'alice', 'wonder/land')
    rabbit.ctl('set_permissions', '-p', vhost, 'alice', '.*', '.*', '.*')
    yield 'alice'
    rabbit.ctl('delete_user', 'alice')


def test_host_port_user_password_and_vhost_lead_to_the_broker(
    rabbit: RabbitNode, server: Server, client: Client, vhost: str, alice: str
) -> None:
    way = {
        'amqp_url': None,
        'amqp_host': rabbit.host,
        'amqp_port': rabbit.port,
        'amqp_user': alice,
        'amqp_password': 'wonder/land',
        'amqp_vhost': vhost,
    }

    server(add, **way)

    assert client(**way).call.add(2, 3) == 5
    # And to no other: each of them was needed, for alice may enter that virtual host only.
    connections = json.loads(rabbit.ctl('list_connections', 'user', 'vhost', '--formatter', 'json'))
    assert {'user': alice, 'vhost': vhost} in connections


def test_host_user_password_and_vhost_have_amqps_defaults(rabbit: RabbitNode, server: Server, client: Client) -> None:
    server(add, amqp_url=None, amqp_port=rabbit.port)

    assert client(amqp_url=None, amqp_port=rabbit.port).call.add(2, 3) == 5


# Ends as soon as something connects, and says whereto.
WHERE = """
import os, sys

def audit(event, arguments):
    if event == 'socket.connect':
        os.write(1, repr(arguments[1][:2]).encode())
        os._exit(0)

sys.addaudithook(audit)
import amphora
amphora.AmqpRpcClient('anything').call.anything()
"""


def test_without_any_option_the_broker_is_at_its_port_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv('AMPHORA_AMQP_URL', raising=False)

    said = subprocess.run([sys.executable, '-c', WHERE], stdout=subprocess.PIPE, timeout=20)

    assert said.stdout == b"('127.0.0.1', 5672)"


@pytest.mark.parametrize('others', [{}, {'amqp_port': 1}], ids=['alone', 'beside amqp_port'])
def test_the_environment_leads_to_the_broker_without_amqp_url(
    server: Server, client: Client, amqp_url: str, monkeypatch: pytest.MonkeyPatch, others: dict[str, int]
) -> None:
    monkeypatch.setenv('AMPHORA_AMQP_URL', amqp_url)

    server(add, amqp_url=None, **others)

    assert client(amqp_url=None, **others).call.add(2, 3) == 5


def test_amqp_url_goes_before_the_environment(server: Server, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('AMPHORA_AMQP_URL', 'amqp://127.0.0.1:1/')

    server(add)

    assert client().call.add(2, 3) == 5


def test_of_a_list_of_urls_the_one_that_answers_is_used(server: Server, client: Client, amqp_url: str) -> None:
    urls = [f'amqp://{HOST}:{free_ports(1)[0]}/', amqp_url]

    server(add, amqp_url=urls)

    assert client(amqp_url=urls).call.add(2, 3) == 5


def test_a_client_moves_to_the_next_url_when_its_broker_goes_away(
    gateway: Proxy, server: Server, client: Client, amqp_url: str
) -> None:
    gateway.admit()
    server(add)
    calling = client(amqp_url=[gateway.url, amqp_url])
    assert calling.call.add(1, 1) == 2
    assert gateway.accepted > 0

    gateway.close()

    assert calling.call.add(2, 3) == 5


class TlsProxy(Proxy):
    """A proxy that speaks TLS to whoever connects."""

    def __init__(self, target: int, certificate: Path, key: Path) -> None:
        # gevent's own, so that a handshake does not hold up the client's.
        self._context = gevent.ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate, key)
        super().__init__(target)

    def admit(self) -> None:
        self._server = StreamServer((HOST, self.port), self._relay, ssl_context=self._context)
        self._server.start()


@pytest.fixture(scope='module')
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp('certificates'))


@pytest.fixture
def tls_gateway(rabbit: RabbitNode, authority: Authority) -> Iterator[TlsProxy]:
    with TlsProxy(rabbit.port, *authority.issue('broker')) as made:
        yield made


def test_amqp_ssl_takes_a_context_that_says_whom_to_trust(
    tls_gateway: Proxy, server: Server, client: Client, authority: Authority
) -> None:
    server(add)
    trusting = authority.client_context()

    calling = client(amqp_url=None, amqp_port=tls_gateway.port, amqp_ssl=trusting)

    assert calling.call.add(2, 3) == 5
    assert calling.call.add('x' * 1_000_000, 'y') == 'x' * 1_000_000 + 'y'
    assert tls_gateway.accepted > 0


def test_amqp_ssl_goes_with_an_amqps_url(
    tls_gateway: Proxy, server: Server, client: Client, authority: Authority
) -> None:
    trusting = authority.client_context()

    server(add, amqp_url=f'amqps://{HOST}:{tls_gateway.port}', amqp_ssl=trusting)

    assert client().call.add(2, 3) == 5


@pytest.mark.parametrize('by', ['option', 'url'])
def test_tls_alone_trusts_the_systems_authorities_only(tls_gateway: Proxy, client: Client, by: str) -> None:
    ways = {
        'option': {'amqp_url': None, 'amqp_port': tls_gateway.port, 'amqp_ssl': True},
        'url': {'amqp_url': f'amqps://{HOST}:{tls_gateway.port}'},
    }

    with pytest.raises((AmqpError, NotSent)):
        client(**ways[by]).call(timeout=2).add(2, 3)


# -- what requests, replies, queues and connections are like -----------------------------------------------------------


def test_heartbeat_is_what_the_broker_agrees_to(rabbit: RabbitNode, server: Server, client: Client, vhost: str) -> None:
    url = rabbit.url_of(vhost)
    server(add, amqp_url=url, heartbeat=7)
    assert client(amqp_url=url, heartbeat=8).call.add(2, 3) == 5

    listed = json.loads(rabbit.ctl('list_connections', 'vhost', 'timeout', '--formatter', 'json'))

    # Two thirds of it: the broker waits for up to three of its intervals, this side for two.
    assert sorted(one['timeout'] for one in listed if one['vhost'] == vhost) == [4, 4, 5, 5]


def test_prefetch_limits_the_requests_that_run_at_once(server: Server, client: Client, peer: Peer, gate: Gate) -> None:
    calling = client()
    results = [calling.defer(wait_publish=True).wait(number) for number in range(5)]

    server(gate.function(), prefetch=2)
    eventually(lambda: len(gate.entered) == 2)

    assert peer.ready() == 3
    gate.open()
    assert [result.get(timeout=5) for result in results] == list(range(5))


def test_250_requests_run_at_once_unless_told_otherwise(server: Server, client: Client, peer: Peer, gate: Gate) -> None:
    calling = client()
    results = [calling.defer(wait_publish=True).wait(number) for number in range(251)]

    server(gate.function())
    eventually(lambda: len(gate.entered) == 250)

    assert peer.ready() == 1
    gate.open()
    assert [result.get(timeout=5) for result in results] == list(range(251))


@pytest.mark.parametrize(('options', 'mode'), [({}, 2), ({'persistent': True}, 2), ({'persistent': False}, 1)])
def test_persistent_says_whether_requests_survive_the_broker(
    client: Client, peer: Peer, options: dict[str, bool], mode: int
) -> None:
    client(**options).defer(wait_publish=True).add(2, 3)

    # 1 is also what a message without the property has.
    assert (peer.take().properties.get('delivery_mode') or 1) == mode


@pytest.mark.parametrize(('options', 'mode'), [({}, 2), ({'persistent': True}, 2), ({'persistent': False}, 1)])
def test_persistent_says_whether_replies_survive_the_broker(
    server: Server, peer: Peer, options: dict[str, bool], mode: int
) -> None:
    replies = peer.declare_reply_queue('me')
    server(add, **options)

    peer.call('add', 2, 3, reply_to='me', message_id='1')

    assert (peer.take(replies).properties.get('delivery_mode') or 1) == mode


@pytest.mark.parametrize('confirm', [True, False])
def test_confirm_says_whether_the_broker_confirms(
    rabbit: RabbitNode, server: Server, client: Client, vhost: str, confirm: bool
) -> None:
    url = rabbit.url_of(vhost)
    server(add, amqp_url=url, confirm=confirm)
    calling = client(amqp_url=url, confirm=confirm)
    assert [calling.call.add(number, 1) for number in range(100)] == list(range(1, 101))

    channels = json.loads(rabbit.ctl('list_channels', 'vhost', 'confirm', '--formatter', 'json'))

    # One for the server, one for the client.
    assert [one['confirm'] for one in channels if one['vhost'] == vhost].count(True) == (2 if confirm else 0)


@pytest.mark.parametrize(
    'options', [{'persistent': False}, {'confirm': False}, {'persistent': False, 'confirm': False}]
)
def test_without_persistence_and_confirms_calls_and_deferred_calls_work(
    server: Server, client: Client, options: dict[str, bool]
) -> None:
    server(add, **options)
    calling = client(**options)

    assert calling.call.add(2, 3) == 5
    results = [calling.defer(wait_publish=number % 2 == 0).add(number, 1) for number in range(100)]
    assert [result.get(timeout=5) for result in results] == list(range(1, 101))


def test_quorum_queues_work(rabbit: RabbitNode, server: Server, client: Client, vhost: str, service: str) -> None:
    options = {'amqp_url': rabbit.url_of(vhost), 'queue_type': 'quorum'}
    serving = server(add, introspection=False, **options)
    calling = client(**options)
    assert [calling.call.add(number, 1) for number in range(20)] == list(range(1, 21))

    calling.create_new_request_queue(f'{service}-extra')
    result = calling.defer(routing_key=f'{service}-extra').add(2, 3)
    assert serving.receive_from_queue(f'{service}-extra', max_calls=1, timeout=5) == 1
    assert result.get(timeout=5) == 5

    listed = json.loads(rabbit.ctl('list_queues', '-p', vhost, 'name', 'type', '--formatter', 'json'))
    requests = {queue['name']: queue['type'] for queue in listed if queue['name'].endswith('_request')}
    assert {kind.removeprefix('rabbit_').removesuffix('_queue') for kind in requests.values()} == {'quorum'}
    assert sorted(requests) == sorted([f'rpc_{service}_request', f'rpc_{service}-extra_request'])


def test_fresh_greenlets_run_each_request_in_one_of_its_own(server: Server, client: Client) -> None:

    seen: list[Any] = []
    server(named={'who': lambda: seen.append(gevent.getcurrent())}, fresh_greenlets=True)
    calling = client()

    for _ in range(10):
        calling.call.who()

    assert len({id(greenlet) for greenlet in seen}) == 10


def test_options_of_the_way_are_never_shown(
    client: Client, server: Server, rabbit: RabbitNode, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level('DEBUG'):
        shown: list[Any] = []
        makers: list[Callable[..., Any]] = [client, server]
        for make in makers:
            shown.append(make(amqp_url=rabbit.url.replace('guest:guest', 'guest:hush')))
        with pytest.raises(AmqpError) as caught:
            shown[0].call(timeout=1).add(2, 3)

    assert 'hush' not in repr(shown) + str(caught.value) + caplog.text


@pytest.mark.parametrize('host', ['rabbit..local', '.local', 'x' * 64])
def test_a_host_that_nobody_can_look_up_is_an_error_at_once(host: str) -> None:
    with pytest.raises(ValueError, match='amqp_host must have 1 to 63 characters between the dots of a host'):
        make_settings(amqp_host=host)
    with pytest.raises(ValueError, match='amqp_url must have 1 to 63 characters'):
        make_settings(amqp_url=['amqp://localhost', 'amqp://' + host])


def test_what_is_no_text_in_a_list_of_urls_is_a_type_error() -> None:
    with pytest.raises(TypeError, match='amqp_url must be a URL or a list of URLs'):
        make_settings(amqp_url=['amqp://localhost', None])
