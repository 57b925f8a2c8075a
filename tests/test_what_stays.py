"""What is done with leaves memory, and brokers: measured by what is still there."""

import asyncio
import gc
import logging
import threading
import weakref

import gevent
import pytest

from amphora import AmqpRpcClient, AmqpRpcServer, RemoteException, RpcJsonSerializer
from amphora.amqp import Connection, Message
from amphora.intake import Job
from amphora.testing import running_broker, running_server
from tests.waiting import eventually


@pytest.fixture
def broker():
    with running_broker() as broker:
        yield broker


@pytest.fixture
def channel(broker):
    with Connection.from_url(broker.url) as connection:
        yield connection.channel()


class Text(str):
    """A text that can be watched going."""

    __slots__ = ('__weakref__',)


class Alive:
    """Counts the instances of a class beyond those that other tests have left."""

    def __init__(self, kind):
        self._kind = kind
        gc.collect()
        self._before = self._count()

    def _count(self):
        return sum(isinstance(each, self._kind) for each in gc.get_objects())

    def count(self):
        return max(0, self._count() - self._before)


def test_a_worker_that_waits_for_its_next_request_keeps_nothing_of_its_first(broker):
    jobs = Alive(Job)
    server = AmqpRpcServer('service', amqp_url=broker.url)
    server.add_function(lambda text: gevent.sleep(0.1), 'wait')
    with server, AmqpRpcClient('service', amqp_url=broker.url) as client:
        gevent.joinall([gevent.spawn(client.call.wait, 'x' * 100_000) for _ in range(20)], raise_error=True)

        eventually(lambda: gc.collect() is not None and not jobs.count(), 5)


def test_a_thread_that_waits_for_its_next_task_keeps_nothing_of_its_last(broker):
    made = []

    async def blocks():
        text = Text('large')
        made.append(weakref.ref(text))
        await asyncio.get_running_loop().run_in_executor(None, text.upper)

    with running_server([blocks], broker=broker) as client:
        client.call.blocks()

        eventually(lambda: made[0]() is None, 5)


def test_a_consumer_that_waits_for_its_next_message_keeps_nothing_of_its_last(channel):
    messages = Alive(Message)
    queue = channel.queue.declare('').queue
    taken = []
    channel.basic.consume(queue, lambda message: taken.append(len(message)), no_ack=True)
    channel.basic.publish(Message('large'), '', queue)

    eventually(lambda: taken and not messages.count(), 5)


def test_queues_that_are_deleted_long_before_they_would_expire_are_forgotten(broker, channel):
    for number in range(1000):
        channel.queue.declare(f'queue {number}', arguments={'x-expires': 3_600_000})
        channel.queue.delete(f'queue {number}')

    assert len(broker._clock._due) < 100


def test_deadlines_that_were_overtaken_by_earlier_ones_are_forgotten(broker, channel):
    channel.queue.declare('queue')
    for number in range(1000):
        channel.basic.publish(Message('', expiration=str(3_600_000 - number * 1000)), '', 'queue')
        assert channel.basic.get('queue', no_ack=True)

    assert len(broker._clock._due) < 100


def test_deadlines_are_still_met_when_others_were_forgotten(broker, channel):
    channel.queue.declare('lasting', arguments={'x-expires': 300})
    for number in range(200):
        channel.queue.declare(f'queue {number}', arguments={'x-expires': 3_600_000})
        channel.queue.delete(f'queue {number}')

    eventually(lambda: 'lasting' not in broker.queues(), 3)


@pytest.mark.parametrize('given', ['broker', 'URL'])
def test_of_a_service_whose_name_was_made_up_nothing_stays_on_the_broker(broker, given):
    host = broker.vhosts['/']
    before = set(host.exchanges)
    for _ in range(3):
        with running_server([len], broker=broker if given == 'broker' else broker.url) as client:
            client.cast.len(1)  # becomes a dead letter
            eventually(lambda: any(name.endswith('_dead') for name in broker.queues()), 5)

    assert not broker.queues()
    assert {name for name in set(host.exchanges) - before if not name.startswith('rpc_amphora_')} == set()


def test_a_service_that_was_named_stays_on_the_broker(broker):
    with running_server([len], service='named', broker=broker):
        pass

    assert 'rpc_named_request' in broker.queues()


def test_requests_whose_results_were_dropped_are_not_held_for_ever_while_the_broker_is_away():
    client = AmqpRpcClient('service', amqp_url='amqp://127.0.0.1:1/', timeout=0.01)
    try:
        for _ in range(5):
            for _ in range(1000):
                client.defer.add(1, 2)
            gevent.sleep(0.05)  # their time is over

        assert client._publisher.held < 3000
    finally:
        client.stop()


def test_a_client_leaves_nothing_behind_in_a_thread_that_ends_its_hub_at_once(broker):
    def work():
        with AmqpRpcClient('service', amqp_url=broker.url) as client:
            client.try_call(routing_key='nowhere').add(1, 2)
        made.append(weakref.ref(client._publishing))
        del client
        gevent.get_hub().destroy(destroy_loop=True)

    made = []
    thread = threading.Thread(target=work)
    thread.start()
    eventually(lambda: not thread.is_alive(), 10)

    eventually(lambda: gc.collect() is not None and made[0]() is None, 5)


@pytest.fixture
def uncollected():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def test_the_request_of_an_async_function_that_raised_leaves_memory_with_its_answer(broker, uncollected, monkeypatch):
    async def fails():
        raise ValueError

    jobs = Alive(Job)
    # Pytest keeps what is logged, and with it the traceback.
    monkeypatch.setattr(logging.getLogger('amphora.dispatch'), 'disabled', True)
    with running_server([fails], broker=broker) as client:
        with pytest.raises(RemoteException):
            client.call.fails()

        eventually(lambda: not jobs.count(), 5)


class Watched:
    """What can be watched going."""


@pytest.mark.parametrize('fault', [[object()], {'key': object()}, {object(): 1}])
@pytest.mark.parametrize(
    'serialize',
    [lambda value: RpcJsonSerializer.serialize_call('f', (value,), {}), RpcJsonSerializer.serialize_result],
    ids=['call', 'result'],
)
def test_what_cannot_be_serialised_leaves_memory_with_the_error(serialize, fault, uncollected):
    watched = Watched()
    gone = weakref.ref(watched)
    with pytest.raises(TypeError):
        serialize([watched, fault])
    del watched

    assert gone() is None
