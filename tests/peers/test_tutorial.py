"""The RPC of the tutorials, spoken by aioamqp, by pika and by amphora: each side calls the other."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pika
import pytest
from gevent import subprocess
from gevent.event import Event

from amphora import AmqpRpcServer, NoResult, RemoteException, Unroutable, WrongRequest
from amphora.dialects import Tutorial
from tests.parties import Client, Gate, Server

ROOT = Path(__file__).parent.parent.parent
PROGRAM = Path(__file__).parent / 'tutorial_aioamqp.py'
# `make` installs aioamqp there, apart from the environment of amphora.
AIOAMQP = ROOT / 'build' / 'aioamqp'

Name = Callable[[str], str]
Start = Callable[..., subprocess.Popen]


@pytest.fixture
def queue(name: Name) -> str:
    return name('rpc_queue')


@pytest.fixture
def aioamqp(url: str, queue: str) -> Iterator[Start]:
    """Starts the program that speaks through aioamqp."""
    running: list[subprocess.Popen] = []
    parts = urlsplit(url)

    def start(*args: str) -> subprocess.Popen:
        started = subprocess.Popen(
            [sys.executable, str(PROGRAM), parts.hostname, str(parts.port), queue, *args],
            env={**os.environ, 'PYTHONPATH': str(AIOAMQP)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        running.append(started)
        return started

    yield start
    for each in running:
        each.stdin.close()
        each.wait(timeout=10)
        each.stdout.close()


def ask(program: subprocess.Popen, bodies: list[bytes]) -> list[bytes]:
    """The answers to so many calls."""
    program.stdin.write(b''.join(body.hex().encode() + b'\n' for body in bodies))
    program.stdin.close()
    return [bytes.fromhex(line.decode()) for line in program.stdout.read().splitlines()]


def fib(n: Any) -> Any:
    return n if n < 2 else fib(n - 1) + fib(n - 2)


def echo(value: Any) -> Any:
    return value


def fail(value: Any) -> Any:
    raise ValueError('no %s' % value)


# -- they call ---------------------------------------------------------------------------------------------------------


def test_they_get_results(serving: Server, queue: str, aioamqp: Start) -> None:
    serving(fib, dialects=[Tutorial(queue, 'fib')])

    assert ask(aioamqp('call', '1', '15'), [b'4', b'10']) == [b'3', b'55']


def test_they_get_text_and_bytes_as_they_are(serving: Server, queue: str, aioamqp: Start) -> None:
    serving(echo, dialects=[Tutorial(queue, 'echo')])
    bodies = ['grüße 😀'.encode(), b'\xff\x00\x80', b'007', b'1.50', b'-3']

    assert ask(aioamqp('call', '1', '15'), bodies) == bodies


def test_they_are_told_of_errors_in_words(serving: Server, queue: str, aioamqp: Start) -> None:
    serving(fail, dialects=[Tutorial(queue, 'fail')])

    assert ask(aioamqp('call', '1', '15'), [b'4']) == [b'ValueError: no 4']


def test_they_wait_no_longer_than_they_said(serving: Server, queue: str, aioamqp: Start, gate: Gate) -> None:
    serving(gate.function(), dialects=[Tutorial(queue, 'wait')])

    assert ask(aioamqp('call', '1', '0.3'), [b'4']) == [b'']

    assert gate.entered == [4]


def test_they_call_a_hundred_times_at_once(serving: Server, queue: str, aioamqp: Start) -> None:
    serving(echo, dialects=[Tutorial(queue, 'echo')])
    bodies = [b'%d' % number for number in range(100)]

    assert ask(aioamqp('call', '100', '15'), bodies) == bodies


def test_a_queue_of_theirs_is_taken_as_it_is(
    serving: Server, queue: str, url: str, in_thread: Callable[..., Any]
) -> None:
    # RabbitMQ's present tutorial makes it durable.
    def call_through_pika() -> bytes:
        connection = pika.BlockingConnection(pika.URLParameters(url))
        channel = connection.channel()
        replies = channel.queue_declare('', exclusive=True).method.queue
        properties = pika.BasicProperties(reply_to=replies, correlation_id='1')
        channel.basic_publish('', queue, b'6', properties)
        for _, got, body in channel.consume(replies, auto_ack=True, inactivity_timeout=10):
            assert got.correlation_id == '1'
            connection.close()
            return body
        raise AssertionError('no answer')

    def declare_through_pika() -> None:
        connection = pika.BlockingConnection(pika.URLParameters(url))
        connection.channel().queue_declare(queue, durable=True)
        connection.close()

    in_thread(declare_through_pika)
    serving(fib, dialects=[Tutorial(queue, 'fib')])

    assert in_thread(call_through_pika) == b'8'


def test_a_request_without_a_correlation_id_is_answered_without_one(
    serving: Server, queue: str, url: str, in_thread: Callable[..., Any]
) -> None:
    serving(fib, dialects=[Tutorial(queue, 'fib')])

    def call_through_pika() -> tuple[Any, bytes]:
        connection = pika.BlockingConnection(pika.URLParameters(url))
        channel = connection.channel()
        replies = channel.queue_declare('', exclusive=True).method.queue
        channel.basic_publish('', queue, b'6', pika.BasicProperties(reply_to=replies))
        for _, got, body in channel.consume(replies, auto_ack=True, inactivity_timeout=10):
            connection.close()
            return got.correlation_id, body
        raise AssertionError('no answer')

    assert in_thread(call_through_pika) == (None, b'8')


def test_ids_that_are_used_again_are_no_repeats(
    serving: Server, queue: str, url: str, in_thread: Callable[..., Any]
) -> None:
    serving(fib, dialects=[Tutorial(queue, 'fib')])

    def call_through_pika() -> list[bytes]:
        connection = pika.BlockingConnection(pika.URLParameters(url))
        channel = connection.channel()
        replies = channel.queue_declare('', exclusive=True).method.queue
        answers = []
        for body in (b'6', b'7', b'8'):
            channel.basic_publish('', queue, body, pika.BasicProperties(reply_to=replies, correlation_id='same'))
            answers.append(next(channel.consume(replies, auto_ack=True, inactivity_timeout=10))[2])
        connection.close()
        return answers

    assert in_thread(call_through_pika) == [b'8', b'13', b'21']


# -- amphora calls -----------------------------------------------------------------------------------------------------


@pytest.fixture
def their_server(aioamqp: Start) -> subprocess.Popen:
    """Answers a number with the next one, other text and bytes with themselves, and ``wait`` never."""
    started = aioamqp('serve')
    assert started.stdout.readline() == b'ready\n'
    return started


def test_their_results_are_got(client: Client, queue: str, their_server: subprocess.Popen) -> None:
    calling = client(dialect=Tutorial(queue))

    assert calling.call.fib(4) == 5
    assert calling.call.echo('grüße 😀') == 'grüße 😀'


def test_bytes_of_theirs_stay_bytes(client: Client, queue: str, their_server: subprocess.Popen) -> None:
    assert client(dialect=Tutorial(queue)).call.echo(b'\xff\x00\x80') == b'\xff\x00\x80'


def test_what_they_do_not_answer_has_no_result(client: Client, queue: str, their_server: subprocess.Popen) -> None:
    with pytest.raises(NoResult):
        client(dialect=Tutorial(queue)).call(timeout=0.3).echo('wait')


def test_text_stays_text_when_that_is_wished(client: Client, queue: str, their_server: subprocess.Popen) -> None:
    assert client(dialect=Tutorial(queue, convert=str)).call.fib(4) == '5'


def test_they_are_called_a_hundred_times_at_once(client: Client, queue: str, their_server: subprocess.Popen) -> None:
    calling = client(dialect=Tutorial(queue))

    results = [calling.defer.fib(number) for number in range(100)]

    assert [result.get() for result in results] == list(range(1, 101))


def test_a_queue_that_is_not_there_is_unroutable(client: Client, queue: str) -> None:
    with pytest.raises(Unroutable):
        client(dialect=Tutorial(queue)).call.fib(4)


def test_the_service_names_the_queue_unless_told_otherwise(client: Client, service: str, serving: Server) -> None:
    serving(fib, dialects=[Tutorial(function='fib')])

    assert client(dialect=Tutorial()).call.fib(10) == 55


def test_between_two_amphoras_errors_have_their_type(client: Client, serving: Server, queue: str) -> None:
    serving(fail, dialects=[Tutorial(queue, 'fail')])

    with pytest.raises(RemoteException) as caught:
        client(dialect=Tutorial(queue)).call.fail(1)

    assert (caught.value.error_type, caught.value.args) == ('ValueError', ('no 1',))


def test_a_function_that_the_server_lacks_is_a_wrong_request(client: Client, serving: Server, queue: str) -> None:
    serving(fib, dialects=[Tutorial(queue, 'missing')])

    with pytest.raises(WrongRequest, match='missing'):
        client(dialect=Tutorial(queue)).call.fib(1)


def test_what_is_not_answered_in_time_has_no_result(client: Client, serving: Server, queue: str) -> None:
    leave = Event()
    serving(named={'wait': lambda _: leave.wait()}, dialects=[Tutorial(queue, 'wait')])

    with pytest.raises(NoResult):
        client(dialect=Tutorial(queue)).call(timeout=0.3).wait(1)

    leave.set()


@pytest.mark.parametrize(('args', 'kwargs'), [((), {}), ((1, 2), {}), ((), {'n': 1}), (([1],), {}), ((True,), {})])
def test_what_the_tutorial_cannot_say_is_a_type_error(
    client: Client, queue: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    with pytest.raises(TypeError):
        client(dialect=Tutorial(queue)).call.fib(*args, **kwargs)


def test_a_server_must_be_told_the_function() -> None:
    with pytest.raises(ValueError, match='function'):
        AmqpRpcServer('any', dialects=[Tutorial()])
