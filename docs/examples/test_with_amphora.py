"""Tests of functions that are called over a broker; ``pytest test_with_amphora.py`` runs them."""

import pytest
from gevent.event import Event

from amphora import NoResult, RemoteException
from amphora.testing import running_broker, running_server


def divide(x, y):
    return x / y


def test_a_call_returns_what_the_function_returns():
    with running_server([divide]) as client:
        assert client.call.divide(64, 16) == 4.0


def test_what_a_function_raises_reaches_the_caller():
    with running_server({'div': divide}) as client, pytest.raises(RemoteException) as caught:
        client.call.div(1, 0)

    assert caught.value.error_type == 'ZeroDivisionError'


def test_a_call_that_takes_too_long_ends_at_its_timeout():
    with running_server({'never': Event().wait}) as client, pytest.raises(NoResult):
        client.call(timeout=0.1).never()


# fault
def test_a_call_survives_a_broker_that_is_away():
    with running_broker() as broker, running_server([divide], broker=broker) as client:
        broker.refuse()
        broker.drop_connections()
        result = client.defer.divide(10, 4)
        broker.accept()

        assert result.get() == 2.5


# fixture
def test_with_a_fixture(amphora_broker):
    with running_server([divide], service='maths', broker=amphora_broker) as client:
        assert client.call.divide(9, 3) == 3.0

        assert amphora_broker.queues()['rpc_maths_request'].consumers == 1
