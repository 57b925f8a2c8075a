"""`tune_function`: routing keys made from the arguments of a call."""

from __future__ import annotations

from typing import Any

import pytest

from amphora import AmqpRpcClient, WrongRequest
from tests.parties import Client, Server
from tests.rpc.peer import Peer, body_of


def test_the_tuning_function_chooses_the_routing_key(
    calling: AmqpRpcClient, peer: Peer, label: str, queue: str
) -> None:
    def calculate(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, str]:
        user = kwargs['user']
        return {'queue': user, 'routing_key': user}

    calling.tune_function('show_message')(calculate)
    calling.defer.show_message('Hello!', user=label)

    assert body_of(peer.take(queue)) == {'func': 'show_message', 'args': ['Hello!'], 'kwargs': {'user': label}}


def test_it_decorates(calling: AmqpRpcClient, peer: Peer, label: str, queue: str) -> None:
    @calling.tune_function('show_message')
    def calculate(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, str]:
        return {'routing_key': label}

    calling.defer.show_message()

    assert body_of(peer.take(queue))['func'] == 'show_message'
    assert calculate((), {}) == {'routing_key': label}


def test_it_is_given_the_arguments_as_a_tuple_and_a_dict(calling: AmqpRpcClient, label: str) -> None:
    given = []

    @calling.tune_function('show_message')
    def calculate(*parameters: Any) -> dict[str, str]:
        given.append(parameters)
        return {'routing_key': label}

    calling.defer.show_message('Hello!', 2, user_id=12345)

    assert given == [(('Hello!', 2), {'user_id': 12345})]
    assert [type(parameter) for parameter in given[0]] == [tuple, dict]


def test_the_key_queue_is_ignored(calling: AmqpRpcClient, peer: Peer, label: str, queue: str) -> None:
    calling.tune_function('show_message')(lambda args, kwargs: {'queue': 'nowhere', 'routing_key': label})

    calling.defer.show_message()

    assert body_of(peer.take(queue))['func'] == 'show_message'


def test_calls_that_wait_are_tuned_as_well(calling: AmqpRpcClient, server: Server, label: str) -> None:
    server(named={'who': lambda: 'tuned'}).receive_from_queue(label, block=False)
    calling.create_new_request_queue(f'{label}-unserved')
    calling.tune_function('who')(lambda args, kwargs: {'routing_key': label})

    assert calling.call.who() == 'tuned'


def test_names_with_dots_can_be_tuned(calling: AmqpRpcClient, peer: Peer, label: str, queue: str) -> None:
    calling.tune_function('send.sms')(lambda args, kwargs: {'routing_key': label})

    calling.defer.send.sms()
    calling.defer(function_name='send.sms')()

    assert [body_of(peer.take(queue))['func'] for _ in range(2)] == ['send.sms'] * 2


def test_other_functions_go_where_they_went(calling: AmqpRpcClient, peer: Peer, label: str, queue: str) -> None:
    calling.tune_function('tuned')(lambda args, kwargs: {'routing_key': label})

    calling.defer(wait_publish=True).plain()

    assert body_of(peer.take())['func'] == 'plain'
    assert peer.ready(queue) == 0


def test_a_calls_own_routing_key_goes_first(calling: AmqpRpcClient, peer: Peer, label: str, queue: str) -> None:
    calling.create_new_request_queue(f'{label}-own')
    calling.tune_function('show_message')(lambda args, kwargs: {'routing_key': label})

    calling.defer(routing_key=f'{label}-own', wait_publish=True).show_message()

    assert body_of(peer.take(f'rpc_{label}-own_request'))['func'] == 'show_message'
    assert peer.ready(queue) == 0


def test_what_the_tuning_function_raises_reaches_the_caller_and_nothing_is_sent(
    calling: AmqpRpcClient, server: Server
) -> None:
    run = []
    server(named={'remember': run.append})

    @calling.tune_function('remember')
    def calculate(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, str]:
        raise LookupError('no such user')

    with pytest.raises(LookupError, match='no such user'):
        calling.call.remember('lost')
    with pytest.raises(WrongRequest):
        calling.call.missing()
    assert run == []


def test_clients_are_tuned_each_for_itself(calling: AmqpRpcClient, client: Client, peer: Peer, label: str) -> None:
    calling.tune_function('show_message')(lambda args, kwargs: {'routing_key': label})

    client().defer(wait_publish=True).show_message()

    assert body_of(peer.take())['func'] == 'show_message'
