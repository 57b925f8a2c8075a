"""RabiBridge, the real one, in conversation with amphora: each side calls the other."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import aio_pika
import pytest
import rabibridge
from gevent.event import Event
from rabibridge import RMQClient, RMQServer, register_call
from rabibridge.serialisation import get_serialisation_handler

from amphora import NoResult, RemoteException, Unroutable
from amphora.dialects import Json, MsgPack, Pickle, RabiBridge
from tests.parties import Client, Server
from tests.peers.loops import Loop

Name = Callable[[str], str]

# It prints a line for each step of each call otherwise.
rabibridge.logger.remove()

VALUES = ['grüße 😀', {'a': [1, 2.5, None]}, 'x' * 5000]
BINARY = b'\xff\x00\x80'


@pytest.fixture(params=[('msgpack', MsgPack), ('json', Json), ('pickle', Pickle)], ids=lambda pair: pair[0])
def format(request: pytest.FixtureRequest) -> Iterator[type]:
    """The format that all sides are configured for. RabiBridge reads its own configuration once, when it is imported,
    from a file beside its package: so what it would have made of that is put in its place."""
    name, ours = request.param
    mq = rabibridge.mq
    mq.CID_MAX, mq.COMPRESS_THRESHOLD = 1 << 30, 1024
    before = mq.serialisation_dumps, mq.serialisation_loads
    mq.serialisation_dumps, mq.serialisation_loads = get_serialisation_handler(name)
    yield ours
    mq.serialisation_dumps, mq.serialisation_loads = before


@pytest.fixture
def dialect(format: type) -> RabiBridge:
    return RabiBridge(format, compress_threshold=1024)


def values(format: type) -> list[Any]:
    return VALUES if format is Json else [*VALUES, BINARY]


def place(url: str) -> dict[str, Any]:
    parts = urlsplit(url)
    return {'host': parts.hostname, 'port': parts.port, 'username': parts.username, 'password': parts.password}


def echo(value: Any) -> Any:
    return value


def fail(value: Any) -> Any:
    raise ValueError('no', value)


# -- they call ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def bridge(url: str, loop: Loop, format: type) -> Iterator[RMQClient]:
    async def connect() -> RMQClient:
        return await RMQClient(**place(url)).connect()

    made = loop.run(connect())
    yield made
    loop.run(made.close())


@pytest.mark.parametrize('kind', ['async', 'sync'])
def test_they_get_results(
    serving: Server, loop: Loop, bridge: RMQClient, name: Name, dialect: RabiBridge, format: type, kind: Any
) -> None:
    serving(named={name('echo'): echo}, dialects=[dialect])

    async def call() -> list[Any]:
        positional = [await bridge.remote_call(name('echo'), (value,), ftype=kind) for value in values(format)]
        return [*positional, await bridge.remote_call(name('echo'), kwargs={'value': 1}, ftype=kind)]

    assert loop.run(call()) == [*values(format), 1]


def test_they_get_errors(serving: Server, loop: Loop, bridge: RMQClient, name: Name, dialect: RabiBridge) -> None:
    serving(named={name('fail'): fail}, dialects=[dialect])

    async def call() -> None:
        with pytest.raises(rabibridge.RemoteExecutionError, match=r"ValueError: \('no', 3\)"):
            await bridge.remote_call(name('fail'), (3,))
        with pytest.raises(rabibridge.RemoteExecutionError, match='argument'):
            await bridge.remote_call(name('fail'), ())

    loop.run(call())


def test_they_hear_of_a_function_that_is_not_there(
    serving: Server, loop: Loop, bridge: RMQClient, name: Name, dialect: RabiBridge
) -> None:
    serving(named={name('echo'): echo}, dialects=[dialect])

    async def call() -> None:
        with pytest.raises(aio_pika.exceptions.DeliveryError):
            await bridge.remote_call(name('missing'))

    loop.run(call())


def test_they_wait_no_longer_than_they_said(
    serving: Server, loop: Loop, bridge: RMQClient, name: Name, dialect: RabiBridge
) -> None:
    leave = Event()
    serving(named={name('wait'): leave.wait}, dialects=[dialect])

    async def call() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await bridge.remote_call(name('wait'), timeout=0.2)

    loop.run(call())
    leave.set()


def test_they_call_a_hundred_times_at_once(
    serving: Server, loop: Loop, bridge: RMQClient, name: Name, dialect: RabiBridge
) -> None:
    serving(named={name('echo'): echo}, dialects=[dialect])

    async def call() -> list[Any]:
        return await asyncio.gather(*(bridge.remote_call(name('echo'), (number,)) for number in range(100)))

    assert loop.run(call()) == list(range(100))


# -- amphora calls -----------------------------------------------------------------------------------------------------


async def echo_there(value: Any) -> Any:
    return value


async def wait_there() -> None:
    await asyncio.sleep(60)


@pytest.fixture
def bridge_serves(url: str, loop: Loop, format: type) -> Iterator[Callable[..., None]]:
    """Starts a server of theirs with functions by name."""
    servers: list[tuple[RMQServer, asyncio.Future[None]]] = []

    def serve(**functions: Any) -> None:
        async def start() -> None:
            server = RMQServer(**place(url))
            marked = {name: register_call(timeout=60)(function) for name, function in functions.items()}
            for function in marked.values():
                function.__module__ = '__main__'  # it takes the functions of scripts only
            server.load_services(marked)
            await server.connect()
            servers.append((server, asyncio.ensure_future(server.run_serve())))

        loop.run(start())

    yield serve
    for server, _ in servers:
        loop.run(server.close())


def test_their_results_are_got(
    client: Client, name: Name, dialect: RabiBridge, format: type, bridge_serves: Callable[..., None]
) -> None:
    bridge_serves(**{name('echo'): echo_there})
    call = client(dialect=dialect).call(function_name=name('echo'))

    assert [call(value) for value in values(format)] == values(format)
    assert call(value=1) == 1


def test_the_kind_says_which_of_two_queues(
    client: Client, name: Name, dialect: RabiBridge, format: type, bridge_serves: Callable[..., None]
) -> None:
    bridge_serves(**{name('echo'): echo_there})

    with pytest.raises(Unroutable):
        client(dialect=RabiBridge(format, kind='sync')).call(function_name=name('echo'))(1)


def test_a_function_that_is_not_there_is_unroutable(client: Client, name: Name, dialect: RabiBridge) -> None:
    with pytest.raises(Unroutable):
        client(dialect=dialect).call(function_name=name('missing'))()


def test_what_they_do_not_answer_in_time_has_no_result(
    client: Client, name: Name, dialect: RabiBridge, bridge_serves: Callable[..., None]
) -> None:
    bridge_serves(**{name('wait'): wait_there})

    with pytest.raises(NoResult):
        client(dialect=dialect).call(function_name=name('wait'), timeout=0.3)()


def test_they_are_called_a_hundred_times_at_once(
    client: Client, name: Name, dialect: RabiBridge, bridge_serves: Callable[..., None]
) -> None:
    bridge_serves(**{name('echo'): echo_there})
    calling = client(dialect=dialect)

    results = [calling.defer(function_name=name('echo'))(number) for number in range(100)]

    assert [result.get() for result in results] == list(range(100))


@pytest.mark.parametrize(
    'text', ['no', 'no: never', 'two\nlines', 'why:\nWrongRequest: because', '\n', '  indented\n  lines', '\ud800']
)
def test_an_error_is_got_whatever_its_text(
    serving: Server, client: Client, name: Name, dialect: RabiBridge, text: str
) -> None:
    def fail_in_words() -> None:
        raise ValueError(text)

    serving(named={name('fail'): fail_in_words}, dialects=[dialect])

    with pytest.raises(RemoteException) as caught:
        client(dialect=dialect).call(function_name=name('fail'))()

    assert caught.value.error_type == 'ValueError'
    assert caught.value.args[0] == text.replace('\ud800', '\\ud800')


def test_an_error_that_led_to_another_is_not_the_one(
    serving: Server, client: Client, name: Name, dialect: RabiBridge
) -> None:
    def fail_twice() -> None:
        try:
            raise ValueError('first')
        except ValueError as error:
            raise LookupError('second') from error

    serving(named={name('fail'): fail_twice}, dialects=[dialect])

    with pytest.raises(RemoteException) as caught:
        client(dialect=dialect).call(function_name=name('fail'))()

    assert (caught.value.error_type, caught.value.args[0]) == ('LookupError', 'second')


def test_an_error_of_theirs_is_got_as_its_traceback_tells(
    client: Client, name: Name, dialect: RabiBridge, url: str, loop: Loop
) -> None:
    # By hand, as the package says it: the server of its release 0.1.2 stumbles over its own words and answers nothing.
    async def serve() -> Any:
        connection = await aio_pika.connect(url)
        channel = await connection.channel()
        exchange = await channel.declare_exchange('rpc', aio_pika.ExchangeType.DIRECT, durable=True)
        queue = await channel.declare_queue(name('q'), auto_delete=True)
        await queue.bind(exchange, f'async_{name("fail")}')

        async def answer(message: Any) -> None:
            try:
                raise ValueError('no')
            except ValueError as error:
                told = rabibridge.mq.trace_exception(error)
            body = rabibridge.mq.serialisation_dumps([1, told])
            reply = aio_pika.Message(body, correlation_id=message.correlation_id)
            await channel.default_exchange.publish(reply, message.reply_to)

        await queue.consume(answer, no_ack=True)
        return connection

    connection = loop.run(serve())
    with pytest.raises(RemoteException) as caught:
        client(dialect=dialect).call(function_name=name('fail'))()
    loop.run(connection.close())

    assert caught.value.error_type == 'ValueError'
    assert caught.value.args[0] == 'no'
    assert 'Traceback' in caught.value.args[1]
