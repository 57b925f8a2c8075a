"""Passwords, URLs, arguments of calls and tracebacks: where they may be seen and where not; and who may do what.

A canary stands for each. It is looked for in everything that was said: in reprs, logs, errors with all that they are
chained to, in what commands print, and in what a process leaves behind when it ends badly.
"""

from __future__ import annotations

import gc
import io
import logging
import os
import pprint
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import gevent
import pytest
from gevent import subprocess
from msgspec.structs import asdict
from pamqp import commands

from amphora import (
    AmphoraError,
    AmqpRpcClient,
    AmqpRpcFanoutClient,
    AmqpRpcFanoutServer,
    AmqpRpcServer,
    IgnoreRequest,
    RemoteException,
    WrongRequest,
)
from amphora.amqp import AmqpUrl, Connection, LoginRefused, Message, NotAllowed
from amphora.broker import Broker
from amphora.configuration import OPTIONS, resolve, variable_of
from amphora.dead_letters import DELIVERIES
from amphora.settings import make_settings
from tests.amqp.scripted import Peer as BrokerPeer
from tests.amqp.scripted import ScriptedBroker
from tests.hostile.stranger import Stranger, add
from tests.parties import Client, Server
from tests.proxy import Proxy
from tests.rabbitmq import HOST, RabbitNode, free_ports
from tests.rpc.peer import Peer, body_of
from tests.waiting import eventually

pytestmark = pytest.mark.row('secrets')

# Looked for in any case, so that no encoding of the rest hides it.
CANARY = 'xYzZy'
PASSWORD = f'{CANARY}/p@ss:w%rd'
USER = 'keeper'
# Seconds that a command may take.
COMMAND_LIMIT = 30


def check_unseen(text: str, *more: str) -> None:
    """The canary, and each of the others, are not in the text."""
    for secret in (CANARY, *more):
        at = text.lower().find(secret.lower())
        assert at < 0, f'... {text[max(0, at - 200) : at + 50]} ...'


def everything_of(error: BaseException) -> str:
    """All that an error, and what it is chained to, could show."""
    said = [*traceback.format_exception(error)]
    seen: set[int] = set()
    chained: list[BaseException | None] = [error]
    while chained:
        each = chained.pop()
        if each is not None and id(each) not in seen:
            seen.add(id(each))
            said += [str(each), repr(each), repr(each.args), repr(vars(each))]
            chained += [each.__cause__, each.__context__]
    return '\n'.join(said)


@contextmanager
def listening(level: int = logging.DEBUG) -> Iterator[io.StringIO]:
    """Everything that is logged meanwhile, by anybody, with its tracebacks, as a log file would have it."""
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    handler.setFormatter(logging.Formatter('%(name)s %(levelname)s %(message)s'))
    handler.setLevel(level)
    root = logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        yield text
    finally:
        root.removeHandler(handler)
        root.setLevel(before)


@pytest.fixture(autouse=True)
def nothing_on_the_terminal(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """The canary is in nothing that this process has printed: gevent prints what ends a greenlet."""
    yield
    out, err = capfd.readouterr()
    check_unseen(out + err)


@pytest.fixture(scope='module')
def keeper(rabbit: RabbitNode) -> Iterator[str]:
    """The URL of a user whose password is the canary."""
    rabbit.ctl('add_user', USER, PASSWORD)
    rabbit.ctl('set_permissions', USER, '.*', '.*', '.*')
    yield url_of(rabbit.host, rabbit.port)
    rabbit.ctl('delete_user', USER)


def url_of(host: str, port: object, password: str = PASSWORD, vhost: str = '') -> str:
    return f'amqp://{USER}:{quote(password, safe="")}@{host}:{port}/{vhost}'


# -- passwords in objects and logs -------------------------------------------------------------------------------------


def test_the_password_is_in_no_text_of_any_object(keeper: str, service: str, stopped_at_the_end: list[Any]) -> None:
    connection = Connection.from_url(keeper, name=service)
    channel = connection.channel()
    parties: list[Any] = [
        AmqpRpcClient(service, amqp_url=keeper),
        AmqpRpcFanoutClient(f'{service}-fanout', amqp_url=[keeper, keeper]),
        AmqpRpcServer(service, amqp_url=keeper),
        AmqpRpcFanoutServer(f'{service}-fanout', amqp_url=keeper),
    ]
    stopped_at_the_end += parties
    parties[2].add_function(add)
    for party in parties:
        party.serve()
    deferred = parties[0].defer.add(2, 3)
    assert deferred.get(timeout=5) == 5
    broker = Broker(port=0, users={USER: PASSWORD})
    broker.start()
    through_it = Connection.from_url(broker.url)

    settings, url = make_settings(keeper), AmqpUrl.parse(keeper)
    shown: list[Any] = [
        *(connection, channel, channel.basic, settings, url, broker, through_it, deferred, Message(b'')),
        *(make_settings(amqp_user=USER, amqp_password=PASSWORD), AmqpUrl(password=PASSWORD)),
        *(parties[0].call, parties[0].call.add, parties[0].defer(timeout=5), connection.server_properties),
        *parties,
        *(greenlet for greenlet in gc.get_objects() if isinstance(greenlet, gevent.Greenlet)),
    ]
    try:
        for each in shown:
            for text in (repr(each), str(each), format(each), pprint.pformat(each), pprint.pformat([each])):
                check_unseen(text, keeper)
        # Nor is it on the way to where the broker shows its connections.
        assert PASSWORD not in repr(asdict(url)).replace(repr(PASSWORD), '')
    finally:
        through_it.close()
        broker.stop()
        connection.close()


def test_the_broker_is_told_the_password_at_login_and_nowhere_else(
    keeper: str, rabbit: RabbitNode, service: str, stopped_at_the_end: list[Any]
) -> None:
    for kind in (AmqpRpcServer, AmqpRpcClient):
        stopped_at_the_end.append(kind(service, amqp_url=keeper))
        stopped_at_the_end[-1].serve()
    stopped_at_the_end[0].add_function(add)
    assert stopped_at_the_end[1].call.add(2, 3) == 5

    listed = rabbit.ctl('list_connections', 'user', 'name', 'client_properties')

    assert listed.count(service) == 4
    check_unseen(listed)


def test_the_password_is_in_no_log_line_whatever_happens(
    keeper: str, rabbit: RabbitNode, service: str, stopped_at_the_end: list[Any]
) -> None:
    with listening() as log, Proxy(rabbit.port) as proxy:
        url = url_of(HOST, proxy.port)
        serving = AmqpRpcServer(service, amqp_url=url)
        serving.add_function(add)
        calling = AmqpRpcClient(service, amqp_url=url, timeout=10)
        stopped_at_the_end += [serving, calling]
        serving.serve()
        assert calling.call.add(2, 3) == 5
        proxy.refuse()
        proxy.reset()
        eventually(lambda: log.getvalue().count('trying again') >= 4, 10)
        proxy.admit()
        assert calling.call.add(2, 3) == 5
        with Connection.from_url(keeper, debug=True) as connection, connection.channel() as channel:
            channel.queue.declare(exclusive=True)
        for wrong in (url_of(HOST, proxy.port, f'{PASSWORD}!'), url_of(HOST, proxy.port, vhost='missing')):
            refused = AmqpRpcClient(service, amqp_url=wrong, timeout=5)
            stopped_at_the_end.append(refused)
            with pytest.raises((LoginRefused, NotAllowed)):
                refused.call.add(2, 3)

    said = log.getvalue()
    for heard in ('connected to', 'lost', 'trying again', 'Connection.StartOk', 'ACCESS_REFUSED', 'missing'):
        assert heard in said
    check_unseen(said, keeper)


def test_the_embedded_broker_keeps_passwords_to_itself(service: str) -> None:
    with listening() as log, Broker(port=0, users={USER: PASSWORD}) as broker:
        Connection.from_url(broker.url, debug=True).close()
        for mechanism in ('PLAIN', 'AMQPLAIN'):
            with pytest.raises(LoginRefused) as caught:
                Connection(HOST, broker.port, USER, f'{PASSWORD}!', auth_mechanisms=[mechanism])
            check_unseen(everything_of(caught.value))
        # Somebody logs in with bytes that are no login.
        with ScriptedBroker(lambda peer: peer.read_exactly(8)), Connection.from_url(broker.url):
            pass

    check_unseen(log.getvalue())


# -- passwords in errors -----------------------------------------------------------------------------------------------

# What people write when they mean amqp://keeper:PASSWORD@host:5672/.
BAD_URLS = {
    'a port that is a word': f'amqp://{USER}:{CANARY}@{HOST}:port/',
    'a port that is too large': f'amqp://{USER}:{CANARY}@{HOST}:99999/',
    'a port that is negative': f'amqp://{USER}:{CANARY}@{HOST}:-1/',
    'two ports': f'amqp://{USER}:{CANARY}@{HOST}:5672:5672/',
    'no host': f'amqp://{USER}:{CANARY}',
    'no host, and a slash': f'amqp://{USER}:{CANARY}/vhost',
    'two hosts': f'amqp://{USER}:{CANARY}@one@two/',
    'a password with a slash': f'amqp://{USER}:12/{CANARY}@{HOST}/',
    'a password with a question mark': f'amqp://{USER}:12?{CANARY}@{HOST}/',
    'a password with a hash': f'amqp://{USER}:12#{CANARY}@{HOST}/',
    'a password with an at': f'amqp://{USER}:12@{CANARY}@{HOST}/',
    'a password with a blank': f'amqp://{USER}:12 {CANARY}@{HOST}/',
    'a password with a line break': f'amqp://{USER}:12\n{CANARY}@{HOST}/',
    'a password with a percent sign': f'amqp://{USER}:12%{CANARY}@{HOST}/',
    'a password with half a percent sign': f'amqp://{USER}:{CANARY}%2@{HOST}/',
    'a password that is not UTF-8': f'amqp://{USER}:{CANARY}%FF@{HOST}/',
    'a password with a NUL': f'amqp://{USER}:{CANARY}%00@{HOST}/',
    'a password with half of a surrogate pair': f'amqp://{USER}:{CANARY}\udcff@{HOST}/',
    'another scheme': f'http://{USER}:{CANARY}@{HOST}/',
    'no scheme': f'{USER}:{CANARY}@{HOST}/',
    'only a password': CANARY,
    'everything encoded': quote(f'amqp://{USER}:{CANARY}@{HOST}/', safe=''),
    'all but the scheme encoded': 'amqp://' + quote(f'{USER}:{CANARY}@{HOST}/', safe=''),
    'a parameter that does not exist': f'amqp://{USER}:{CANARY}@{HOST}/?hartbeat=5',
    'a parameter that is no number': f'amqp://{USER}:{CANARY}@{HOST}/?heartbeat=often',
    'a vhost of two segments': f'amqp://{USER}:{CANARY}@{HOST}/one/two',
    'a key without a certificate': f'amqps://{USER}:{CANARY}@{HOST}/?keyfile=/nowhere.key',
}

# What is a URL, and cannot be used.
UNUSABLE_URLS = {
    'a certificate that is not there': f'amqps://{USER}:{CANARY}@{HOST}/?cacertfile=/nowhere.pem',
    'a comma in the password, which separates URLs': f'amqp://{USER}:{CANARY},{CANARY}@{HOST}/',
}


@pytest.mark.parametrize('url', BAD_URLS.values(), ids=BAD_URLS.keys())
def test_no_error_about_a_url_shows_it(url: str) -> None:
    for make in (
        AmqpUrl.parse,
        Connection.from_url,
        lambda url: AmqpRpcClient('service', amqp_url=url),
        lambda url: AmqpRpcServer('service', amqp_url=[url]),
    ):
        with pytest.raises(ValueError, match='URI') as caught:
            make(url)
        check_unseen(everything_of(caught.value), url)


@pytest.mark.parametrize('url', UNUSABLE_URLS.values(), ids=UNUSABLE_URLS.keys())
def test_no_error_about_a_url_that_cannot_be_used_shows_it(url: str) -> None:
    for kind in (AmqpRpcClient, AmqpRpcServer):
        with pytest.raises((ValueError, OSError)) as caught:
            kind('service', amqp_url=url)
        check_unseen(everything_of(caught.value), url)


@pytest.mark.parametrize(
    'options',
    [
        {'amqp_host': f'amqp://{USER}:{CANARY}@{HOST}/'},
        {'amqp_host': f'{USER}:{CANARY}@{HOST}'},
        {'amqp_host': ('host', CANARY)},
        {'amqp_user': (USER, CANARY)},
        {'amqp_password': CANARY.encode()},
        {'amqp_password': [CANARY]},
        {'amqp_url': f'amqp://{USER}:{CANARY}@{HOST}/'.encode()},
        {'amqp_url': {'password': CANARY}},
        {'password': CANARY},
        {'amqp_port': 'http', 'amqp_password': CANARY},
        {'prefetch': 0, 'amqp_password': CANARY},
        {'queue_type': 'lazy', 'amqp_url': f'amqp://{USER}:{CANARY}@{HOST}/'},
        {'amqp_ssl': False, 'amqp_url': f'amqps://{USER}:{CANARY}@{HOST}/'},
    ],
    ids=lambda options: ', '.join(options),
)
@pytest.mark.parametrize('kind', [AmqpRpcServer, AmqpRpcClient])
def test_no_error_about_an_option_shows_a_password(kind: Any, options: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError)) as caught:
        kind('service', **options)

    check_unseen(everything_of(caught.value))


@pytest.mark.parametrize('host', [f'amqp://{USER}:{CANARY}@{HOST}/', f'{USER}:{CANARY}@{HOST}'])
def test_a_url_in_place_of_a_host_is_refused_and_not_shown(host: str) -> None:
    with pytest.raises(ValueError, match='no URL') as caught:
        Connection(host)

    check_unseen(everything_of(caught.value))


def no_broker(answer: bytes) -> Callable[[BrokerPeer], None]:
    """The script of somebody who answers something else."""

    def script(peer: BrokerPeer) -> None:
        peer.read_exactly(8)
        peer.send(answer)
        peer.last_words_raw()

    return script


def hangs_up_at_login(peer: BrokerPeer) -> None:
    peer.greet()


def asks_for_more(peer: BrokerPeer) -> None:
    peer.greet()
    peer.say(commands.Connection.Secure('more'))
    peer.last_words()


PEERS = {
    'something else': no_broker(b'HTTP/1.1 400 Bad Request\r\n\r\n'),
    'a broker of another version': no_broker(b'AMQP\x01\x01\x00\x09'),
    'random bytes': no_broker(bytes(range(256))),
    'a broker that hangs up at login': hangs_up_at_login,
    'a broker that asks for more': asks_for_more,
    'a broker that knows other mechanisms only': lambda peer: peer.greet(mechanisms='GSSAPI'),
}


@pytest.mark.parametrize('peer', PEERS)
def test_no_error_of_a_login_that_goes_wrong_shows_the_password(peer: str) -> None:
    with listening() as log, ScriptedBroker(PEERS[peer]) as broker, pytest.raises(AmphoraError) as caught:
        Connection.from_url(url_of(HOST, broker.port), connect_timeout=2, debug=True)

    check_unseen(everything_of(caught.value), url_of(HOST, broker.port))
    check_unseen(log.getvalue())


@pytest.mark.parametrize(
    'options',
    [
        {'password': f'{PASSWORD}!'},
        {'password': f'{PASSWORD}!', 'auth_mechanisms': ['AMQPLAIN']},
        {'password': f'{CANARY}\udcff'},
        {'user': f'{USER}\udcff'},
        {'auth_mechanisms': ['GSSAPI']},
        {'vhost': 'missing'},
        {'vhost': 'x' * 256},
        {'port': 1},
        {'host': 'host.invalid'},
        {'host': 'x' * 300},
        {'ssl': True},
        {'connect_timeout': 0},
        {'frame_max': 1},
        {'heartbeat': 'often'},
        {'client_properties': {'key': object()}},
    ],
    ids=repr,
)
def test_no_error_of_connecting_shows_the_password(
    keeper: str, rabbit: RabbitNode, service: str, options: dict[str, Any]
) -> None:
    with listening() as log:
        with pytest.raises(Exception) as caught:  # noqa: PT011  # whichever
            Connection(
                **{'host': HOST, 'port': rabbit.port, 'user': USER, 'password': PASSWORD, 'debug': True, **options}
            )
        check_unseen(everything_of(caught.value))

    check_unseen(log.getvalue())


@pytest.mark.parametrize('wrong', [{'amqp_password': f'{PASSWORD}!'}, {'amqp_password': f'{CANARY}\udcff'}])
def test_no_error_of_a_client_or_a_server_shows_the_password(
    keeper: str, rabbit: RabbitNode, service: str, stopped_at_the_end: list[Any], wrong: dict[str, str]
) -> None:
    options = {'amqp_host': HOST, 'amqp_port': rabbit.port, 'amqp_user': USER, **wrong}
    with listening() as log:
        calling, serving = AmqpRpcClient(service, timeout=5, **options), AmqpRpcServer(service, **options)
        stopped_at_the_end += [calling, serving]
        for does in (
            calling.call.add,
            calling.defer.add().get,
            lambda: calling.serve(nowait=False),
            lambda: calling.create_new_request_queue('more'),
            lambda: serving.serve(nowait=False),
            lambda: (serving.serve(), serving.wait_ready(5)),
        ):
            with pytest.raises(AmphoraError) as caught:
                does()
            check_unseen(everything_of(caught.value))

    assert 'amphora.session' in log.getvalue()
    check_unseen(log.getvalue())


@pytest.mark.parametrize(
    'text',
    [
        f'[amphora]\namqp_url = amqp://{USER}:{CANARY}@{HOST}/',
        f'[amphora]\namqp_url = "amqp://{USER}:{CANARY}@{HOST}:port/"',
        f'[amphora]\namqp_url = ["amqp://{USER}:{CANARY}@{HOST}/", 5]',
        f'[amphora]\namqp_url = {{password = "{CANARY}"}}',
        f'[amphora]\namqp_pasword = "{CANARY}"',
        f'[amphora]\namqp_password = ["{CANARY}"]',
        f'[amphora]\namqp_password = "{CANARY}',
        f'[amphora]\namqp_password = "{CANARY}"\namqp_password = "{CANARY}"',
        f'[amphora]\namqp_host = "{USER}:{CANARY}@{HOST}"',
        f'[amphora]\nprefetch = "{CANARY}"',
        f'[amphora]\nqueue_type = "{CANARY}"',
        f'[amphora]\n"amqp://{USER}:{CANARY}@{HOST}/" = 1',
        f'[amphora]\namqp_password = "{CANARY}"\nprefetch = 0',
        f'[amphora]\namqp_password = "{CANARY}"\n# \udcff',
        f'amqp_password = "{CANARY}"',
        f'[amphora]\nx = {"[" * 10_000}\namqp_password = "{CANARY}"',
    ],
    ids=lambda text: text.splitlines()[-1].partition(' ')[0],
)
def test_no_error_about_a_configuration_file_shows_what_is_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    path = tmp_path / 'amphora.toml'
    path.write_bytes(text.encode(errors='surrogateescape'))
    monkeypatch.setenv('AMPHORA_CONFIG', str(path))

    with pytest.raises((ValueError, TypeError)) as caught:
        make_settings()

    check_unseen(everything_of(caught.value))


# Of which any text makes sense.
TEXTS = {'amqp_user', 'amqp_password', 'amqp_vhost'}


@pytest.mark.parametrize('option', sorted({*OPTIONS} - TEXTS))
def test_no_error_about_a_variable_shows_what_is_in_it(monkeypatch: pytest.MonkeyPatch, option: str) -> None:
    monkeypatch.setenv(variable_of(option), f'{USER}:{CANARY}@{HOST}')

    with pytest.raises(ValueError, match=variable_of(option)) as caught:
        make_settings()

    check_unseen(everything_of(caught.value))


def test_a_url_in_the_place_of_the_files_path_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('AMPHORA_CONFIG', f'amqp://{USER}:{CANARY}@{HOST}/')

    with pytest.raises(ValueError, match='AMPHORA_CONFIG must be the path of a file') as caught:
        make_settings()

    check_unseen(everything_of(caught.value))


def test_a_setting_does_not_show_its_value() -> None:
    check_unseen(repr(resolve({'amqp_url': url_of(HOST, 5672), 'amqp_password': PASSWORD})))


# -- passwords on the command line and in processes --------------------------------------------------------------------


def run(*command: str, cwd: Path, **more: str) -> tuple[int, str]:
    """Run a command to its end: its exit status, and everything that it has printed."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith('AMPHORA_')}
    ended = subprocess.run(
        command,
        cwd=cwd,
        env={**inherited, 'COLUMNS': '100', **more},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=COMMAND_LIMIT,
    )
    return ended.returncode, ended.stdout.decode()


MODULE = f"""
from amphora import AmqpRpcServer

def make(x, password='{PASSWORD}'):
    server = AmqpRpcServer('canary')
    server.add_function(make)
    return server

server = AmqpRpcServer('canary')

def broken():
    password = '{PASSWORD}'
    raise RuntimeError('a function that makes no server')
"""

COMMANDS = {
    'call': ('call', 'canary', 'add', '2', '3', '--timeout', '3'),
    'list': ('list', '--wait', '0.1'),
    'doctor': ('doctor',),
    'dead': ('dead', 'canary'),
    'shell': ('shell', 'canary'),
    'serve': ('serve', 'canary_module:server'),
    'serve what is broken': ('serve', 'canary_module:broken'),
}


@pytest.mark.limit(60)
@pytest.mark.parametrize('command', COMMANDS)
def test_no_command_shows_the_password_whatever_goes_wrong(
    keeper: str, rabbit: RabbitNode, tmp_path: Path, command: str
) -> None:
    (tmp_path / 'canary_module.py').write_text(MODULE)
    [closed] = free_ports(1)
    urls = [
        url_of(HOST, rabbit.port, f'{PASSWORD}!'),
        url_of(HOST, rabbit.port, vhost='missing'),
        url_of(HOST, 'port'),
        f'amqp://{USER}:{PASSWORD}@{HOST}:{rabbit.port}',
    ]
    if command in ('call', 'list', 'doctor', 'dead'):  # the others wait for their broker
        urls += [url_of(HOST, closed), url_of('host.invalid', rabbit.port)]
    arguments = [sys.executable, '-m', 'amphora', *COMMANDS[command]]

    runs = [gevent.spawn(run, *arguments, cwd=tmp_path, AMPHORA_AMQP_URL=url) for url in urls]
    runs.append(gevent.spawn(run, *arguments, '--url', urls[0], cwd=tmp_path))
    debugging = [gevent.spawn(run, *arguments, '--debug', cwd=tmp_path, AMPHORA_AMQP_URL=url) for url in urls[:3]]
    gevent.joinall(runs + debugging, timeout=COMMAND_LIMIT)

    for each in runs + debugging:
        status, said = each.get(block=False)
        assert status != 0
        assert said
        assert ('Traceback' in said) <= (each in debugging)
        check_unseen(said)


@pytest.mark.parametrize(
    'arguments',
    [
        ('doctor', f'amqp://{USER}:{CANARY}@{HOST}/'),
        ('serve', f'amqp://{USER}:{CANARY}@{HOST}/'),
        ('serve', f'amqp://{USER}:{CANARY}@{HOST}/', '--debug'),
        ('call', f'amqp://{USER}:{CANARY}@{HOST}/'),
        ('call', 'canary', 'add', f'--ulr=amqp://{USER}:{CANARY}@{HOST}/'),
        ('list', 'canary', f'amqp://{USER}:{CANARY}@{HOST}/'),
        (f'amqp://{USER}:{CANARY}@{HOST}/', 'list'),
        ('broker', '--user', CANARY),
        ('broker', '--user', f'{USER}:{CANARY}', '--port', '-1'),
        ('broker', '--user', f'{USER}:{CANARY}', '--host', '192.0.2.1'),
    ],
    ids=' '.join,
)
def test_what_was_typed_in_the_wrong_place_is_not_repeated(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    status, said = run(sys.executable, '-m', 'amphora', *arguments, cwd=tmp_path)

    assert status != 0
    assert said
    check_unseen(said)


CRASHING = """
import faulthandler, os, sys
import gevent
from amphora import AmqpRpcClient, AmqpRpcServer
from amphora.amqp import Connection

url, way = os.environ['CANARY_URL'], sys.argv[1]
faulthandler.enable()
if way == 'connecting':
    Connection.from_url(url + '/missing')
elif way == 'calling':
    AmqpRpcClient('canary', amqp_url=url + '/missing').call.add(2, 3)
elif way == 'serving':
    AmqpRpcServer('canary', amqp_url=url + '/missing').serve(nowait=False)
elif way == 'in a greenlet':
    gevent.spawn(AmqpRpcClient('canary', amqp_url=url + '/missing').call.add, 2, 3).join()
    sys.exit(3)
server = AmqpRpcServer('canary', amqp_url=url)
server.serve()
server.wait_ready()
if way == 'aborting':
    os.abort()
raise RuntimeError('the program is broken')
"""


@pytest.mark.parametrize('way', ['connecting', 'calling', 'serving', 'in a greenlet', 'aborting', 'otherwise'])
def test_a_program_that_crashes_does_not_show_the_password(keeper: str, tmp_path: Path, way: str) -> None:
    status, said = run(
        *(sys.executable, '-X', 'dev', '-c', CRASHING, way), cwd=tmp_path, CANARY_URL=keeper.removesuffix('/')
    )

    assert status != 0
    assert 'Traceback' in said or 'Fatal Python error' in said
    check_unseen(said)


# -- arguments of calls ------------------------------------------------------------------------------------------------


def fail(*args: Any, **kwargs: Any) -> None:
    raise ValueError('not today')


def test_arguments_are_logged_at_debug_only_and_shortened(server: Server, client: Client, stranger: Stranger) -> None:
    everything: list[Any] = [
        *(CANARY, CANARY * 100_000, [CANARY] * 1000, {CANARY: {CANARY: [CANARY]}}, [[[[[[[[CANARY]]]]]]]]),
    ]
    with listening() as debug, listening(logging.INFO) as info:
        server(add, fail, named={'echo': lambda *args, **kwargs: [args, kwargs]})
        calling = client(timeout=5)
        for value in everything:
            assert calling.call.echo(value, key=value) == [[value], {'key': value}]
            assert calling.defer.echo(value).get(timeout=5)
            with pytest.raises(RemoteException, match='not today'):
                calling.call.fail(value, key=value)
            with pytest.raises(RemoteException, match='TypeError'):
                calling.call.add(value)
            with pytest.raises(WrongRequest):
                calling.call.missing(value, key=value)
            with pytest.raises(AmphoraError):
                calling.call(routing_key='nowhere').echo(value)
            with pytest.raises(AmphoraError):
                calling.call(timeout=0).echo(value)
            with pytest.raises(TypeError, match='cannot be serialised') as caught:
                calling.call.echo(value, object())
            check_unseen(str(caught.value))
        stranger.refusal({'func': 'echo', 'args': {CANARY: CANARY}, 'kwargs': {}})
        stranger.refusal({'func': 'echo', 'args': [CANARY], 'kwargs': CANARY})
        stranger.refusal({'func': CANARY[:2], 'args': [CANARY], 'kwargs': {}}, content_type='text/plain')
        stranger.request({'func': 'echo', 'args': [CANARY], 'kwargs': {}})
        stranger.check_server_well()

    assert 'fail raised ValueError' in info.getvalue()
    check_unseen(info.getvalue())
    lines = [line for line in debug.getvalue().splitlines() if CANARY in line]
    assert [line for line in lines if 'fail was called with' in line]
    assert max(map(len, lines)) < 500


# -- tracebacks --------------------------------------------------------------------------------------------------------


def inner() -> None:
    try:
        raise KeyError(CANARY)
    except KeyError as error:
        local = CANARY
        raise LookupError('not found') from error
    finally:
        assert local


def with_notes() -> None:
    error = ValueError('not today')
    if hasattr(error, 'add_note'):  # from Python 3.11 on
        error.add_note(f'see {CANARY}')
    raise error


def not_serialisable() -> Any:
    local = CANARY
    return {'key': object(), 'local': len(local)}


def in_a_group() -> None:
    gevent.spawn(inner).get()


@pytest.mark.parametrize('function', [inner, with_notes, not_serialisable, in_a_group], ids=lambda each: each.__name__)
def test_a_reply_says_class_and_arguments_and_nothing_of_the_code(
    server: Server, stranger: Stranger, capfd: pytest.CaptureFixture[str], function: Callable[[], Any]
) -> None:
    server(named={'go': function})

    with listening() as log:
        reply = stranger.ask({'func': 'go', 'args': [], 'kwargs': {}})

    fault = body_of(reply)['exception']
    assert set(fault) == {'type', 'args'}
    said = reply.body.decode() + repr(reply.properties)
    check_unseen(said, 'Traceback', '.py', 'tests', 'amphora', 'line ', function.__name__, 'local', os.getcwd())
    if function is not not_serialisable:
        assert 'Traceback' in log.getvalue()  # that is where it is for
    capfd.readouterr()  # and where gevent prints what ends a greenlet of the function's own


@pytest.mark.parametrize('body', [b'', b'[' * 1000, {'func': 'no', 'args': [], 'kwargs': {}}, {'func': 1}])
def test_a_refusal_says_nothing_of_the_code(server: Server, stranger: Stranger, body: Any) -> None:
    server(add)

    check_unseen(stranger.refusal(body), 'Traceback', '.py', 'tests', 'line ', os.getcwd())


# -- who may do what: what docs/topics/security.rst says ---------------------------------------------------------------


@pytest.fixture
def user(rabbit: RabbitNode, vhost: str) -> Iterator[Callable[[str, str, str, str], str]]:
    """Makes users with these rights (configure, write, read) in a virtual host of the test's own; gives their URLs."""
    made = []

    def make(name: str, configure: str, write: str, read: str) -> str:
        made.append(f'{name}-{vhost}')
        rabbit.ctl('add_user', made[-1], 'secret')
        rabbit.ctl('set_permissions', '-p', vhost, made[-1], configure, write, read)
        return f'amqp://{made[-1]}:secret@{rabbit.host}:{rabbit.port}/{vhost}'

    yield make
    for name in made:
        rabbit.ctl('delete_user', name)


def test_whoever_may_publish_to_the_exchange_can_call_and_say_where_the_answer_goes(
    server: Server, rabbit: RabbitNode, vhost: str, service: str, user: Callable[..., str]
) -> None:
    run: list[Any] = []
    serving = server(run.append, amqp_url=rabbit.url_of(vhost))
    assert serving.wait_ready(10)
    with Connection.from_url(rabbit.url_of(vhost)) as theirs:
        replies = Peer(theirs, service).declare_reply_queue('somebody else')

        with Connection.from_url(user('publisher', '', f'^rpc_{service}_request$', '')) as mine:
            request = Message(
                b'{"func": "append", "args": [1], "kwargs": {}}', reply_to='somebody else', message_id='1'
            )
            mine.channel().basic.publish(request, f'rpc_{service}_request', '')

            answer = eventually(lambda: theirs.channel().basic.get(replies, no_ack=True))
    assert run == [1]
    assert body_of(answer) == {'result': None}


def test_a_client_needs_no_more_rights_than_these(
    server: Server, client: Client, rabbit: RabbitNode, vhost: str, service: str, user: Callable[..., str]
) -> None:
    names = f'rpc_{service}_'
    url = user(
        'client',
        f'^{names}(request|response|ann_response)$',
        f'^{names}(request|ann_response)$',
        f'^{names}(request|response|ann_response)$',
    )
    server(add, amqp_url=rabbit.url_of(vhost))
    calling = client(uuid='ann', amqp_url=url)

    assert calling.call.add(2, 3) == 5

    # With them it can take requests of others, but neither answer in a server's place nor take what is answered.
    with Connection.from_url(url) as connection, Connection.from_url(rabbit.url_of(vhost)) as other:
        Peer(other, service).declare_reply_queue('bob')
        connection.channel().basic.get(f'{names}request')
        with pytest.raises(AmphoraError, match='ACCESS_REFUSED'):
            connection.channel().basic.get(f'{names}bob_response')
        channel = connection.channel()
        channel.basic.publish(Message(b'{"result": 6}', message_id='1'), f'{names}response', 'bob')
        eventually(lambda: channel.closed)
        assert 'ACCESS_REFUSED' in str(channel.error)
    assert calling.call.add(2, 3) == 5


def test_a_server_needs_no_more_rights_than_these(
    server: Server, rabbit: RabbitNode, vhost: str, service: str, user: Callable[..., str]
) -> None:
    names = f'rpc_{service}_'
    url = user(
        'server',
        f'^{names}(request|response|dead|.*_custody)$',
        rf'^({names}(request|response)|amq\.default)$',
        f'^{names}(request|.*_custody)$',
    )
    ignored: list[int] = []

    def ignore_first() -> int:
        ignored.append(1)
        if len(ignored) == 1:
            raise IgnoreRequest
        return len(ignored)

    with listening(logging.ERROR) as log, Connection.from_url(rabbit.url_of(vhost)) as connection:
        serving = server(add, ignore_first, amqp_url=url)
        assert serving.wait_ready(10)
        stranger = Stranger(connection, service)

        assert stranger.answer('ignore_first') == {'result': 2}
        body = {'func': 'add', 'args': [2, 3], 'kwargs': {}}
        for deliveries, answer in ((3, {'result': 5}), (4, {'result': 5})):
            assert body_of(stranger.ask(body, headers={DELIVERIES: deliveries})) == answer
        assert not log.getvalue()
        dead = body_of(stranger.ask(body, headers={DELIVERIES: 5}))
        assert dead['exception']['type'] == 'DeadLetter'
        eventually(lambda: stranger.ready(f'{names}dead') == 1)
    assert 'ACCESS_REFUSED' not in log.getvalue()


def test_the_ids_of_a_client_are_not_secret(client: Client, stranger: Stranger) -> None:
    calling = client()
    results = [calling.defer.add(2, number) for number in range(2)]
    first, second = (stranger.take().properties['message_id'] for _ in range(2))

    assert int(second[24:], 16) == int(first[24:], 16) + 1

    for result, id in zip(results, (first, second), strict=True):
        forged = Message(b'', message_id=id, reply_to=calling.uuid)
        stranger.reply(forged, {'result': 'forged'})
        assert result.get(timeout=5) == 'forged'


def test_introspection_tells_names_signatures_and_defaults_unless_told_not_to(
    server: Server, rabbit: RabbitNode, vhost: str, service: str
) -> None:
    def login(user: str, password: str = 'swordfish') -> None:
        """Logs in."""

    with Connection.from_url(rabbit.url_of(vhost)) as connection:
        peer = Peer(connection, 'amphora')
        told = {}
        for introspection in (True, False):
            serving = server(login, amqp_url=rabbit.url_of(vhost), introspection=introspection)
            assert serving.wait_ready(10)
            told[introspection] = described(peer)
            serving.stop()

    assert "'swordfish'" in told[True]
    assert 'Logs in.' in told[True]
    assert told[False] == ''


def described(peer: Peer) -> str:
    """What a server says of itself, or nothing when nobody hears the question."""
    channel = peer.connection.channel()
    declared = channel.queue.declare(exclusive=True)
    channel.queue.bind(declared.queue, peer.response_exchange, declared.queue)
    returned: list[Message] = []
    channel.return_listeners.append(returned.append)
    body = b'{"func": "describe", "args": [], "kwargs": {}}'
    message = Message(body, reply_to=declared.queue, message_id='1')
    channel.basic.publish(message, peer.request_exchange, '', mandatory=True)
    answer: list[Any] = []

    def heard() -> bool:
        got = channel.basic.get(declared.queue, no_ack=True)
        answer.extend([got] if got is not None else [])
        return bool(answer or returned)

    eventually(heard)
    channel.close()
    return answer[0].body.decode() if answer else ''
