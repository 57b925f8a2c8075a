"""What a service survives: servers and brokers that die, connections that break, queues that go, alarms.

The faults are real: signals, `rabbitmqctl`, and a proxy that loses bytes. In all of them no call hangs, answers are the
right ones, and none is lost.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import gevent.event
import pytest
from gevent import subprocess

from amphora import AmphoraError, NoResult, NotSent
from amphora.amqp import Connection, Message, PreconditionFailed
from tests.ledger import GRACE, Ledger
from tests.proxy import FROM_BROKER, TO_BROKER, Proxy
from tests.rabbitmq import RabbitNode
from tests.rpc import doubling_server
from tests.rpc.conftest import Client, Gate, Server, Stopwatch
from tests.waiting import eventually

# Seconds; the product's own default is ten.
HEARTBEAT = 1
# Reconnecting takes at most so long once the port is open.
RECONNECT = 3
# The largest body that the broker takes, in bytes: less than what amphora takes it for.
BROKER_LIMIT = 1_000_000


@pytest.fixture(scope='module')
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
    """Where this module's servers and clients go unless told otherwise."""
    return node.url


@pytest.fixture
def proxy(node: RabbitNode) -> Iterator[Proxy]:
    with Proxy(node.port) as made:
        yield made


class ServerProcess:
    """A `doubling_server` in a process of its own.

    :ivar begun: the numbers whose doubling has begun.
    :ivar done: the numbers that were doubled.
    """

    def __init__(self, url: str, service: str, pause: float) -> None:
        self.begun: list[int] = []
        self.done: list[int] = []
        self._up = False
        self.process = subprocess.Popen(
            [sys.executable, '-m', doubling_server.__name__, service, str(pause)],
            env={**os.environ, 'AMPHORA_AMQP_URL': url},
            stdout=subprocess.PIPE,
            universal_newlines=True,
        )
        self._reader = gevent.spawn(self._read)
        eventually(lambda: self._up)

    def _read(self) -> None:
        for line in self.process.stdout:
            word, *numbers = line.split()
            if word == 'up':
                self._up = True
            else:
                (self.begun if word == 'began' else self.done).extend(map(int, numbers))

    def kill(self) -> None:
        self.process.kill()
        self._join()

    def terminate(self) -> int:
        """End it with SIGTERM; gives its exit status."""
        self.process.terminate()
        return self._join()

    def _join(self) -> int:
        status: int = self.process.wait(timeout=10)
        self._reader.join(timeout=5)
        return status


@pytest.fixture
def server_process(node: RabbitNode, service: str) -> Iterator[Callable[..., ServerProcess]]:
    started: list[ServerProcess] = []

    def start(pause: float = 0.2) -> ServerProcess:
        started.append(ServerProcess(node.url, service, pause))
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


def connected(*parties: Any) -> bool:
    return all(each._publishing.connection and each._consuming.connection for each in parties)


# -- a server dies -----------------------------------------------------------------------------------------------------


def test_what_a_killed_server_was_at_is_done_by_another(
    client: Client, server_process: Callable[..., ServerProcess]
) -> None:
    doomed, other = server_process(pause=1), server_process(pause=0.05)
    ledger = Ledger(client())
    ledger.call(range(40))
    eventually(lambda: len(doomed.begun) + len(other.begun) >= 40)

    doomed.kill()

    ledger.check(executed_here=False)
    assert doomed.begun
    assert not doomed.done
    assert set(doomed.begun) <= set(other.done)


def test_the_only_server_is_killed_and_the_next_one_answers(
    client: Client, server_process: Callable[..., ServerProcess]
) -> None:
    doomed = server_process(pause=5)
    ledger = Ledger(client())
    ledger.call(range(10))
    eventually(lambda: len(doomed.begun) == 10)

    doomed.kill()
    server_process(pause=0)

    ledger.check(executed_here=False)


def test_a_server_that_gets_sigterm_under_load_loses_nothing_and_runs_nothing_twice(
    client: Client, server_process: Callable[..., ServerProcess]
) -> None:
    leaving, staying = server_process(pause=0.05), server_process(pause=0.05)
    ledger = Ledger(client())
    stop = []
    ledger.keep_calling(lambda: bool(stop), callers=50)
    eventually(lambda: len(leaving.done) > 100)

    status = leaving.terminate()
    at_the_end = len(staying.done)
    eventually(lambda: len(staying.done) > at_the_end + 100)
    stop.append(True)

    ledger.check(executed_here=False)
    assert status == 0
    assert sorted(leaving.begun) == sorted(leaving.done)
    assert sorted(leaving.done + staying.done) == sorted(ledger.answers)


# -- stop and serve ----------------------------------------------------------------------------------------------------


def test_a_server_stops_and_serves_again_in_the_middle_of_calls(server: Server, client: Client) -> None:
    ledger = Ledger(client())
    serving = server(ledger.double(0.02))
    stop = []
    ledger.keep_calling(lambda: bool(stop), callers=30)

    for _ in range(3):
        ended = ledger.ended
        eventually(lambda ended=ended: ledger.ended > ended + 100)
        serving.stop()
        serving.serve()
    stop.append(True)

    ledger.check()
    assert not ledger.duplicated


def test_a_client_stops_and_serves_again_in_the_middle_of_calls(server: Server, client: Client) -> None:
    calling = client()
    ledger = Ledger(calling)
    server(ledger.double(0.02))
    stop = []
    ledger.keep_calling(lambda: bool(stop), callers=30)

    for _ in range(3):
        ended = ledger.ended
        eventually(lambda ended=ended: ledger.ended > ended + 100)
        calling.stop()
        calling.serve()
    stop.append(True)

    ledger.check()


def test_what_was_deferred_before_stop_is_sent_once_by_serve(server: Server, client: Client, proxy: Proxy) -> None:
    proxy.refuse()
    calling = client(amqp_url=proxy.url)
    ran = []
    server(ran.append, named={'note': ran.append})
    results = [calling.defer(timeout=20).note(number) for number in range(100)]

    calling.stop()
    proxy.admit()
    calling.serve()

    assert [result.get(timeout=10) for result in results] == [None] * 100
    assert sorted(ran) == list(range(100))


# -- the broker is away ------------------------------------------------------------------------------------------------


def test_calls_made_while_there_is_no_broker_succeed_when_it_appears(
    server: Server, client: Client, proxy: Proxy
) -> None:
    proxy.refuse()
    ledger = Ledger(client(amqp_url=proxy.url))
    server(ledger.double(), amqp_url=proxy.url)
    ledger.call(range(100))
    gevent.idle()
    assert not ledger.ended

    proxy.admit()

    eventually(lambda: ledger.ended == 100, RECONNECT)
    ledger.check()
    assert not ledger.duplicated


def test_a_call_without_a_broker_ends_on_time_and_says_that_it_was_not_sent(
    client: Client, proxy: Proxy, stopwatch: type[Stopwatch]
) -> None:
    proxy.refuse()
    calling = client(amqp_url=proxy.url)
    watch = stopwatch()

    with pytest.raises(NotSent) as raised:
        calling.call(timeout=0.5).double(1)

    assert 0.5 <= watch.seconds <= 0.5 + GRACE
    assert raised.value.executed is False


def test_a_hundred_calls_in_flight_survive_a_restart_of_the_broker(
    server: Server, client: Client, node: RabbitNode
) -> None:
    ledger = Ledger(client(), timeout=30)
    server(ledger.double(1))
    ledger.call(range(100))
    eventually(lambda: len(ledger.executed) == 100)

    node.restart()

    eventually(lambda: ledger.ended == 100, RECONNECT + 2)
    ledger.check()


def test_calls_go_on_while_the_broker_is_killed_and_started(server: Server, client: Client, node: RabbitNode) -> None:
    ledger = Ledger(client(), timeout=30)
    server(ledger.double(0.01))
    stop = []
    ledger.keep_calling(lambda: bool(stop), callers=50)
    eventually(lambda: ledger.ended > 200)

    node.kill()
    node.start()

    ended = ledger.ended
    eventually(lambda: ledger.ended > ended + 200, RECONNECT + 2)
    stop.append(True)
    ledger.check()


# -- connections break -------------------------------------------------------------------------------------------------


def test_calls_go_on_while_the_broker_closes_all_connections_again_and_again(
    server: Server, client: Client, node: RabbitNode
) -> None:
    calling = client()
    ledger = Ledger(calling)
    serving = server(ledger.double())
    stop = []
    ledger.keep_calling(lambda: bool(stop), callers=50)
    eventually(lambda: ledger.ended > 100)
    descriptors = len(os.listdir('/proc/self/fd'))

    for _ in range(3):
        node.ctl('close_all_connections', 'test')
        ended = ledger.ended
        eventually(lambda ended=ended: ledger.ended > ended + 100)
    stop.append(True)

    ledger.check()
    eventually(lambda: connected(calling, serving))
    eventually(lambda: len(os.listdir('/proc/self/fd')) <= descriptors)


def test_calls_go_on_while_connections_are_reset(server: Server, client: Client, proxy: Proxy) -> None:
    ledger = Ledger(client(amqp_url=proxy.url))
    server(ledger.double(), amqp_url=proxy.url)
    stop = []
    ledger.keep_calling(lambda: bool(stop), callers=50)

    for _ in range(10):
        ended = ledger.ended
        eventually(lambda ended=ended: ledger.ended > ended + 50)
        proxy.reset()
    stop.append(True)

    ledger.check()


@pytest.mark.parametrize('direction', [FROM_BROKER, TO_BROKER])
@pytest.mark.parametrize('side', ['client', 'server'])
def test_a_half_open_connection_is_noticed_and_replaced(
    side: str, direction: str, server: Server, client: Client, proxy: Proxy
) -> None:
    through_proxy = {'amqp_url': proxy.url, 'heartbeat': HEARTBEAT}
    calling = client(**(through_proxy if side == 'client' else {}))
    ledger = Ledger(calling)
    serving = server(ledger.double(), **(through_proxy if side == 'server' else {}))
    ledger.call(range(10))
    ledger.wait()
    eventually(lambda: connected(calling, serving))

    proxy.drop(direction)
    ledger.call(range(10, 60))

    # The broker itself takes somewhat longer than two heartbeats to notice.
    eventually(lambda: ledger.ended == 60, 2 * HEARTBEAT + 1 + RECONNECT)
    ledger.check()


def test_a_client_stops_in_little_time_although_its_connections_are_half_open(
    server: Server, client: Client, proxy: Proxy, stopwatch: type[Stopwatch]
) -> None:
    calling = client(amqp_url=proxy.url, heartbeat=HEARTBEAT)
    ledger = Ledger(calling)
    server(ledger.double())
    ledger.call(range(10))
    ledger.check()

    proxy.drop(FROM_BROKER)
    watch = stopwatch()
    calling.stop()

    assert watch.seconds < 2 * HEARTBEAT + 2


def test_a_broker_that_freezes_for_three_heartbeats_is_waited_for(
    server: Server, client: Client, node: RabbitNode
) -> None:
    calling = client(heartbeat=HEARTBEAT)
    ledger = Ledger(calling)
    serving = server(ledger.double(), heartbeat=HEARTBEAT)
    ledger.call(range(10))
    ledger.wait()
    before = {each._publishing.connection for each in (calling, serving)}

    node.pause()
    try:
        ledger.call(range(10, 60))
        eventually(lambda: not any(each._publishing.connection in before for each in (calling, serving)), 4)
    finally:
        node.resume()

    # Connecting to a frozen broker is given up after ten seconds; it thaws before.
    eventually(lambda: ledger.ended == 60, 10)
    ledger.check()


# -- queues go ---------------------------------------------------------------------------------------------------------


def test_a_request_queue_deleted_under_its_consumer_is_back_within_a_second(
    server: Server, client: Client, node: RabbitNode, service: str
) -> None:
    calling = client()
    ledger = Ledger(calling)
    server(ledger.double())
    ledger.call(range(10))
    ledger.check()

    with Connection.from_url(node.url) as connection, connection.channel() as channel:
        channel.queue.delete(f'rpc_{service}_request')

        def consumed() -> bool:
            with connection.channel() as look:
                return look.queue.declare(f'rpc_{service}_request', durable=True).consumer_count == 1

        eventually(consumed, 1)

    ledger.call(range(10, 20))
    ledger.check()


def test_a_request_queue_deleted_over_and_over_is_back_within_a_second_each_time(
    server: Server, client: Client, node: RabbitNode, service: str
) -> None:
    calling = client()
    ledger = Ledger(calling)
    server(ledger.double())
    ledger.call(range(1))
    ledger.check()
    queue = f'rpc_{service}_request'

    with Connection.from_url(node.url) as connection:

        def consumed() -> bool:
            with connection.channel() as look:
                return look.queue.declare(queue, durable=True).consumer_count == 1

        for _ in range(4):
            with connection.channel() as channel:
                channel.queue.delete(queue)
            eventually(consumed, 1)


def test_replies_still_to_come_arrive_after_the_reply_queue_was_deleted(
    server: Server, client: Client, node: RabbitNode, service: str, gate: Gate
) -> None:
    calling = client()
    server(gate.function())
    results = [calling.defer.wait(number) for number in range(10)]
    eventually(lambda: len(gate.entered) == 10)
    queue = f'rpc_{service}_{calling.uuid}_response'

    with Connection.from_url(node.url) as connection, connection.channel() as channel:
        channel.queue.delete(queue)

        def consumed() -> bool:
            with connection.channel() as look:
                declared = look.queue.declare(queue, durable=True, arguments={'x-expires': 600_000})
                return declared.consumer_count == 1

        eventually(consumed, 1)
    gate.open()

    assert [result.get(timeout=5) for result in results] == list(range(10))


def test_a_queue_with_other_arguments_is_named_to_the_caller_and_nothing_else_breaks(
    client: Client, server: Server, node: RabbitNode, service: str, caplog: pytest.LogCaptureFixture
) -> None:
    queue = f'rpc_{service}_request'
    with Connection.from_url(node.url) as connection, connection.channel() as channel:
        channel.queue.declare(queue, durable=True, arguments={'x-max-length': 7})
        calling = client()

        for _ in range(2):
            with pytest.raises(PreconditionFailed, match=f'x-max-length.*{queue}'):
                calling.call(timeout=5).double(1)
        connection_then = eventually(lambda: calling._publishing.connection)
        complaints = [record for record in caplog.records if 'x-max-length' in record.getMessage()]
        assert len(complaints) <= 2

        # It mends itself: as soon as nothing is in the way, calls succeed on the same connection.
        channel.queue.delete(queue)
        server(Ledger(calling).double())

        def answered() -> bool:
            try:
                return bool(calling.call(timeout=5).double(4) == 8)
            except PreconditionFailed:
                return False

        eventually(answered, 5)
        assert calling._publishing.connection is connection_then


def test_a_refused_queue_of_ones_own_leaves_the_other_calls_alone(
    client: Client, server: Server, node: RabbitNode, service: str
) -> None:
    with Connection.from_url(node.url) as connection, connection.channel() as channel:
        channel.queue.declare(f'rpc_{service}_other_request', durable=True, arguments={'x-max-length': 7})
    calling = client()
    ledger = Ledger(calling)
    server(ledger.double())

    # At once, while the client is still connecting.
    with pytest.raises(PreconditionFailed):
        calling.create_new_request_queue(f'{service}_other')

    ledger.call(range(10))
    ledger.check()


# -- the broker is short of memory -------------------------------------------------------------------------------------


def test_calls_time_out_on_time_during_a_memory_alarm_and_go_on_within_a_second_of_its_end(
    server: Server, client: Client, memory_alarm: Callable[[bool], None]
) -> None:
    calling = client()
    ledger = Ledger(calling)
    server(ledger.double())
    ledger.call(range(10))
    ledger.check()

    memory_alarm(True)
    for _ in range(3):
        began = time.monotonic()
        with pytest.raises(NoResult):
            calling.call(timeout=0.5).double(-1)
        assert time.monotonic() - began <= 0.5 + GRACE
    # The broker said that it blocks when the first request came; what came later was not sent.
    with pytest.raises(NotSent):
        calling.call(timeout=0.2).double(-2)
    ledger.call(range(10, 110))

    memory_alarm(False)

    eventually(lambda: ledger.ended == 110, 1)
    ledger.wait()
    assert not ledger.errors
    assert ledger.executed[-2] == 0


def test_requests_are_taken_during_a_memory_alarm(
    server: Server, client: Client, memory_alarm: Callable[[bool], None]
) -> None:
    ledger = Ledger(client())
    serving = server(ledger.double(), serve=False)
    ledger.call(range(20))
    eventually(lambda: ledger.sent == 20 and connected(ledger.client))
    eventually(lambda: not ledger.client._publisher._channel.confirms)

    memory_alarm(True)
    serving.serve()
    eventually(lambda: len(ledger.executed) == 20)
    memory_alarm(False)

    eventually(lambda: ledger.ended == 20, 1)
    ledger.check()
    assert not ledger.duplicated


def test_making_a_queue_ends_on_time_during_a_memory_alarm(
    client: Client, memory_alarm: Callable[[bool], None], service: str, stopwatch: type[Stopwatch]
) -> None:
    calling = client(timeout=1)
    calling.create_new_request_queue(f'{service}_before')
    memory_alarm(True)
    with pytest.raises(NoResult):
        calling.call(timeout=0.3).double(1)
    watch = stopwatch()

    with gevent.Timeout(5), pytest.raises(NotSent):
        calling.create_new_request_queue(f'{service}_during')

    assert watch.seconds <= 1 + GRACE


# -- repeats -----------------------------------------------------------------------------------------------------------


def test_a_request_that_is_delivered_twice_runs_once_and_is_answered_twice(
    server: Server, client: Client, node: RabbitNode, service: str
) -> None:
    calling = client()
    ledger = Ledger(calling)
    server(ledger.double(0.1))
    ledger.call([1])
    ledger.check()
    ignored = calling.ignored_replies

    with Connection.from_url(node.url) as connection, connection.channel() as channel:
        for _ in range(2):
            request = Message(
                b'{"func": "double", "args": [21], "kwargs": {}}', message_id='twice', reply_to=calling.uuid
            )
            channel.basic.publish(request, f'rpc_{service}_request', '')
            channel.basic.publish(request, f'rpc_{service}_request', '')
            # Of the first pair one comes while the other runs; the second comes when it has run.
            ignored += 2
            eventually(lambda expected=ignored: calling.ignored_replies == expected)

    assert ledger.executed[21] == 1
    assert not len(calling._pending)


# -- what the broker does not take -------------------------------------------------------------------------------------


def test_a_reply_that_the_broker_does_not_take_holds_up_no_other(server: Server, client: Client) -> None:
    calling = client()
    ledger = Ledger(calling, timeout=5)

    def huge() -> str:
        return 'x' * 2 * BROKER_LIMIT

    server(ledger.double(), huge)
    result = calling.defer(timeout=5).huge()
    ledger.call(range(20))

    ledger.check()
    with pytest.raises(AmphoraError):
        result.get(timeout=6)


def test_a_request_that_the_broker_does_not_take_holds_up_no_other(server: Server, client: Client) -> None:
    calling = client()
    ledger = Ledger(calling, timeout=5)
    server(ledger.double(), len)
    result = calling.defer(timeout=20).len('x' * 2 * BROKER_LIMIT)
    ledger.call(range(20))

    ledger.check()
    with pytest.raises(AmphoraError):
        result.get(timeout=21)


# -- what a caller or a function does ----------------------------------------------------------------------------------


def test_a_call_whose_arguments_take_longer_to_encode_than_its_timeout_ends(client: Client) -> None:
    calling = client()
    calling.create_new_request_queue(f'{calling.service_name}_connected')
    arguments = [['x'] * 1_000_000] * 10

    with gevent.Timeout(5), pytest.raises(NotSent):
        calling.call(timeout=0.01).double(arguments)


def test_a_timeout_that_a_function_leaves_behind_harms_no_later_request(server: Server, client: Client) -> None:
    calling = client()
    ledger = Ledger(calling, timeout=2)

    def careless() -> str:
        gevent.Timeout(0.05).start()
        return 'done'

    serving = server(ledger.double(), careless)
    assert calling.call.careless() == 'done'
    expired = gevent.event.Event()
    gevent.spawn_later(0.1, expired.set)
    assert expired.wait(2)

    ledger.call(range(20))
    ledger.check()
    with gevent.Timeout(3):
        serving.stop()


def test_a_server_that_is_told_to_serve_while_it_stops_serves(server: Server, client: Client) -> None:
    calling = client()
    ledger = Ledger(calling, timeout=5)
    serving = server(ledger.double(0.5))
    ledger.call([1])
    eventually(lambda: ledger.executed)

    stopping = gevent.spawn(serving.stop)
    eventually(lambda: serving._own_intake is None)
    serving.serve()
    stopping.join()
    serving.serve()

    ledger.call([2])
    ledger.check()
