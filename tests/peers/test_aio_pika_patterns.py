"""aio-pika's RPC and Master/Worker, the real ones, in conversation with amphora: each side calls the other."""

import asyncio
import gzip
import json
from collections.abc import Callable
from typing import Any

import aio_pika
import gevent
import msgpack
import pytest
from aio_pika.patterns import RPC, JsonRPC, Master, RejectMessage
from aio_pika.patterns.master import CompressedJsonMaster, JsonMaster
from aio_pika.patterns.rpc import RPCException

from amphora import NoResult, RejectRequest, RemoteException, Unroutable
from amphora.dialects import AioPikaMaster, AioPikaRpc, GzipJson, Json, MsgPack, Pickle
from tests.parties import Client, Gate, Server
from tests.peers.loops import Loop
from tests.waiting import eventually

Name = Callable[[str], str]

FORMATS = pytest.mark.parametrize(('theirs', 'format'), [(RPC, Pickle), (JsonRPC, Json)])
VALUES = {Pickle: ['grüße 😀', b'\xff\x00', {'a': [1, (2,)]}, None], Json: ['grüße 😀', {'a': [1, 2.5]}, None]}


def fail(value: Any) -> Any:
    raise ValueError('no', value)


def echo(value: Any) -> Any:
    return value


@pytest.fixture
def channel(url: str, loop: Loop) -> Any:
    async def connect() -> Any:
        connection = await aio_pika.connect(url)
        return connection, await connection.channel()

    connection, channel = loop.run(connect())
    yield channel
    loop.run(connection.close())


# -- they call ---------------------------------------------------------------------------------------------------------


@FORMATS
def test_they_get_results(
    serving: Server, loop: Loop, channel: Any, name: Name, theirs: type[RPC], format: type
) -> None:
    serving(named={name('echo'): echo}, dialects=[AioPikaRpc(format)])

    async def call() -> list[Any]:
        rpc = await theirs.create(channel)
        return [await rpc.call(name('echo'), {'value': value}) for value in VALUES[format]]

    assert loop.run(call()) == VALUES[format]


@FORMATS
def test_they_get_errors(
    serving: Server, loop: Loop, channel: Any, name: Name, theirs: type[RPC], format: type
) -> None:
    serving(named={name('fail'): fail}, dialects=[AioPikaRpc(format)])

    async def call() -> Any:
        rpc = await theirs.create(channel)
        return await asyncio.gather(rpc.call(name('fail'), {'value': 3}), return_exceptions=True)

    [error] = loop.run(call())
    if format is Pickle:
        assert isinstance(error, ValueError)
        assert error.args == ('no', 3)
    else:
        assert 'ValueError' in repr(error.args)


def test_they_get_errors_in_a_format_of_their_own(serving: Server, loop: Loop, channel: Any, name: Name) -> None:
    class MsgpackRPC(RPC):
        CONTENT_TYPE = 'application/msgpack'

        def serialize(self, data: Any) -> bytes:
            return msgpack.dumps(data)

        def deserialize(self, data: bytes) -> Any:
            return msgpack.loads(data)

    serving(named={name('fail'): fail}, dialects=[AioPikaRpc(MsgPack)])

    async def call() -> None:
        rpc = await MsgpackRPC.create(channel)
        with pytest.raises(RPCException) as caught:
            await rpc.call(name('fail'), {'value': 3})
        assert caught.value.args[1]['error']['type'] == 'ValueError'
        assert caught.value.args[1]['error']['args'] == ['no', 3]

    loop.run(call())


def test_they_hear_of_arguments_that_do_not_fit(serving: Server, loop: Loop, channel: Any, name: Name) -> None:
    serving(named={name('echo'): echo}, dialects=[AioPikaRpc()])

    async def call() -> None:
        rpc = await RPC.create(channel)
        with pytest.raises(TypeError, match='other'):
            await rpc.call(name('echo'), {'other': 3})

    loop.run(call())


def test_they_hear_of_a_function_that_is_not_there(serving: Server, loop: Loop, channel: Any, name: Name) -> None:
    serving(named={name('echo'): echo}, dialects=[AioPikaRpc()])

    async def call() -> None:
        rpc = await RPC.create(channel)
        with pytest.raises(aio_pika.exceptions.MessageProcessError, match='returned'):
            await rpc.call(name('missing'), {})

    loop.run(call())


def test_they_hear_of_a_request_that_expires(serving: Server, loop: Loop, channel: Any, name: Name, gate: Gate) -> None:
    serving(named={name('wait'): gate.function()}, dialects=[AioPikaRpc()], prefetch=1)

    async def begin() -> Any:
        rpc = await RPC.create(channel)
        return rpc, asyncio.ensure_future(rpc.call(name('wait'), {'value': 1}))

    async def call_in_vain() -> None:
        with pytest.raises(asyncio.TimeoutError, match='timed-out'):
            await rpc.call(name('wait'), {}, expiration=0.2)

    async def end() -> Any:
        return await first

    rpc, first = loop.run(begin())
    assert eventually(lambda: gate.entered)
    loop.run(call_in_vain())
    gate.open()
    assert loop.run(end()) == 1


@FORMATS
def test_they_call_a_hundred_times_at_once(
    serving: Server, loop: Loop, channel: Any, name: Name, theirs: type[RPC], format: type
) -> None:
    serving(named={name('echo'): echo}, dialects=[AioPikaRpc(format)])

    async def call() -> list[Any]:
        rpc = await theirs.create(channel)
        return await asyncio.gather(*(rpc.call(name('echo'), {'value': number}) for number in range(100)))

    assert loop.run(call()) == list(range(100))


def test_they_call_through_an_exchange(serving: Server, loop: Loop, channel: Any, name: Name) -> None:
    serving(named={name('echo'): echo}, dialects=[AioPikaRpc(exchange=name('exchange'))])

    async def call() -> Any:
        rpc = await RPC.create(channel, exchange=name('exchange'))
        return await rpc.call(name('echo'), {'value': 1})

    assert loop.run(call()) == 1


def test_a_pickle_of_theirs_runs_nothing(serving: Server, loop: Loop, channel: Any, name: Name, tmp_path: Any) -> None:
    marker = tmp_path / 'marker'
    serving(named={name('echo'): lambda value: repr(value)}, dialects=[AioPikaRpc()])

    class Bomb:
        def __reduce__(self) -> Any:
            import os

            return os.system, (f'touch {marker}',)

    async def call() -> Any:
        rpc = await RPC.create(channel)
        return await rpc.call(name('echo'), {'value': Bomb()})

    assert 'system' in loop.run(call())
    assert not marker.exists()


# -- amphora calls -----------------------------------------------------------------------------------------------------


def register(loop: Loop, channel: Any, theirs: type[RPC], name: str, function: Any, **options: Any) -> None:
    async def start() -> None:
        rpc = await theirs.create(channel, **options)
        await rpc.register(name, function, auto_delete=True)

    loop.run(start())


async def echo_there(*, value: Any) -> Any:
    return value


async def fail_there(*, value: Any) -> Any:
    raise ValueError('no', value)


@FORMATS
def test_their_results_are_got(
    client: Client, loop: Loop, channel: Any, name: Name, theirs: type[RPC], format: type
) -> None:
    register(loop, channel, theirs, name('echo'), echo_there)
    calling = client(dialect=AioPikaRpc(format))

    got = [calling.call(function_name=name('echo'))(value=value) for value in VALUES[format]]

    assert got == VALUES[format]


@FORMATS
def test_their_errors_are_got(
    client: Client, loop: Loop, channel: Any, name: Name, theirs: type[RPC], format: type
) -> None:
    register(loop, channel, theirs, name('fail'), fail_there)

    with pytest.raises(RemoteException) as caught:
        client(dialect=AioPikaRpc(format)).call(function_name=name('fail'))(value=3)

    assert caught.value.error_type == 'ValueError'
    assert list(caught.value.args) == ['no', 3]


def test_a_function_that_is_not_there_is_unroutable(client: Client, name: Name) -> None:
    with pytest.raises(Unroutable):
        client(dialect=AioPikaRpc()).call(function_name=name('missing'))()


def test_a_request_that_expires_at_theirs_has_no_result(client: Client, loop: Loop, channel: Any, name: Name) -> None:
    async def wait() -> None:
        await asyncio.sleep(60)

    async def take_one_at_a_time() -> None:
        await channel.set_qos(prefetch_count=1)

    loop.run(take_one_at_a_time())
    register(loop, channel, RPC, name('wait'), wait)
    calling = client(dialect=AioPikaRpc())
    first = calling.defer(function_name=name('wait'), timeout=2)()

    with pytest.raises(NoResult):
        calling.call(function_name=name('wait'), timeout=0.3)()

    assert not first.ready()


@pytest.mark.parametrize('format', [Pickle, Json])
def test_a_caller_is_told_that_its_request_was_rejected(
    serving: Server, client: Client, name: Name, format: type
) -> None:
    # Beside the answer the request itself comes back, as their queues have it.
    def refuse() -> None:
        raise RejectRequest('too old')

    serving(named={name('refuse'): refuse}, dialects=[AioPikaRpc(format)])

    for _ in range(5):
        with pytest.raises(RemoteException) as caught:
            client(dialect=AioPikaRpc(format)).call(function_name=name('refuse'))()
        assert 'RejectRequest' in str(caught.value)
        assert 'too old' in str(caught.value)


def test_only_keyword_arguments_can_be_sent(client: Client) -> None:
    with pytest.raises(TypeError, match='keyword'):
        client(dialect=AioPikaRpc()).call.echo(1)


@FORMATS
def test_they_are_called_a_hundred_times_at_once(
    client: Client, loop: Loop, channel: Any, name: Name, theirs: type[RPC], format: type
) -> None:
    register(loop, channel, theirs, name('echo'), echo_there)
    calling = client(dialect=AioPikaRpc(format))

    results = [calling.defer(function_name=name('echo'))(value=number) for number in range(100)]

    assert [result.get() for result in results] == list(range(100))


def test_they_are_called_through_an_exchange(client: Client, loop: Loop, channel: Any, name: Name) -> None:
    register(loop, channel, RPC, name('echo'), echo_there, exchange=name('exchange'))

    assert client(dialect=AioPikaRpc(exchange=name('exchange'))).call(function_name=name('echo'))(value=1) == 1


# -- tasks -------------------------------------------------------------------------------------------------------------

MASTERS = pytest.mark.parametrize(
    ('theirs', 'format'), [(Master, Pickle), (JsonMaster, Json), (CompressedJsonMaster, GzipJson)]
)


@MASTERS
def test_their_tasks_are_worked_on(
    serving: Server, loop: Loop, channel: Any, name: Name, theirs: type[Master], format: type
) -> None:
    done: list[Any] = []
    serving(named={name('task'): lambda task_id: done.append(task_id)}, dialects=[AioPikaMaster(format)])

    async def create() -> None:
        master = theirs(channel)
        for task_id in range(100):
            await master.create_task(name('task'), kwargs={'task_id': task_id})

    loop.run(create())
    assert eventually(lambda: len(done) == 100)
    assert sorted(done) == list(range(100))


@MASTERS
def test_their_workers_get_tasks(
    client: Client, loop: Loop, channel: Any, name: Name, theirs: type[Master], format: type
) -> None:
    done: list[Any] = []

    async def work(*, task_id: Any) -> None:
        if task_id == 'bad':
            raise RejectMessage(requeue=False)
        done.append(task_id)

    async def start() -> None:
        await theirs(channel).create_worker(name('task'), work, auto_delete=True)

    loop.run(start())
    calling = client(dialect=AioPikaMaster(format))

    for task_id in ('bad', 'grüße', *range(20)):
        calling.cast(function_name=name('task'))(task_id=task_id)

    assert eventually(lambda: len(done) == 21)
    assert set(done) == {'grüße', *range(20)}


def test_nobody_answers_a_task(client: Client) -> None:
    with pytest.raises(TypeError, match='cast'):
        client(dialect=AioPikaMaster()).call.task()


def test_a_task_that_fails_goes_where_its_queue_says(serving: Server, loop: Loop, channel: Any, name: Name) -> None:
    async def declare() -> Any:
        dead = await channel.declare_queue(name('dead'), auto_delete=False)
        arguments = {'x-dead-letter-exchange': '', 'x-dead-letter-routing-key': name('dead')}
        await channel.declare_queue(name('fail'), arguments=arguments)
        return dead

    dead = loop.run(declare())
    serving(named={name('fail'): fail}, dialects=[AioPikaMaster(Json)])

    async def create() -> None:
        await JsonMaster(channel).create_task(name('fail'), kwargs={'value': 1})

    loop.run(create())

    async def get() -> bytes:
        while (message := await dead.get(fail=False)) is None:
            await asyncio.sleep(0.05)
        await message.ack()
        return message.body

    assert json.loads(loop.run(get())) == {'value': 1}


def test_a_compressed_task_is_read_within_a_limit(serving: Server, loop: Loop, channel: Any, name: Name) -> None:
    done: list[Any] = []
    serving(named={name('task'): lambda value: done.append(value)}, dialects=[AioPikaMaster(GzipJson)])
    huge = gzip.compress(b'{"value": "' + bytes(200_000_000) + b'"}')

    async def publish() -> None:
        await channel.default_exchange.publish(aio_pika.Message(huge), name('task'))
        await CompressedJsonMaster(channel).create_task(name('task'), kwargs={'value': 'small'})

    loop.run(publish())
    assert eventually(lambda: done)
    gevent.sleep(0)
    assert done == ['small']
