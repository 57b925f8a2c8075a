"""What a server offers beside single functions, and how: objects, marked functions, plugins, options, validation."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import gevent
import msgspec
import pytest

import amphora
from amphora import AmqpRpcFanoutClient, AmqpRpcServer, RemoteException, RpcMsgPackSerializer, WrongRequest
from amphora.dialects import RabiBridge
from amphora.functions import FunctionOptions
from tests.parties import Client, Server
from tests.waiting import eventually


class Stock:
    """Of a shop."""

    def __init__(self) -> None:
        self.left = {'bolt': 10}

    def take(self, name: str, count: int = 1) -> int:
        """What is left."""
        self.left[name] -= count
        return self.left[name]

    @staticmethod
    def unit() -> str:
        return 'pieces'

    @amphora.function(name='give', validate=True)
    def put(self, name: str, count: int) -> int:
        self.left[name] += count
        return self.left[name]

    async def count(self, name: str) -> int:
        return self.left[name]


class Item(msgspec.Struct):
    name: str
    count: int = 1


@amphora.function(name='order.total', timeout=5, validate=True)
def total(items: list[Item]) -> int:
    return sum(item.count for item in items)


@amphora.function
def bare(x: int) -> int:
    return x


def unmarked() -> None: ...


# -- objects -----------------------------------------------------------------------------------------------------------


def test_the_methods_of_an_object_are_called_by_class_and_name(server: Server, client: Client) -> None:
    stock = Stock()
    names = server().add_object(stock)
    calling = client()

    assert sorted(names) == ['Stock.count', 'Stock.give', 'Stock.take', 'Stock.unit']
    assert calling.call.Stock.take('bolt', count=3) == 7
    assert calling.call.Stock.unit() == 'pieces'
    assert calling.call.Stock.give('bolt', 2) == 9
    assert calling.call.Stock.count('bolt') == stock.left['bolt'] == 9
    with pytest.raises(WrongRequest, match=r"Stock\.give: argument 'count'"):
        calling.call.Stock.give('bolt', 'two')


def test_two_objects_of_a_class_have_names_of_their_own(server: Server, client: Client) -> None:
    serving = server()
    serving.add_object(Stock(), 'north')
    serving.add_object(Stock(), name='south')
    calling = client()

    assert calling.call.north.take('bolt') == 9
    assert calling.call.south.take('bolt', 5) == 5


def test_an_object_that_offers_nothing_is_an_error(server: Server) -> None:
    with pytest.raises(ValueError, match='no public method'):
        server(serve=False).add_object(object())


# -- marked functions --------------------------------------------------------------------------------------------------


def test_only_marked_functions_are_loaded(server: Server, client: Client) -> None:
    names = server().load_functions(globals())
    calling = client()

    assert sorted(names) == ['bare', 'order.total']
    assert calling.call.order.total([{'name': 'bolt', 'count': 3}, {'name': 'nut'}]) == 4
    with pytest.raises(WrongRequest):
        calling.call.unmarked()


def test_a_namespace_without_marked_functions_is_an_error(server: Server) -> None:
    with pytest.raises(ValueError, match=r'marked with @amphora\.function'):
        server(serve=False).load_functions({'unmarked': unmarked})


def test_plugins_are_loaded_from_a_directory(server: Server, client: Client, tmp_path: Path) -> None:
    (tmp_path / 'plugin_math.py').write_text(
        'import amphora\n@amphora.function(name="twice")\ndef f(x): return 2 * x\n'
    )
    names = server().load_plugins(tmp_path)

    assert names == ['twice']
    assert client().call.twice(21) == 42


def test_nothing_is_added_when_a_plugin_is_wrong(server: Server, tmp_path: Path) -> None:
    (tmp_path / 'plugin_a.py').write_text('import amphora\n@amphora.function\ndef f(x): return 2 * x\n')
    (tmp_path / 'plugin_b.py').write_text('1 / 0')
    serving = server(serve=False)

    with pytest.raises(ImportError, match=r'plugin_b\.py'):
        serving.load_plugins(tmp_path)

    assert repr(serving).endswith('0 functions>')


def test_none_is_added_when_one_fails_in_a_way_of_its_own(server: Server) -> None:
    class Opaque:
        @property
        def __signature__(self) -> None:
            raise RuntimeError('no signature')

        def __call__(self) -> None: ...

    opaque = Opaque()
    opaque.__amphora_options__ = FunctionOptions(name='opaque', validate=True)
    serving = server(serve=False)

    with pytest.raises(RuntimeError, match='no signature'):
        serving.load_functions({'total': total, 'opaque': opaque})

    assert repr(serving).endswith('0 functions>')


# -- options -----------------------------------------------------------------------------------------------------------


def test_add_function_heeds_the_mark_and_goes_before_it(server: Server) -> None:
    serving = server(serve=False)
    serving.add_function(total)
    serving.add_function(total, name='quick', timeout=1, queue_size=5, validate=False)

    options = serving._functions.options
    assert options('order.total') == FunctionOptions(name='order.total', timeout=5, validate=True)
    assert options('quick') == FunctionOptions(name='order.total', timeout=1, queue_size=5)


def test_add_function_takes_options_in_each_of_its_forms(server: Server, client: Client) -> None:
    serving = server()

    @serving.add_function(validate=True)
    def one(x: int) -> int:
        return x

    @serving.add_function('two', validate=True)
    def other(x: int) -> int:
        return x

    serving.add_function(bare, 'three', validate=True)
    calling = client()

    for name in ('one', 'two', 'three'):
        with pytest.raises(WrongRequest, match=f"^{name}: argument 'x'"):
            calling.call(function_name=name)('text')
        assert calling.call(function_name=name)(5) == 5


@pytest.mark.parametrize(
    ('options', 'error'),
    [
        ({'timeout': -1}, ValueError),
        ({'validate': 1}, TypeError),
        ({'quick': True}, TypeError),
        ({'name': ['x']}, TypeError),
    ],
)
def test_a_wrong_option_is_an_error_when_the_function_is_added(
    server: Server, options: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error, match=next(iter(options))):
        server(serve=False).add_function(bare, **options)


def test_a_function_that_is_added_again_has_the_options_of_the_last_time(server: Server, client: Client) -> None:
    serving, calling = server(), client()
    serving.add_function(bare, validate=True)
    with pytest.raises(WrongRequest):
        calling.call.bare('text')

    serving.add_function(bare)

    assert calling.call.bare('text') == 'text'


# -- a limit of time ---------------------------------------------------------------------------------------------------


def test_a_function_that_runs_too_long_is_ended_and_its_caller_told(server: Server, client: Client) -> None:
    ended = []

    def slow(seconds: float) -> str:
        try:
            gevent.sleep(seconds)
        except gevent.Timeout as timeout:
            ended.append(timeout)
            raise
        return 'in time'

    server().add_function(slow, timeout=0.2)
    calling = client()

    with pytest.raises(RemoteException) as caught:
        calling.call.slow(5)
    assert (caught.value.error_type, caught.value.args) == ('Timeout', ('it ran longer than 0.2 s',))
    assert len(ended) == 1
    # The greenlet it was ended in serves again, and nothing is left to go off in it.
    assert [calling.call.slow(0) for _ in range(3)] == ['in time'] * 3
    assert calling.call.slow(0.1) == 'in time'


# -- validation --------------------------------------------------------------------------------------------------------


def test_a_wrong_call_is_told_the_argument_and_the_reason(
    server: Server, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    server(total)
    calling = client()

    with caplog.at_level(logging.WARNING, 'amphora'), pytest.raises(WrongRequest) as caught:
        calling.call.order.total([{'name': 'bolt', 'count': 'three'}])
    assert str(caught.value) == "order.total: argument 'items': Expected `int`, got `str` - at `items[0].count`"
    # One line and no traceback: it is not the function's fault.
    assert [(record.name, record.exc_info) for record in caplog.records] == [('amphora.dispatch', None)]

    with pytest.raises(WrongRequest, match=r"order\.total: missing a required argument: 'items'"):
        calling.call.order.total()
    with pytest.raises(WrongRequest, match="unexpected keyword argument 'item'"):
        calling.call.order.total([], item=1)


def test_without_validation_a_function_gets_what_was_sent(server: Server, client: Client) -> None:
    server(bare)
    calling = client()

    assert calling.call.bare('text') == 'text'
    with pytest.raises(RemoteException, match='TypeError'):
        calling.call.bare()


def test_what_messagepack_carries_by_itself_is_valid(server: Server, client: Client) -> None:
    def size(data: bytes, names: dict[int, str]) -> list[Any]:
        return [len(data), sorted(names)]

    server(serializer=RpcMsgPackSerializer).add_function(size, validate=True)

    assert client(serializer=RpcMsgPackSerializer).call.size(b'\x00\xff', {7: 'seven'}) == [2, [7]]


def test_a_function_that_cannot_be_validated_is_an_error_when_it_is_added(server: Server) -> None:
    def show(stock: Stock) -> None: ...

    with pytest.raises(TypeError, match=r"argument 'stock' of .*show"):
        server(serve=False).add_function(show, validate=True)


# -- introspection -----------------------------------------------------------------------------------------------------


def test_callers_see_each_function_as_its_author_wrote_it(
    rabbit: Any, vhost: str, serving: Server, client: Client
) -> None:
    url = rabbit.url_of(vhost)
    made: AmqpRpcServer = serving(amqp_url=url)
    made.add_object(Stock())
    made.add_function(total)

    asking = client(kind=AmqpRpcFanoutClient, service='amphora', amqp_url=url)
    said = eventually(lambda: {each['name']: each for each in asking.call.describe()['functions']})

    assert said['Stock.take']['signature'] == "(name: 'str', count: 'int' = 1) -> 'int'"
    assert said['Stock.take']['doc'] == 'What is left.'
    assert said['Stock.count']['signature'] == "(name: 'str') -> 'int'"
    assert said['order.total']['signature'] == "(items: 'list[Item]') -> 'int'"


def test_a_name_that_no_queue_can_have_is_not_in_the_way_of_others(
    serving: Server, client: Client, service: str
) -> None:
    server = serving(dialects=[RabiBridge()])

    with pytest.raises(ValueError, match='255'):
        server.add_function(max, name='x' * 250)

    name = 'max_' + service
    server.add_function(max, name=name)
    calling = client(dialect=RabiBridge())
    assert eventually(lambda: calling.try_call(function_name=name)(1, 2).value) == 2
    # What was there before is there again.
    with pytest.raises(ValueError, match='255'):
        server._add_functions({name: min, 'x' * 250: min})
    assert calling.call(function_name=name)(1, 2) == 2
