"""What a caller gets when the remote function raises or is missing, or the two sides do not understand each other."""

from __future__ import annotations

import threading
from typing import Any

import gevent
import pytest

import amphora
from amphora import AmphoraError, NoResult, RemoteException, WrongRequest, WrongResult
from tests.parties import Client, Server
from tests.rpc.peer import Peer


def divide(x: int, y: int) -> float:
    if x < 0:
        raise ValueError('x', x)
    elif y < 0:
        raise ValueError('y', y)
    else:
        return x / y


def outcome(client: Any, verb: str, name: str, *args: Any) -> Any:
    result = getattr(client, verb)(function_name=name)(*args)
    return result.get(timeout=5) if verb == 'defer' else result


@pytest.mark.parametrize('verb', ['call', 'defer'])
def test_a_remote_exception_has_the_class_name_and_the_arguments(server: Server, client: Client, verb: str) -> None:
    server(divide)
    calling = client()

    assert outcome(calling, verb, 'divide', 6, 3) == 2
    with pytest.raises(RemoteException) as caught:
        outcome(calling, verb, 'divide', -5, 5)
    assert caught.value.error_type == 'ValueError'
    assert caught.value.args == ('x', -5)
    with pytest.raises(RemoteException) as caught:
        outcome(calling, verb, 'divide', 5, -5)
    assert (caught.value.error_type, caught.value.args) == ('ValueError', ('y', -5))
    with pytest.raises(RemoteException) as caught:
        outcome(calling, verb, 'divide', 10, 0)
    assert caught.value.error_type == 'ZeroDivisionError'


def test_a_remote_exception_reads_well(server: Server, client: Client) -> None:
    server(divide)

    with pytest.raises(RemoteException, match=r'ValueError.*x.*-5'):
        client().call.divide(-5, 5)


def test_a_remote_exception_can_be_made_by_hand() -> None:
    error = RemoteException('ValueError', ('x', -5))

    assert (error.error_type, error.args) == ('ValueError', ('x', -5))


def test_an_exception_of_the_users_own_arrives_by_name(server: Server, client: Client) -> None:
    class OutOfStockError(Exception):
        pass

    def order() -> None:
        raise OutOfStockError({'item': 7}, [1, 2])

    server(order)

    with pytest.raises(RemoteException) as caught:
        client().call.order()
    assert (caught.value.error_type, caught.value.args) == ('OutOfStockError', ({'item': 7}, [1, 2]))


def test_an_exception_without_arguments_arrives(server: Server, client: Client) -> None:
    def fail() -> None:
        raise KeyError

    server(fail)

    with pytest.raises(RemoteException) as caught:
        client().call.fail()
    assert (caught.value.error_type, caught.value.args) == ('KeyError', ())


def test_arguments_of_an_exception_that_do_not_serialise_arrive_as_text(server: Server, client: Client) -> None:
    class Handle:
        def __repr__(self) -> str:
            return '<handle of door 7>'

    def fail() -> None:
        raise ValueError('cannot open', Handle(), threading.Lock())

    server(fail)

    with pytest.raises(RemoteException) as caught:
        client().call.fail()

    assert caught.value.error_type == 'ValueError'
    assert caught.value.args[0] == 'cannot open'
    assert 'handle of door 7' in str(caught.value.args[1])
    assert 'lock' in str(caught.value.args[2])


# What ends a function, and not its server.
NO_EXCEPTIONS = [SystemExit, GeneratorExit, gevent.Timeout, gevent.GreenletExit]


@pytest.mark.parametrize('kind', [RuntimeError, *NO_EXCEPTIONS])
def test_an_exception_whose_own_text_fails_arrives(server: Server, client: Client, kind: type[BaseException]) -> None:
    class HostileError(Exception):
        def __str__(self) -> str:
            raise kind

        __repr__ = __str__

    run = []

    def fail() -> None:
        run.append(1)
        raise HostileError(HostileError())

    server(fail, divide)
    calling = client()

    with pytest.raises(RemoteException) as caught:
        calling.call.fail()
    assert caught.value.error_type == 'HostileError'
    assert calling.call.divide(6, 3) == 2
    assert run == [1]


@pytest.mark.parametrize('kind', [RuntimeError, *NO_EXCEPTIONS])
def test_what_ends_the_serialisation_of_a_result_arrives(
    server: Server, client: Client, kind: type[BaseException]
) -> None:
    class Row(dict[str, object]):
        def items(self) -> Any:
            raise kind

    run = []

    def fail() -> Row:
        run.append(1)
        return Row(id=object())

    server(fail, divide)
    calling = client()

    with pytest.raises(RemoteException) as caught:
        calling.call.fail()
    assert caught.value.error_type == kind.__name__
    assert calling.call.divide(6, 3) == 2
    assert run == [1]


@pytest.mark.parametrize('kind', NO_EXCEPTIONS)
def test_even_what_is_no_exception_reaches_the_caller_and_the_server_goes_on(
    server: Server, client: Client, kind: type[BaseException]
) -> None:
    def fail() -> None:
        raise kind

    server(fail, divide)
    calling = client()

    with pytest.raises(RemoteException) as caught:
        calling.call(timeout=3).fail()
    assert caught.value.error_type == kind.__name__
    assert calling.call.divide(6, 3) == 2


@pytest.mark.parametrize('name', ['NoResult', 'WrongResult', 'RemoteException'])
def test_amphoras_own_exceptions_raised_by_a_function_are_remote_exceptions(
    server: Server, client: Client, name: str
) -> None:
    def fail() -> None:
        raise getattr(amphora, name)('inner', ())

    server(fail)

    with pytest.raises(RemoteException):
        client().call.fail()


def test_wrong_arguments_are_a_remote_type_error(server: Server, client: Client) -> None:
    server(divide)

    with pytest.raises(RemoteException) as caught:
        client().call.divide(1, 2, 3)
    assert caught.value.error_type == 'TypeError'
    assert 'divide' in caught.value.args[0]


@pytest.mark.parametrize('verb', ['call', 'defer'])
@pytest.mark.parametrize('name', ['missing', 'divide.missing', '__class__', ''.join(['x'] * 300)])
def test_an_unknown_function_is_a_wrong_request(server: Server, client: Client, verb: str, name: str) -> None:
    server(divide)

    with pytest.raises(WrongRequest):
        outcome(client(), verb, name, 1)


def test_an_unknown_function_is_named(server: Server, client: Client) -> None:
    server(divide)

    with pytest.raises(WrongRequest, match='subtract'):
        client().call.subtract(1)


@pytest.mark.parametrize('verb', ['call', 'defer'])
@pytest.mark.parametrize(
    'body',
    [
        b'',
        b'not JSON',
        b'\xff\xfe',
        b'null',
        b'[]',
        b'{}',
        b'{"resul": 1}',
        b'{"exception": null}',
        b'{"exception": {}}',
        b'{"exception": {"type": 1, "args": []}}',
        b'{"exception": {"type": "E", "args": 7}}',
        b'[' * 100_000,
    ],
)
def test_a_malformed_reply_is_a_wrong_result(client: Client, peer: Peer, verb: str, body: bytes) -> None:
    peer.declare_service()
    calling = client()
    result = calling.defer.add(2, 3) if verb == 'defer' else gevent.spawn(calling.call.add, 2, 3)

    peer.reply(peer.take(), body)

    with pytest.raises(WrongResult):
        result.get(timeout=5)


def test_a_malformed_reply_does_not_disturb_the_next_call(client: Client, peer: Peer) -> None:
    peer.declare_service()
    calling = client()
    first, second = calling.defer.add(2, 3), calling.defer.add(3, 4)

    peer.reply(peer.take(), b'not JSON')
    peer.reply(peer.take(), {'result': 7})

    with pytest.raises(WrongResult):
        first.get(timeout=5)
    assert second.get(timeout=5) == 7


def test_all_that_amphora_raises_has_one_base_except_what_functions_raise() -> None:
    errors = ('NoResult', 'NotSent', 'Unroutable', 'QueueFull', 'WrongRequest', 'WrongResult', 'RemoteException')
    for name in (*errors, 'BufferFull', 'WrongThread', 'AmqpError'):
        assert issubclass(getattr(amphora, name), AmphoraError)
    for name in ('NotSent', 'Unroutable', 'QueueFull'):
        assert issubclass(getattr(amphora, name), NoResult)
    assert not issubclass(amphora.IgnoreRequest, AmphoraError)


def test_a_wrong_request_of_the_functions_own_does_not_say_that_it_did_not_run(
    server: Server, client: Client, service: str
) -> None:
    server(service=service + '.inner')
    inner = client(service=service + '.inner')
    runs: list[bool] = []

    def outer() -> None:
        runs.append(True)
        inner.call.nothing()

    server(outer)

    with pytest.raises(RemoteException) as caught:
        client().call.outer()
    assert caught.value.error_type == 'NestedWrongRequest'
    assert caught.value.args == ("no function 'nothing' is registered",)
    assert runs == [True]
