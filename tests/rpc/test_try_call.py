"""`try_call`: what became of a call, as a value; and clients and servers as context managers."""

import gevent
import pytest

from amphora import (
    AmqpRpcClient,
    AmqpRpcServer,
    NoResult,
    Outcome,
    RemoteException,
    Unroutable,
    WrongRequest,
)
from tests.parties import Client, Gate, Server


def add(x: int, y: int) -> int:
    return x + y


def fail() -> None:
    raise ValueError('no')


def nothing() -> None:
    return None


def test_a_call_that_goes_well_is_ok(serving: Server, client: Client) -> None:
    serving(add)

    outcome = client().try_call.add(2, 3)

    assert (outcome.ok, outcome.value, outcome.error) == (True, 5, None)
    assert outcome


def test_it_unpacks(serving: Server, client: Client) -> None:
    serving(add, fail)
    calling = client()

    ok, value = calling.try_call.add(2, 3)
    assert (ok, value) == (True, 5)
    ok, error = calling.try_call.fail()
    assert not ok
    assert isinstance(error, RemoteException)


def test_none_is_a_value_like_any_other(serving: Server, client: Client) -> None:
    serving(nothing)

    outcome = client().try_call.nothing()

    assert outcome.ok
    assert outcome.value is None


def test_what_goes_wrong_is_not_raised(serving: Server, client: Client, gate: Gate) -> None:
    serving(add, fail, gate.function())
    attempt = client().try_call

    assert attempt.fail().error.error_type == 'ValueError'
    assert isinstance(attempt.missing().error, WrongRequest)
    assert isinstance(attempt(routing_key='nowhere').add(1, 2).error, Unroutable)
    assert isinstance(attempt(timeout=0.2).wait().error, NoResult)
    assert isinstance(attempt.add(object(), 1).error, TypeError)
    assert attempt.fail().value is None
    assert not attempt.fail()


def test_a_timeout_from_outside_goes_through(serving: Server, client: Client, gate: Gate) -> None:
    serving(gate.function())

    with pytest.raises(gevent.Timeout), gevent.Timeout(0.2):
        client().try_call.wait()


def test_outcomes_compare() -> None:
    assert Outcome(1) == Outcome(1) != Outcome(2)


def test_clients_and_servers_are_context_managers(amqp_url: str, service: str) -> None:
    server = AmqpRpcServer(service, amqp_url=amqp_url)
    server.add_function(add)

    with server as entered, AmqpRpcClient(service, amqp_url=amqp_url, autostart=False) as client:
        assert entered is server
        assert client.call.add(2, 3) == 5

    with AmqpRpcClient(service, amqp_url=amqp_url) as late, pytest.raises(NoResult):
        late.call(timeout=0.3).add(2, 3)
