"""`amphora.testing`: what users' own tests stand on."""

import gc
import operator
import os
import sys
import textwrap
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace

import gevent
import pytest
from gevent import subprocess
from gevent.event import Event

import amphora
from amphora import (
    AmqpRpcClient,
    NoResult,
    NotSent,
    RemoteException,
    RpcMsgPackSerializer,
    Unroutable,
    WrongRequest,
)
from amphora.amqp import Connection, ConnectionFailed, LoginRefused
from amphora.broker import Broker, Limits
from amphora.testing import running_broker, running_server
from tests.stopwatch import Stopwatch
from tests.waiting import eventually


def add(x, y):
    return x + y


def echo(value):
    return value


@pytest.fixture
def broker():
    with running_broker() as broker:
        yield broker


def refuses(broker):
    try:
        Connection.from_url(broker.url).close()
    except ConnectionFailed:
        return True
    return False


def sockets():
    """Descriptors that are sockets, by their inode: a number of a closed one is soon another's."""
    found = set()
    for name in os.listdir('/proc/self/fd'):
        try:
            target = os.readlink('/proc/self/fd/' + name)
        except FileNotFoundError:  # that of the listing itself
            continue
        if target.startswith('socket:'):
            found.add(target)
    return found


def live_greenlets():
    gc.collect()
    return {each for each in gc.get_objects() if isinstance(each, gevent.Greenlet) and not each.dead}


@contextmanager
def nothing_left():
    sockets_before, greenlets_before = sockets(), live_greenlets()
    yield
    eventually(lambda: not live_greenlets() - greenlets_before)
    # A broker that goes on closes its side when it has heard of the other's end.
    eventually(lambda: not sockets() - sockets_before)


# -- running_broker ----------------------------------------------------------------------------------------------------


def test_a_broker_says_where_it_is_and_is_gone_afterwards():
    with nothing_left():
        with running_broker() as broker:
            assert isinstance(broker, Broker)
            assert broker.host == '127.0.0.1'
            assert broker.url == 'amqp://guest:guest@127.0.0.1:%d/' % broker.port
            assert not refuses(broker)
        assert refuses(broker)


def test_brokers_share_nothing():
    with running_broker() as one, running_broker() as other, Connection.from_url(one.url) as connection:
        connection.channel().queue.declare('q')

        assert list(one.queues()) == ['q']
        assert other.queues() == {}


def test_a_broker_takes_the_options_of_a_broker():
    limits = Limits(connections=7)
    with running_broker(host='::1', users={'ann': 'secret'}, vhosts=['a', 'b'], limits=limits) as broker:
        assert broker.limits is limits
        assert broker.queues('b') == {}
        with Connection.from_url(broker.url) as connection:
            assert (connection.user, connection.vhost) == ('ann', 'a')


def test_a_broker_is_stopped_when_the_body_raises():
    with nothing_left():
        with pytest.raises(ZeroDivisionError), running_broker() as broker:
            raise ZeroDivisionError
        assert refuses(broker)


@pytest.mark.parametrize(
    ('options', 'error', 'text'),
    [
        ({'hots': 'x'}, TypeError, 'hots'),
        ({'port': 'x'}, TypeError, "port must be an integer, not 'x'"),
        ({'port': 65536}, ValueError, 'port must be from 0 to 65535, not 65536'),
        ({'vhosts': 'abc'}, TypeError, "vhosts must be several names, not the text 'abc'"),
    ],
)
def test_a_wrong_option_of_a_broker_is_named(options, error, text):
    with pytest.raises(error, match=text), running_broker(**options):
        pass


def test_a_port_that_is_taken_cannot_be_had(broker):
    with pytest.raises(OSError, match='in use'), running_broker(port=broker.port):
        pass


# -- levers, as amphora's own client meets them ------------------------------------------------------------------------


def test_calls_go_on_after_connections_were_dropped(broker):
    with running_server([echo], broker=broker) as client:
        for n in range(3):
            broker.drop_connections()
            assert client.call(timeout=10).echo(n) == n


def test_who_is_refused_comes_in_when_it_accepts_again(broker):
    with running_server([echo], broker=broker) as client:
        broker.refuse()
        assert refuses(broker)
        assert client.call(timeout=5).echo('still connected') == 'still connected'
        broker.drop_connections()
        # The client knows that it is offline when a call ends as one that never left.
        eventually(lambda: client._publishing.connection is None)
        with pytest.raises(NotSent):
            client.call(timeout=0.1).echo('lost')
        held = client.defer.echo('held')

        broker.accept()

        assert held.get(timeout=10) == 'held'
        assert not refuses(broker)


def test_calls_to_a_blocked_broker_end_at_their_timeout_and_go_on_when_it_is_unblocked(broker):
    with running_server([echo], broker=broker) as client:
        broker.block('no room')
        # The broker blocks a connection when it publishes, as RabbitMQ does: the message that it does so for is taken.
        client.call.echo('first')
        for _ in range(3):
            watch = Stopwatch()
            with pytest.raises(NoResult):
                client.call(timeout=0.3).echo('lost')
            assert watch.seconds >= 0.3
            watch.check_timeout(0.3)
        held = [client.defer.echo(n) for n in range(100)]
        watch = Stopwatch()

        broker.unblock()

        assert [each.get(timeout=10) for each in held] == list(range(100))
        assert watch.awake < 1


def test_a_delay_holds_back_the_request_and_the_reply(broker):
    with running_server([echo], broker=broker) as client:
        broker.delay(0.1)
        watch = Stopwatch()
        client.call.echo(1)
        assert watch.seconds >= 0.2
        assert watch.awake < 0.6

        broker.delay(0)
        watch = Stopwatch()
        client.call.echo(2)
        assert watch.awake < 0.2


@pytest.mark.parametrize(('seconds', 'error'), [(-1, ValueError), (float('nan'), ValueError), ('1', TypeError)])
def test_a_delay_is_a_number_of_seconds(broker, seconds, error):
    with pytest.raises(error, match='seconds must be'):
        broker.delay(seconds)


def test_queues_tells_what_each_queue_has(broker):
    release = Event()
    with running_server([release.wait], service='waits', broker=broker) as client:
        results = [client.defer.wait() for _ in range(3)]
        eventually(lambda: broker.queues()['rpc_waits_request'].unacked == 3)
        counts = broker.queues()['rpc_waits_request']
        assert (counts.messages, counts.unacked, counts.consumers) == (3, 3, 1)

        release.set()

        gevent.joinall(results)
        eventually(lambda: broker.queues()['rpc_waits_request'] == (0, 0, 1))
    assert broker.queues()['rpc_waits_request'] == (0, 0, 0)


def test_a_call_to_a_deleted_queue_is_unroutable_until_the_server_has_it_again(broker):
    with running_server([echo], service='gone', broker=broker) as client:
        broker.delete_queue('rpc_gone_request')
        with pytest.raises(Unroutable):
            client.call(timeout=5).echo(1)

        eventually(lambda: 'rpc_gone_request' in broker.queues() and broker.queues()['rpc_gone_request'].consumers)
        assert client.call(timeout=5).echo(2) == 2


def test_a_queue_that_is_not_there_cannot_be_deleted(broker):
    with pytest.raises(KeyError, match='nowhere'):
        broker.delete_queue('nowhere')


# -- running_server: what it serves ------------------------------------------------------------------------------------


def test_functions_of_a_dict_go_by_its_names():
    with running_server({'plus': add, 'minus': operator.sub, 'upper': str.upper, 'text': str}) as client:
        assert client.call.plus(2, 3) == 5
        assert client.call.minus(2, 3) == -1
        assert client.call.upper('a') == 'A'
        assert client.call.text(1) == '1'


def test_functions_of_a_list_go_by_their_own_names():
    with running_server(each for each in (add, operator.mul)) as client:
        assert client.call.add(2, 3) == 5
        assert client.call.mul(2, 3) == 6


def test_of_a_module_its_own_public_functions_are_served():
    module = ModuleType('sums')
    source = """
        from operator import mul
        class Sum: pass
        LIMIT = 3
        def _hidden(): pass
        def add(x, y): return x + y
    """
    exec(textwrap.dedent(source), vars(module))  # noqa: S102  # a module as its file would make it
    with running_server(module) as client:
        assert client.call.add(2, 3) == 5
        for name in ('mul', 'Sum', 'LIMIT', '_hidden'):
            with pytest.raises(WrongRequest):
                client.call(function_name=name)()


def test_of_a_module_with_a_list_of_its_names_those_are_served():
    module = ModuleType('sums')
    module.__all__ = ['add', 'mul', 'LIMIT']
    module.add, module.mul, module.sub, module.LIMIT = add, operator.mul, operator.sub, 3
    with running_server(module) as client:
        assert client.call.mul(2, 3) == 6
        for name in ('sub', 'LIMIT'):
            with pytest.raises(WrongRequest):
                client.call(function_name=name)(2, 3)


def test_of_an_object_its_public_methods_are_served():
    class Counter:
        count = 0

        def up(self):
            self.count += 1
            return self.count

    with running_server(Counter()) as client:
        assert client.call.up() == 1
        assert client.call.up() == 2


@pytest.mark.parametrize(
    ('functions', 'error', 'text'),
    [
        (None, TypeError, 'functions must be a dict .* not None'),
        (3, TypeError, 'functions must be a dict .* not 3'),
        ('add', TypeError, "functions must be a dict .* not 'add'"),
        (add, TypeError, 'functions must be a dict .* not <function add'),
        ({'add': 3}, TypeError, 'must be callable, which 3 is not'),
        ({3: add}, TypeError, 'the name of a function must be a str, not 3'),
        ({'': add}, ValueError, 'must not be empty'),
        ([3], TypeError, 'must be callable, which 3 is not'),
        ([add, add], ValueError, "two functions are named 'add'"),
        ([lambda: None], ValueError, 'has no name to be called by'),
        (SimpleNamespace(_add=add), ValueError, 'no public function'),
        ([], ValueError, r'no function in \[\]'),
        ({}, ValueError, 'no function in {}'),
    ],
)
def test_what_cannot_be_served_is_named(functions, error, text):
    with nothing_left(), pytest.raises(error, match=text), running_server(functions):
        pass


# -- running_server: with what -----------------------------------------------------------------------------------------


def test_the_client_is_connected_and_its_service_is_like_no_other(broker):
    with running_server([add], broker=broker) as one, running_server([add], broker=broker) as other:
        assert type(one) is AmqpRpcClient
        assert one.service_name != other.service_name
        assert broker.running_connections == 8
        assert broker.queues()['rpc_%s_request' % one.service_name].consumers == 1


def test_a_service_that_is_named_can_be_called_by_others(broker):
    with running_server([add], service='sums', broker=broker):
        other = AmqpRpcClient('sums', amqp_url=broker.url)
        assert other.call(timeout=5).add(2, 3) == 5
        other.stop()


def test_any_broker_will_do_by_its_url(amqp_url, service):
    with running_server([add], service, amqp_url) as client:
        assert client.call(timeout=10).add(2, 3) == 5


def test_options_reach_the_server_and_the_client():
    options = {'serializer': RpcMsgPackSerializer}
    with running_server(
        [echo], server_options={**options, 'prefetch': 3}, client_options={**options, 'timeout': 4.5, 'uuid': 'me'}
    ) as client:
        assert (client.timeout, client.uuid) == (4.5, 'me')
        # JSON has no bytes.
        assert client.call.echo(b'\xff') == b'\xff'


def test_a_way_of_its_own_to_the_broker_goes_before_the_brokers():
    with (
        running_broker(users={'ann': 'x', 'bob': 'y'}) as broker,
        running_server(
            [add], broker=broker, client_options={'amqp_url': broker.url.replace('ann:x', 'bob:y')}
        ) as client,
    ):
        assert client._publishing.connection.user == 'bob'
        assert client.call.add(2, 3) == 5


@pytest.mark.parametrize(
    ('options', 'error', 'text'),
    [
        ({'broker': 3}, TypeError, 'broker must be a Broker, a URL or None, not 3'),
        ({'broker': 'http://127.0.0.1/'}, ValueError, 'http'),
        ({'stop_timeout': -1}, ValueError, 'stop_timeout must be from 0 to 3600 seconds'),
        ({'server_options': {'prefech': 1}}, TypeError, 'prefech'),
        ({'server_options': {'prefetch': 0}}, ValueError, 'prefetch must be from 1'),
        ({'client_options': {'timeout': 'x'}}, TypeError, 'timeout must be a number'),
        ({'client_options': {'time_out': 1}}, TypeError, 'time_out'),
    ],
)
def test_a_wrong_option_is_named(options, error, text):
    with nothing_left(), pytest.raises(error, match=text), running_server([add], **options):
        pass


def test_a_login_that_is_refused_is_told_at_once(broker):
    with (
        nothing_left(),
        pytest.raises(LoginRefused),
        running_server([add], broker=broker.url.replace('guest:guest', 'guest:wrong')),
    ):
        pass


def test_a_broker_that_is_not_there_is_not_waited_for_for_long(broker, monkeypatch):
    monkeypatch.setattr('amphora.testing.CONNECT_TIMEOUT', 0.2)
    broker.stop()

    with (
        nothing_left(),
        pytest.raises(NotSent, match=r'no broker within 0\.2 s: there is no connection: cannot connect to '),
        running_server([add], broker=broker),
    ):
        pass


# -- running_server: the end -------------------------------------------------------------------------------------------


def test_nothing_is_left_of_a_server():
    with nothing_left(), running_server([add]) as client:
        assert client.call.add(2, 3) == 5


def test_nothing_is_left_when_the_body_raises(broker):
    with nothing_left():
        with pytest.raises(ZeroDivisionError), running_server([add], broker=broker) as client:
            raise ZeroDivisionError(client.call.add(2, 3))
        eventually(lambda: broker.running_connections == 0)
    assert not refuses(broker)


def test_what_was_deferred_is_done_before_the_end():
    done = []
    with running_server({'note': done.append}) as client:
        for n in range(10):
            client.defer(wait_publish=True).note(n)
    assert done == list(range(10))


def test_a_function_that_never_returns_does_not_keep_the_test_from_its_end(broker):
    ends = []

    def stuck():
        try:
            Event().wait()
        finally:
            ends.append(sys.exc_info()[0])

    with nothing_left():
        with running_server([stuck], broker=broker, stop_timeout=0.1) as client, pytest.raises(NoResult):
            client.call(timeout=0.1).stuck()
        assert ends == [gevent.GreenletExit]
        eventually(lambda: broker.running_connections == 0)


def test_a_broker_left_blocked_does_not_keep_the_test_from_its_end(broker):
    release = Event()
    with nothing_left():
        with running_server([release.wait], broker=broker, stop_timeout=0.2) as client:
            client.defer.wait()
            eventually(lambda: any(counts.unacked for counts in broker.queues().values()))
            broker.block()
            client.defer.wait()
            watch = Stopwatch()
        # Besides the three times it waits, closing a connection that is not read from takes a second.
        assert watch.awake < 5
        broker.unblock()
        eventually(lambda: broker.running_connections == 0)


def test_what_a_function_raises_reaches_the_client_as_from_any_server():
    def fail():
        raise ValueError('no', 3)

    with running_server([fail]) as client, pytest.raises(RemoteException) as caught:
        client.call.fail()

    assert (caught.value.error_type, caught.value.args) == ('ValueError', ('no', 3))


# -- the process it runs in --------------------------------------------------------------------------------------------

PROGRAM = """
import time
from amphora.testing import running_broker, running_server

with running_broker() as broker, running_server([time.sleep], broker=broker) as client:
    broker.drop_connections()
    began = time.monotonic()
    results = [client.defer.sleep(0.2) for _ in range(10)]
    for result in results:
        result.get(timeout=20)
    print('%s %s' % (client.call.sleep(0), time.monotonic() - began < 2))
"""


@pytest.mark.parametrize(
    ('before', 'shown'),
    [
        ('', 'None False\n'),  # ten times 0.2 s, one after the other
        ('from gevent import monkey; monkey.patch_all()', 'None True\n'),
    ],
    ids=['unpatched', 'patched'],
)
def test_it_works_in_a_process_that_is(before, shown):
    program = before + PROGRAM
    result = subprocess.run([sys.executable, '-W', 'error', '-c', program], capture_output=True, text=True, timeout=50)

    assert (result.stdout, result.returncode) == (shown, 0), result.stderr


def test_every_public_name_can_be_had():
    for name in amphora.__all__:
        assert getattr(amphora, name).__name__ == name
    with pytest.raises(AttributeError, match="module 'amphora' has no attribute 'Client'"):
        _ = amphora.Client


def test_a_module_may_hold_methods_of_builtin_classes():
    module = ModuleType('sums')
    module.upper = str.upper

    def add(x, y):
        return x + y

    add.__module__ = 'sums'
    module.add = add

    with running_server(module) as client:
        assert client.call.add(1, 2) == 3
