"""Async functions: they run side by side, end when their time is over, and are the hub's business nowhere."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import gevent
import pytest
from gevent import subprocess

from amphora import IgnoreRequest, NoResult, RemoteException, WrongRequest
from amphora.coroutines import Coroutines
from amphora.dispatch import FunctionTable
from amphora.envelope import Request
from amphora.errors import AmphoraError
from amphora.testing import running_server
from amphora.time_limit import limited
from tests.parties import Client, Server
from tests.stopwatch import Stopwatch
from tests.waiting import AMPLE, eventually


class Recorder:
    """Async functions that note what happens to them."""

    def __init__(self) -> None:
        self.begun: list[Any] = []
        self.ended: list[str] = []

    async def wait(self, seconds: float, value: Any = None) -> Any:
        self.begun.append(value)
        try:
            await asyncio.sleep(seconds)
        except BaseException as error:
            self.ended.append(type(error).__name__)
            raise
        self.ended.append('returned')
        return value

    async def stubborn(self, seconds: float) -> str:
        """Takes its time to tidy up, and returns none the less."""
        self.begun.append(seconds)
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(seconds)
        self.ended.append('tidy')
        return 'tidy'


@pytest.fixture
def coroutines() -> Iterator[Coroutines]:
    """Without a server; it leaves the event loop with the test, as servers do that are stopped."""
    made = Coroutines()
    yield made
    made.close()


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


async def add(x: int, y: int = 1) -> int:
    """The sum."""
    await asyncio.sleep(0)
    return x + y


# -- results -----------------------------------------------------------------------------------------------------------


def test_an_async_function_is_called_as_any_other(server: Server, client: Client) -> None:
    server(add)
    calling = client()

    assert calling.call.add(2, 3) == 5
    assert calling.call.add(2, y=4) == 6
    assert calling.defer.add(2).get(timeout=5) == 3


def test_a_hundred_calls_wait_side_by_side(server: Server, client: Client, recorder: Recorder) -> None:
    server(recorder.wait)
    calling = client()
    calling.call.wait(0)
    watch = Stopwatch()

    results = [calling.defer.wait(0.5, number) for number in range(100)]

    assert [result.get(timeout=10) for result in results] == list(range(100))
    assert watch.seconds < 2


def test_the_hub_goes_on_while_a_coroutine_runs(server: Server, client: Client, recorder: Recorder) -> None:
    server(recorder.wait, named={'plain': lambda: 'plain'})
    calling = client()
    waiting = calling.defer.wait(0.5, 'waited')
    eventually(lambda: recorder.begun)

    assert calling.call.plain() == 'plain'
    assert not waiting.ready()
    assert waiting.get(timeout=5) == 'waited'


def test_the_coroutines_of_all_servers_run_in_one_thread_that_is_not_the_hubs(
    server: Server, client: Client, service: str
) -> None:
    async def thread() -> int:
        return threading.get_ident()

    server(thread)
    server(thread, service=f'{service}-other')
    callings = [client(), client(service=f'{service}-other')]

    idents = {calling.call.thread() for calling in callings for _ in range(3)}
    assert len(idents) == 1
    assert threading.get_ident() not in idents


def test_no_more_coroutines_run_than_the_prefetch_allows(server: Server, client: Client, recorder: Recorder) -> None:
    server(recorder.wait, prefetch=3)
    calling = client()

    results = [calling.defer.wait(0.3, number) for number in range(6)]
    eventually(lambda: len(recorder.begun) == 3)

    assert recorder.ended == []
    assert sorted(result.get(timeout=5) for result in results) == list(range(6))


# -- exceptions --------------------------------------------------------------------------------------------------------


def test_what_a_coroutine_raises_reaches_the_caller_and_the_log(
    server: Server, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail() -> None:
        await asyncio.sleep(0)
        raise ValueError('wrong', 5)

    server(fail)

    with caplog.at_level(logging.WARNING, 'amphora'), pytest.raises(RemoteException) as caught:
        client().call.fail()

    assert (caught.value.error_type, caught.value.args) == ('ValueError', ('wrong', 5))
    assert "raise ValueError('wrong', 5)" in caplog.text


@pytest.mark.parametrize(
    'error', [SystemExit, asyncio.CancelledError, gevent.GreenletExit], ids=lambda each: each.__name__
)
def test_what_is_no_exception_ends_the_call_and_nothing_else(
    server: Server, client: Client, error: type[BaseException]
) -> None:
    async def fail() -> None:
        raise error('ended')

    server(fail, add)
    calling = client()

    with pytest.raises(RemoteException, match=error.__name__):
        calling.call.fail()
    assert calling.call.add(2, 3) == 5


def test_arguments_that_the_coroutine_does_not_take_are_its_own_error(server: Server, client: Client) -> None:
    server(add)

    with pytest.raises(RemoteException, match='TypeError'):
        client().call.add()


def test_an_async_function_is_validated_as_any_other(server: Server, client: Client) -> None:
    server().add_function(add, validate=True)

    with pytest.raises(WrongRequest, match="add: argument 'x'"):
        client().call.add('two')


def test_a_coroutine_may_leave_its_request_to_another_server(server: Server, client: Client) -> None:
    ignored = []

    async def answer() -> str:
        ignored.append(True)
        raise IgnoreRequest

    server(answer)
    result = client().defer.answer()
    eventually(lambda: ignored)
    server(named={'answer': lambda: 'answered'})

    assert result.get(timeout=8) == 'answered'


def test_an_async_generator_cannot_be_added(server: Server) -> None:
    async def generate() -> Any:
        yield 1

    with pytest.raises(TypeError, match='async generator'):
        server(serve=False).add_function(generate)


def test_a_keyboard_interrupt_is_the_programs(coroutines: Coroutines) -> None:
    async def interrupt() -> None:
        raise KeyboardInterrupt

    table = FunctionTable(limited, coroutines.awaited)
    table.add(interrupt, 'interrupt')

    with pytest.raises(KeyboardInterrupt):
        table.invoke(Request('id', 'interrupt', (), {}))


# -- contexts ----------------------------------------------------------------------------------------------------------


def test_context_variables_are_each_calls_own(server: Server, client: Client) -> None:
    variable = contextvars.ContextVar('variable', default='unset')

    async def swap(value: str) -> str:
        before = variable.get()
        variable.set(value)
        await asyncio.sleep(0.01)
        return f'{before}, then {variable.get()}'

    server(swap)
    calling = client()
    results = [calling.defer.swap(str(number)) for number in range(20)]

    assert [result.get(timeout=5) for result in results] == [f'unset, then {number}' for number in range(20)]
    assert variable.get() == 'unset'


def test_a_coroutine_sees_the_context_of_its_greenlet(coroutines: Coroutines) -> None:
    variable = contextvars.ContextVar('variable', default='unset')

    async def look() -> str:
        return variable.get()

    call = coroutines.awaited(look, 'look')
    variable.set('set')

    assert call() == 'set'


# -- ends --------------------------------------------------------------------------------------------------------------


def test_a_coroutine_is_cancelled_when_its_time_is_over(server: Server, client: Client, recorder: Recorder) -> None:
    server().add_function(recorder.wait, timeout=0.2)
    calling = client()

    with pytest.raises(RemoteException) as caught:
        calling.call.wait(30)

    assert (caught.value.error_type, caught.value.args) == ('Timeout', ('it ran longer than 0.2 s',))
    assert recorder.ended == ['CancelledError']
    assert calling.call.wait(0, 'still here') == 'still here'


def test_a_coroutine_is_cancelled_when_nobody_waits_for_it_any_more(recorder: Recorder, coroutines: Coroutines) -> None:
    table = FunctionTable(limited, coroutines.awaited)
    table.add(recorder.wait, 'wait')
    table.add(lambda: gevent.sleep(0.1), 'plain')

    late = table.invoke(Request('id', 'wait', (30,), {}), time_left=0.05)
    in_time = table.invoke(Request('id', 'wait', (0, 'value'), {}), time_left=5)
    plain = table.invoke(Request('id', 'plain', (), {}), time_left=0.05)

    assert isinstance(late.error, RemoteException)
    assert late.error.error_type == 'Timeout'
    assert recorder.ended == ['CancelledError', 'returned']
    assert (in_time.value, in_time.error) == ('value', None)
    # Any other function goes on to its end.
    assert plain.error is None
    assert table.async_names == {'wait'}


def test_a_coroutine_is_cancelled_when_its_greenlet_is_killed(recorder: Recorder, coroutines: Coroutines) -> None:
    greenlet = gevent.spawn(coroutines.awaited(recorder.wait, 'wait'), 30)
    eventually(lambda: recorder.begun)

    greenlet.kill(timeout=5)

    assert recorder.ended == ['CancelledError']
    assert isinstance(greenlet.value, gevent.GreenletExit)


def test_a_coroutine_that_is_killed_before_it_has_begun_ends_too(recorder: Recorder, coroutines: Coroutines) -> None:
    call = coroutines.awaited(recorder.wait, 'wait')

    # At once: the timeout comes before the loop's first turn, or while it is in it.
    for _ in range(50):
        with pytest.raises(gevent.Timeout), gevent.Timeout(0):
            call(30)

    assert set(recorder.ended) <= {'CancelledError'}
    assert call(0, 'value') == 'value'


def test_what_a_cancelled_coroutine_returns_after_all_is_the_result(recorder: Recorder, coroutines: Coroutines) -> None:
    with gevent.Timeout(0.1):
        assert coroutines.awaited(recorder.stubborn, 'stubborn')(0.2) == 'tidy'


def test_a_coroutine_that_does_not_end_is_left_when_its_greenlet_is_killed_again(
    recorder: Recorder, caplog: pytest.LogCaptureFixture, coroutines: Coroutines
) -> None:
    greenlet = gevent.spawn(coroutines.awaited(recorder.stubborn, 'stubborn'), 0.5)
    eventually(lambda: recorder.begun)

    greenlet.kill(block=False)
    gevent.sleep(0)
    assert not greenlet.dead
    with caplog.at_level(logging.WARNING):
        greenlet.kill(timeout=0.2)

    assert greenlet.dead
    assert recorder.ended == []
    assert 'the coroutine of stubborn was cancelled and is not waited for' in caplog.text
    eventually(lambda: recorder.ended)


def test_stop_waits_for_coroutines_and_their_callers_get_the_answers(
    server: Server, client: Client, recorder: Recorder
) -> None:
    serving, calling = server(recorder.wait), client()
    results = [calling.defer.wait(0.5, number) for number in range(10)]
    eventually(lambda: len(recorder.begun) == 10)

    serving.stop()

    assert recorder.ended == ['returned'] * 10
    assert [result.get(timeout=5) for result in results] == list(range(10))


def test_a_stopped_server_runs_coroutines_again_when_it_serves_again(server: Server, client: Client) -> None:
    serving, calling = server(add), client()
    assert calling.call.add(2, 3) == 5

    serving.stop()
    serving.serve()

    assert calling.call.add(3, 4) == 7


def test_the_thread_ends_with_the_last_server_that_needs_it_and_what_is_left_in_it_too(
    server: Server, client: Client, service: str
) -> None:
    ended = []
    threads = []

    async def linger() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append('lingered')

    left = []

    async def leave() -> None:
        threads.append(threading.get_ident())
        left.append(asyncio.create_task(linger()))
        await asyncio.sleep(0)

    one, other = server(leave), server(add, service=f'{service}-other')
    calling = client(service=f'{service}-other')
    client().call.leave()
    calling.call.add(1)

    one.stop()
    assert calling.call.add(1) == 2
    assert ended == []
    other.stop()

    eventually(lambda: ended == ['lingered'])
    eventually(lambda: threads[0] not in sys._current_frames())


def test_a_task_left_behind_that_wants_the_program_to_exit_does_not_end_the_others(
    server: Server, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    tasks = []

    async def leave() -> str:
        async def end() -> None:
            sys.exit(3)

        tasks.append(asyncio.create_task(end()))
        await asyncio.sleep(0.1)
        return 'left'

    server(leave, add)
    calling = client()

    with caplog.at_level(logging.ERROR, 'amphora'):
        assert calling.call.leave() == 'left'
    assert 'would have ended the event loop' in caplog.text
    # Looked at, or asyncio would log it when the task is freed, which may be in the middle of anything.
    assert isinstance(tasks[0].exception(), SystemExit)
    assert calling.call.add(2, 3) == 5


def test_what_blocks_runs_in_threads_of_which_there_are_not_too_many(server: Server, client: Client) -> None:
    idents: set[int] = set()

    def block(number: int) -> int:
        idents.add(threading.get_ident())
        time.sleep(0.02)
        if number == 50:
            raise ValueError(number)
        return number

    async def in_threads(count: int) -> list[Any]:
        results = await asyncio.gather(
            *(asyncio.to_thread(block, number) for number in range(count)), return_exceptions=True
        )
        return [each if isinstance(each, int) else str(each) for each in results]

    server(in_threads)

    assert client().call.in_threads(100) == [*range(50), '50', *range(51, 100)]
    assert 1 < len(idents) <= 36
    assert threading.get_ident() not in idents


def test_a_coroutine_may_choose_other_threads_for_what_blocks(server: Server, client: Client) -> None:
    async def name() -> str:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1, 'chosen'))
        thread = await asyncio.to_thread(threading.current_thread)
        return thread.name

    server(name)

    assert client().call.name() == 'chosen_0'


def test_a_client_is_not_used_from_a_coroutine(server: Server, client: Client) -> None:
    calling = client()

    async def call() -> str:
        try:
            calling.call(timeout=1).call()
        except AmphoraError as error:
            return type(error).__name__
        return 'called'

    server(call)

    assert calling.call.call() == 'WrongThread'


def test_the_caller_of_a_coroutine_may_give_up(server: Server, client: Client, recorder: Recorder) -> None:
    server(recorder.wait)
    calling = client()

    with pytest.raises(NoResult):
        calling.call(timeout=AMPLE).wait(AMPLE + 0.3, 'late')

    eventually(lambda: recorder.ended)
    assert calling.call.wait(0, 'next') == 'next'


def test_a_coroutine_that_nobody_waits_for_any_more_is_cancelled(
    server: Server, client: Client, recorder: Recorder
) -> None:
    server(recorder.wait)

    with pytest.raises(NoResult):
        client().call(timeout=AMPLE).wait(30)

    assert eventually(lambda: recorder.ended) == ['CancelledError']


def test_running_server_runs_async_functions_and_ends_those_that_do_not_end(recorder: Recorder) -> None:
    with running_server([add, recorder.wait], stop_timeout=0.2) as client:
        assert client.call.add(2, 3) == 5
        client.defer.wait(30)
        eventually(lambda: recorder.begun)

    assert recorder.ended == ['CancelledError']


# -- what goes wrong ---------------------------------------------------------------------------------------------------


def test_the_log_names_the_coroutine_that_holds_up_all_others(
    server: Server, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    async def burn(seconds: float) -> None:
        time.sleep(seconds)

    server(add, named={'burn.down': burn})
    calling = client()

    burnt = calling.defer.burn.down(1.6)
    waiting = calling.defer.add(2, 3)
    burnt.get(timeout=10)
    assert waiting.get(timeout=10) == 5
    eventually(lambda: 'the event loop is free again after' in caplog.text)

    [held, free] = [record for record in caplog.records if record.name == 'amphora.watchdog']
    assert held.levelno == free.levelno == logging.WARNING
    assert held.message.startswith("function 'burn.down' (now in burn, line ")
    assert 'has held the event loop for 1.' in held.message
    assert held.message.endswith('and no other async function runs meanwhile')


# -- other programs ----------------------------------------------------------------------------------------------------


PROGRAM = """
{patch}
import asyncio, os, sys, threading
import gevent
from gevent import monkey
from amphora import AmqpRpcServer
from amphora.testing import running_broker
from amphora import AmqpRpcClient, AmqpRpcServer

async def wait(seconds, value):
    await asyncio.sleep(seconds)
    return value

async def block(value):
    # In a thread; and names are looked up in threads as well.
    assert await asyncio.get_running_loop().getaddrinfo('localhost', 80)
    await asyncio.get_running_loop().getnameinfo(('127.0.0.1', 80))
    return await asyncio.to_thread(len, 'x' * value)

async def talk(value):
    async def answer(reader, writer):
        writer.write(await reader.readline())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, '127.0.0.1', 0)
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b'%d\\n' % value)
        said = await reader.readline()
        writer.close()
        await writer.wait_closed()
    return int(said)

def serve(url):
    server = AmqpRpcServer('coroutines', amqp_url=url)
    for function in (wait, block, talk):
        server.add_function(function)
    server.serve()
    return server

def calls(url):
    client = AmqpRpcClient('coroutines', amqp_url=url, timeout=20)
    results = [client.defer.wait(0.3, number) for number in range(50)]
    assert [result.get() for result in results] == list(range(50))
    results = [client.defer.block(number) for number in range(50)]
    assert [result.get() for result in results] == list(range(50))
    assert [client.call.talk(number) for number in range(5)] == list(range(5))
    client.stop()
"""

CALLS = """
with running_broker() as broker:
    server = serve(broker.url)
    calls(broker.url)
    server.stop()
    server.serve()
    calls(broker.url)
    server.stop()
print('fine')
"""

# The child's loop is a new one, and the parent's goes on as if nothing had happened.
FORKS = """
url = sys.argv[1]
server = serve(url)
client = AmqpRpcClient('coroutines', amqp_url=url, timeout=20)
assert client.call.wait(0, 'before') == 'before'
waiting = client.defer.wait(1, 'through')
gevent.sleep(0.2)
child = os.fork()
if not child:
    try:
        gevent.reinit()
        table = server._functions
        from amphora.envelope import Request
        said = table.invoke(Request('id', 'wait', (0.1, 'in the child'), {}))
        os._exit(0 if said.value == 'in the child' else 1)
    except BaseException:
        import traceback
        traceback.print_exc()
    os._exit(2)
assert waiting.get(timeout=10) == 'through'
status = os.waitpid(child, 0)[1]
assert status == 0, status
assert client.call.wait(0, 'after') == 'after'
client.stop()
server.stop()
print('fine')
"""

PATCHES = [
    pytest.param('', id='nothing patched'),
    pytest.param('from gevent import monkey; monkey.patch_all()', id='everything patched'),
]


def run(program: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, '-W', 'error', '-c', program, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=50,
    )
    return done.stdout.decode()


@pytest.mark.parametrize('patch', PATCHES)
def test_coroutines_sleep_talk_and_block_in_programs_that_are_patched_and_in_those_that_are_not(patch: str) -> None:
    assert run(PROGRAM.format(patch=patch) + CALLS) == 'fine\n'


@pytest.mark.parametrize('patch', PATCHES)
def test_a_forked_child_has_an_event_loop_of_its_own_and_the_parents_goes_on(amqp_url: str, patch: str) -> None:
    assert run(PROGRAM.format(patch=patch) + FORKS, amqp_url) == 'fine\n'


def test_asyncio_is_not_imported_for_those_who_do_without(amqp_url: str) -> None:
    program = (
        'import sys, amphora\n'
        'server = amphora.AmqpRpcServer("plain")\n'
        'server.add_function(len)\n'
        'print("asyncio" in sys.modules)\n'
    )

    assert run(program) == 'False\n'


def test_the_program_ends_although_the_loop_runs() -> None:
    program = (
        'from amphora.coroutines import Coroutines\n'
        'async def f(): return "fine"\n'
        'print(Coroutines().awaited(f, "f")())\n'
    )

    assert run(program) == 'fine\n'
