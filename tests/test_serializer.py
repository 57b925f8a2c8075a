"""The serializers: what goes over the wire and comes back, what is refused with which words, and hostile bytes."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import json
import math
import sys
import uuid
from collections import OrderedDict, namedtuple
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import attrs
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amphora.errors import IgnoreRequest, NoResult, RemoteException, WrongRequest, WrongResult
from amphora.serializer import AbstractRpcSerializer, RpcJsonSerializer, RpcMsgPackSerializer

Serializer = type[AbstractRpcSerializer]

BOTH = pytest.mark.parametrize('serializer', [RpcJsonSerializer, RpcMsgPackSerializer])


class Thing:
    """Nothing that serialises."""


class Colour(enum.Enum):
    RED = 'red'


class Level(enum.IntEnum):
    HIGH = 3


class Text(str):
    def __str__(self) -> str:
        return 'not what it holds'


class Count(int):
    pass


class Ratio(float):
    pass


@dataclasses.dataclass
class Point:
    x: Any
    y: Any = 0


class Line(msgspec.Struct):
    start: Any
    end: Any = None


Pair = namedtuple('Pair', 'first second')


def wire(serializer: Serializer, value: Any) -> bytes:
    """A value in the serializer's format, made by something other than the serializer."""
    if serializer is RpcJsonSerializer:
        return json.dumps(value).encode()
    return msgspec.msgpack.encode(value)


def read(serializer: Serializer, body: str | bytes) -> Any:
    assert isinstance(body, bytes)
    return json.loads(body) if serializer is RpcJsonSerializer else msgspec.msgpack.decode(body)


def there_and_back(serializer: Serializer, value: Any) -> Any:
    body = serializer.serialize_result(value)
    assert isinstance(body, bytes)
    return serializer.deserialize_result(body)


def received(serializer: Serializer, value: Any) -> Any:
    """What `value` is as an argument, at the other end."""
    body = serializer.serialize_call('f', (value,), {'keyword': value})
    assert isinstance(body, bytes)
    func, args, kwargs = serializer.deserialize_call(body)
    assert func == 'f'
    assert args[0] == kwargs['keyword']
    return args[0]


# -- the envelopes -----------------------------------------------------------------------------------------------------


@BOTH
def test_a_call_on_the_wire_is_func_args_and_kwargs(serializer: Serializer) -> None:
    body = serializer.serialize_call('send.sms', ('+123', [1, None]), {'urgent': True})
    assert read(serializer, body) == {'func': 'send.sms', 'args': ['+123', [1, None]], 'kwargs': {'urgent': True}}


@BOTH
def test_a_call_arrives_as_it_was_made(serializer: Serializer) -> None:
    body = wire(serializer, {'func': 'add', 'args': [2, 3], 'kwargs': {'base': 10}})
    assert serializer.deserialize_call(body) == ('add', [2, 3], {'base': 10})


@BOTH
@pytest.mark.parametrize('args', [(), [], (1, 2), [1, 2]])
def test_args_may_be_a_tuple_or_a_list(serializer: Serializer, args: Sequence[Any]) -> None:
    body = serializer.serialize_call('f', args, {})
    assert read(serializer, body) == {'func': 'f', 'args': list(args), 'kwargs': {}}


@BOTH
def test_a_result_on_the_wire_is_under_result(serializer: Serializer) -> None:
    assert read(serializer, serializer.serialize_result([1, 'two'])) == {'result': [1, 'two']}


@BOTH
def test_a_result_of_none_is_a_result(serializer: Serializer) -> None:
    assert read(serializer, serializer.serialize_result(None)) == {'result': None}
    assert serializer.deserialize_result(wire(serializer, {'result': None})) is None


@BOTH
def test_keys_that_nobody_knows_are_ignored(serializer: Serializer) -> None:
    call = {'func': 'f', 'args': [], 'kwargs': {}, 'trace': 'x'}
    assert serializer.deserialize_call(wire(serializer, call)) == ('f', [], {})
    assert serializer.deserialize_result(wire(serializer, {'result': 1, 'took': 0.5})) == 1
    fault = {'exception': {'type': 'ValueError', 'args': [1], 'traceback': 'x'}, 'took': 0.5}
    with pytest.raises(RemoteException) as caught:
        serializer.deserialize_result(wire(serializer, fault))
    assert (caught.value.error_type, caught.value.args) == ('ValueError', (1,))


def test_the_content_types_are_the_registered_ones() -> None:
    assert RpcJsonSerializer.content_type == 'application/json'
    assert RpcMsgPackSerializer.content_type == 'application/msgpack'


@BOTH
def test_an_instance_works_like_its_class(serializer: Serializer) -> None:
    instance = serializer()
    assert instance.content_type == serializer.content_type
    assert instance.serialize_call('f', (1,), {}) == serializer.serialize_call('f', (1,), {})
    assert instance.serialize_result(1) == serializer.serialize_result(1)
    assert instance.deserialize_call(wire(serializer, {'func': 'f', 'args': [], 'kwargs': {}})) == ('f', [], {})
    assert instance.deserialize_result(wire(serializer, {'result': 1})) == 1


def test_a_subclass_may_change_one_method_and_call_the_rest() -> None:
    class Rounding(RpcJsonSerializer):
        @staticmethod
        def serialize_result(obj: Any) -> bytes:
            return RpcJsonSerializer.serialize_result(round(obj))

    assert Rounding.serialize_result(2.7) == b'{"result":3}'
    assert Rounding.deserialize_result(b'{"result":3}') == 3


def test_the_abstract_serializer_does_nothing_by_itself() -> None:
    assert AbstractRpcSerializer.content_type == ''
    for attempt in (
        lambda: AbstractRpcSerializer.serialize_call('f', (), {}),
        lambda: AbstractRpcSerializer.deserialize_call(b''),
        lambda: AbstractRpcSerializer.serialize_result(1),
        lambda: AbstractRpcSerializer.deserialize_result(b''),
    ):
        with pytest.raises(NotImplementedError):
            attempt()


# -- values ------------------------------------------------------------------------------------------------------------

integers = st.integers(-(2**63), 2**64 - 1)
texts = st.text(st.characters(exclude_categories=['Cs']))
plain = st.recursive(
    st.none() | st.booleans() | integers | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=20,
)


@BOTH
@given(func=texts, args=st.lists(plain, max_size=4), kwargs=st.dictionaries(texts, plain, max_size=4))
def test_every_plain_call_comes_back_as_it_was(
    serializer: Serializer, func: str, args: list[Any], kwargs: dict[str, Any]
) -> None:
    body = serializer.serialize_call(func, tuple(args), kwargs)
    assert isinstance(body, bytes)
    assert serializer.deserialize_call(body) == (func, args, kwargs)


@BOTH
@given(value=plain)
def test_every_plain_result_comes_back_as_it_was(serializer: Serializer, value: Any) -> None:
    assert there_and_back(serializer, value) == value


@BOTH
@given(kind=texts, args=st.lists(plain, max_size=4))
def test_every_plain_remote_exception_comes_back_as_it_was(serializer: Serializer, kind: str, args: list[Any]) -> None:
    with pytest.raises((RemoteException, WrongRequest)) as caught:
        there_and_back(serializer, RemoteException(kind, args))
    assert caught.value.args == tuple(args)
    assert getattr(caught.value, 'error_type', 'WrongRequest') == kind


@given(
    st.recursive(
        st.binary() | st.floats(allow_nan=False) | st.datetimes(timezones=st.just(datetime.timezone.utc)) | plain,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(integers | texts, inner, max_size=4),
        max_leaves=10,
    )
)
def test_messagepack_also_keeps_bytes_times_infinities_and_integer_keys(value: Any) -> None:
    assert there_and_back(RpcMsgPackSerializer, value) == value


@pytest.mark.parametrize(
    ('value', 'arrives'),
    [
        ((1, (2, 3)), [1, [2, 3]]),
        ({7}, [7]),
        (frozenset({7}), [7]),
        (datetime.date(2024, 2, 29), '2024-02-29'),
        (datetime.time(12, 30, 1), '12:30:01'),
        (datetime.datetime(2024, 2, 29, 12, 30), '2024-02-29T12:30:00'),
        (datetime.timedelta(hours=1, seconds=1), 'PT3601S'),
        (Decimal('1.10'), '1.10'),
        (uuid.UUID(int=7), '00000000-0000-0000-0000-000000000007'),
        (Colour.RED, 'red'),
        (Level.HIGH, 3),
        (Point(1, 2), {'x': 1, 'y': 2}),
        (Line(Point(1), 2), {'start': {'x': 1, 'y': 0}, 'end': 2}),
        (Pair(1, 2), [1, 2]),
        (OrderedDict(a=1), {'a': 1}),
        (Text('held'), 'held'),
        ({Text('key'): 1}, {'key': 1}),
        (Count(5), 5),
        (Ratio(0.5), 0.5),
    ],
    ids=repr,
)
@BOTH
def test_richer_types_arrive_as_plain_ones(serializer: Serializer, value: Any, arrives: Any) -> None:
    assert received(serializer, value) == arrives
    assert there_and_back(serializer, value) == arrives


@BOTH
def test_attrs_classes_arrive_as_dicts(serializer: Serializer) -> None:
    Person = attrs.make_class('Person', ['name', 'friend'])
    assert received(serializer, Person('Ann', Person('Bob', None))) == {
        'name': 'Ann',
        'friend': {'name': 'Bob', 'friend': None},
    }
    with pytest.raises(TypeError, match=r'args\[0\]\.friend is a '):
        serializer.serialize_call('f', (Person('Ann', Thing()),), {})


def test_json_writes_bytes_as_base64_and_keys_as_text() -> None:
    assert there_and_back(RpcJsonSerializer, b'\x00\xff') == 'AP8='
    assert there_and_back(RpcJsonSerializer, {1: 'a', 2.5: 'b'}) == {'1': 'a', '2.5': 'b'}


def test_integers_beyond_64_bits_pass_in_json_and_are_refused_in_messagepack() -> None:
    assert there_and_back(RpcJsonSerializer, [2**64, -(2**63) - 1]) == [2**64, -(2**63) - 1]
    for number in (2**64, -(2**63) - 1):
        with pytest.raises(ValueError, match=r'argument 2 of .f. cannot be serialised: args\[1\]\[0\] is out of range'):
            RpcMsgPackSerializer.serialize_call('f', (1, [number]), {})


# -- what does not serialise -------------------------------------------------------------------------------------------


def cycle() -> list[Any]:
    endless: list[Any] = [1]
    endless.append(endless)
    return endless


def nested(depth: int) -> list[Any]:
    inner: list[Any] = []
    for _ in range(depth):
        inner = [inner]
    return inner


THING = "<class '.*test_serializer.Thing'>"

REFUSED = [
    (Thing(), TypeError, f' is a {THING}'),
    ([0, {'when': Point(1, Thing())}], TypeError, rf"\[1\]\['when'\]\.y is a {THING}"),
    (Line(None, (1, Thing())), TypeError, rf'\.end\[1\] is a {THING}'),
    ({frozenset({Thing})}, TypeError, r"\)\) is a <class 'type'>"),
    ([{(1, Thing()): 2}], TypeError, rf'\[0\]\)\[1\] is a {THING}'),
    ([msgspec.UNSET], TypeError, r"\[0\] is a <class 'msgspec.UnsetType'>"),
    (cycle(), ValueError, r' refers to itself or is nested too deeply'),
    ({'deep': nested(100_000)}, ValueError, r' refers to itself or is nested too deeply'),
    ([1, 'a\ud800'], ValueError, r'\[1\] holds a lone surrogate'),
    ({'ok': {'\udfff': 1}}, ValueError, r"\['ok'\]\) holds a lone surrogate"),
    ([10**5000], ValueError, r'\[0\] is out of range'),
]


@pytest.mark.parametrize(('value', 'error', 'says'), REFUSED, ids=[str(n) for n in range(len(REFUSED))])
@BOTH
def test_the_error_names_the_argument_and_what_in_it_does_not_serialise(
    serializer: Serializer, value: Any, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=rf"^argument 2 of 'add' cannot be serialised: .*args\[1\].*{says}"):
        serializer.serialize_call('add', ('fine', value, Thing()), {})
    with pytest.raises(
        error, match=rf"^keyword argument 'user' of 'add' cannot be serialised: .*kwargs\['user'\].*{says}"
    ):
        serializer.serialize_call('add', ('fine',), {'first': 1, 'user': value})
    with pytest.raises(error, match=rf'^the result cannot be serialised: .*result.*{says}'):
        serializer.serialize_result(value)


@pytest.mark.parametrize(
    ('value', 'says'),
    [
        ({'when': Point(2j)}, "args[1]['when'].x is a <class 'complex'>"),
        ([{(1, 2j): 2}], "(a key of args[1][0])[1] is a <class 'complex'>"),
        ({(2j, 1)}, "(an element of args[1])[0] is a <class 'complex'>"),
    ],
)
def test_the_error_reads_as_python_does(value: Any, says: str) -> None:
    with pytest.raises(TypeError) as caught:
        RpcMsgPackSerializer.serialize_call('add', (1, value), {})
    assert str(caught.value) == f"argument 2 of 'add' cannot be serialised: {says}"


@BOTH
def test_a_result_that_is_unset_is_refused_and_not_left_out(serializer: Serializer) -> None:
    with pytest.raises(TypeError, match=r'result is a .*UnsetType'):
        serializer.serialize_result(msgspec.UNSET)


@BOTH
def test_a_function_name_or_keyword_that_is_no_text_is_refused(serializer: Serializer) -> None:
    with pytest.raises(ValueError, match=r'the function name .* holds a lone surrogate'):
        serializer.serialize_call('\ud800', (), {})
    with pytest.raises(ValueError, match=r'\(a key of kwargs\) holds a lone surrogate'):
        serializer.serialize_call('f', (1,), {'\ud800': 1})


@pytest.mark.parametrize('key', [None, True, (1, 2)], ids=repr)
def test_keys_that_json_cannot_write_are_refused(key: Any) -> None:
    with pytest.raises(TypeError, match=r'\(a key of args\[0\]\) is a <class'):
        RpcJsonSerializer.serialize_call('f', ({'a': 1, key: 2},), {})


def test_keys_and_classes_that_cannot_even_be_shown_do_not_break_the_error() -> None:
    class Rude:
        def __repr__(self) -> str:
            raise RuntimeError('no')

    with pytest.raises(TypeError, match=r'args\[0\]\[<Rude>\] is a '):
        RpcMsgPackSerializer.serialize_call('f', ({Rude(): Rude()},), {})


def test_the_path_in_an_error_is_bounded() -> None:
    value: Any = Thing()
    for _ in range(300):
        value = [value]
    with pytest.raises(TypeError) as caught:
        RpcJsonSerializer.serialize_call('f', (value,), {})
    assert len(str(caught.value)) < 400


NOT_FINITE = [math.nan, math.inf, -math.inf, Ratio(math.nan)]


@pytest.mark.parametrize('number', NOT_FINITE, ids=repr)
def test_json_refuses_floats_that_it_would_turn_into_null(number: float) -> None:
    class Odd(enum.Enum):
        A = number

    said = r' is (nan|-?inf), which JSON cannot carry$'
    with pytest.raises(ValueError, match=r"^argument 1 of 'f' cannot be serialised: args\[0\]" + said):
        RpcJsonSerializer.serialize_call('f', (number,), {})
    with pytest.raises(ValueError, match=r"^keyword argument 'k' of 'f' .*: kwargs\['k'\]\[1\]\.y" + said):
        RpcJsonSerializer.serialize_call('f', (None, 2**70), {'k': [None, Point(None, number)]})
    with pytest.raises(ValueError, match=r'^the result cannot be serialised: result' + said):
        RpcJsonSerializer.serialize_result(number)
    with pytest.raises(ValueError, match=r'result\[0\]\.end\.value' + said):
        RpcJsonSerializer.serialize_result([Line(None, Odd.A)])
    # Also where there is much else.
    much = 'null ' * 10_000
    with pytest.raises(ValueError, match=r'args\[1\]' + said):
        RpcJsonSerializer.serialize_call('f', (much, number), {})
    with pytest.raises(ValueError, match=r"kwargs\['k'\]" + said):
        RpcJsonSerializer.serialize_call('f', (much,), {'k': number})
    with pytest.raises(ValueError, match=r'result\[1\]' + said):
        RpcJsonSerializer.serialize_result([much, number])


@pytest.mark.parametrize('number', NOT_FINITE, ids=repr)
def test_messagepack_carries_floats_that_are_not_finite(number: float) -> None:
    assert repr(there_and_back(RpcMsgPackSerializer, [None, number])) == repr([None, float(number)])


@pytest.mark.parametrize(
    'value',
    [
        None,
        'null',
        pytest.param('null ' * 10_000, id='much text'),
        [None, 1.5, -0.0, sys.float_info.max],
        {'null': 2**70, 'none': None},
        # Looks like an infinite float in MessagePack.
        [None, {'a': 'ÿ'}, 0xCB7FF0, -0x34800F, 2**63 + 0xCB7FF000],
    ],
    ids=repr,
)
def test_json_takes_null_where_null_is_meant(value: Any) -> None:
    assert there_and_back(RpcJsonSerializer, value) == value
    assert received(RpcJsonSerializer, value) == value


def test_bytes_that_look_like_an_infinite_float_are_not_taken_for_one() -> None:
    assert RpcJsonSerializer.serialize_result([None, b'\xcb\x7f\xf0']) == b'{"result":[null,"y3/w"]}'


@given(st.lists(st.none() | st.floats() | integers | texts))
def test_json_refuses_exactly_what_it_would_change(value: list[Any]) -> None:
    if any(isinstance(item, float) and not math.isfinite(item) for item in value):
        with pytest.raises(ValueError, match='which JSON cannot carry'):
            RpcJsonSerializer.serialize_result(value)
    else:
        assert there_and_back(RpcJsonSerializer, value) == value


# -- exceptions --------------------------------------------------------------------------------------------------------


@BOTH
def test_an_exception_travels_as_its_class_name_and_arguments(serializer: Serializer) -> None:
    body = serializer.serialize_result(ValueError('x', -5))
    assert read(serializer, body) == {'exception': {'type': 'ValueError', 'args': ['x', -5]}}
    with pytest.raises(RemoteException) as caught:
        there_and_back(serializer, ValueError('x', -5))
    assert (caught.value.error_type, caught.value.args) == ('ValueError', ('x', -5))


@BOTH
def test_a_wrong_request_is_raised_as_such_at_the_other_end(serializer: Serializer) -> None:
    with pytest.raises(WrongRequest, match="no function 'f'"):
        there_and_back(serializer, WrongRequest("no function 'f'"))


@BOTH
@pytest.mark.parametrize('exception', [WrongResult('x'), NoResult('x'), IgnoreRequest('x'), SystemExit('x')], ids=repr)
def test_every_other_exception_is_remote_at_the_other_end(serializer: Serializer, exception: BaseException) -> None:
    with pytest.raises(RemoteException) as caught:
        there_and_back(serializer, exception)
    assert (caught.value.error_type, caught.value.args) == (type(exception).__name__, ('x',))


@BOTH
def test_a_remote_exception_that_is_passed_on_keeps_its_type(serializer: Serializer) -> None:
    with pytest.raises(RemoteException) as caught:
        there_and_back(serializer, RemoteException('ZeroDivisionError', ['by zero']))
    assert (caught.value.error_type, caught.value.args) == ('ZeroDivisionError', ('by zero',))


@BOTH
def test_a_remote_exception_may_lack_arguments(serializer: Serializer) -> None:
    with pytest.raises(RemoteException) as caught:
        serializer.deserialize_result(wire(serializer, {'exception': {'type': 'KeyError'}}))
    assert (caught.value.error_type, caught.value.args) == ('KeyError', ())


class Mute(Thing):
    def __repr__(self) -> str:
        raise RuntimeError('no')


class MuteToo(Mute):
    __str__ = Mute.__repr__


class Quiet(Mute):
    def __str__(self) -> str:
        return 'quietly'


class Unspeakable(Thing):
    def __repr__(self) -> str:
        return 'a\ud800'


class Long(Thing):
    def __repr__(self) -> str:
        return 'x' * 1_000_000


def sent_args(serializer: Serializer, exception: BaseException) -> Any:
    return read(serializer, serializer.serialize_result(exception))['exception']['args']


@BOTH
def test_arguments_that_do_not_serialise_travel_as_text_and_the_others_as_they_are(serializer: Serializer) -> None:
    args = sent_args(serializer, ValueError(1, 2j, None, [Unspeakable()], Quiet(), MuteToo(), 'a\udfff', {'k': 'v'}))
    assert args == [1, '2j', None, '[a\\ud800]', 'quietly', '<MuteToo>', r"'a\udfff'", {'k': 'v'}]


@BOTH
def test_text_in_place_of_an_argument_is_bounded(serializer: Serializer) -> None:
    (text,) = sent_args(serializer, ValueError(Long()))
    assert text == 'x' * 997 + '...'


@BOTH
def test_arguments_without_an_end_do_not_stop_an_exception(serializer: Serializer) -> None:
    assert sent_args(serializer, ValueError(1, cycle(), nested(100_000))) == [1, '[1, [...]]', '<list>']


@BOTH
def test_an_argument_at_the_very_depth_that_still_serialises_does_not_stop_an_exception(serializer: Serializer) -> None:
    for depth in range(100, 1200):
        # Not read back: reading has a limit of its own.
        assert b'ValueError' in bytes(serializer.serialize_result(ValueError(nested(depth))))  # type: ignore[arg-type]


def test_json_sends_arguments_that_are_not_finite_as_text() -> None:
    assert sent_args(RpcJsonSerializer, ValueError(math.inf, None, [math.nan])) == ['inf', None, '[nan]']


@BOTH
def test_an_exception_whose_args_are_no_tuple_travels_all_the_same(serializer: Serializer) -> None:
    class Odd(Exception):
        args = 5  # type: ignore[assignment]

    class Worse(Exception):
        @property
        def args(self) -> Any:  # type: ignore[override]
            raise RuntimeError('no')

    assert sent_args(serializer, Odd('x')) == [5]
    assert sent_args(serializer, Worse('x')) == []


@BOTH
@pytest.mark.parametrize(
    ('kind', 'arrives'), [('a\ud800', 'a\\ud800'), (7, 'RemoteException'), (None, 'RemoteException')]
)
def test_an_odd_error_type_is_made_a_name(serializer: Serializer, kind: Any, arrives: str) -> None:
    with pytest.raises(RemoteException) as caught:
        there_and_back(serializer, RemoteException(kind, [1]))
    assert (caught.value.error_type, caught.value.args) == (arrives, (1,))


# -- malformed and hostile bodies --------------------------------------------------------------------------------------

GOOD_CALL = {'func': 'f', 'args': [], 'kwargs': {}}


@pytest.mark.parametrize(
    ('envelope', 'says'),
    [
        (5, 'Expected `object`, got `int`'),
        (None, 'got `(null|None)`'),
        ([], 'got `array`'),
        ('f', 'got `str`'),
        ({}, 'missing required field `func`'),
        ({'func': 'f', 'args': []}, 'missing required field `kwargs`'),
        ({**GOOD_CALL, 'func': 5}, r'Expected `str`, got `int` - at `\$.func`'),
        ({**GOOD_CALL, 'func': None}, r'at `\$.func`'),
        ({**GOOD_CALL, 'args': {}}, r'Expected `array`, got `object` - at `\$.args`'),
        ({**GOOD_CALL, 'args': 'ab'}, r'at `\$.args`'),
        ({**GOOD_CALL, 'kwargs': []}, r'Expected `object`, got `array` - at `\$.kwargs`'),
    ],
    ids=repr,
)
@BOTH
def test_a_malformed_request_is_a_wrong_request_that_says_what_is_wrong(
    serializer: Serializer, envelope: Any, says: str
) -> None:
    with pytest.raises(WrongRequest, match='^malformed request: .*' + says):
        serializer.deserialize_call(wire(serializer, envelope))


@pytest.mark.parametrize('key', [1, None, b'k', (1,)], ids=repr)
def test_keywords_that_are_no_text_are_a_wrong_request(key: Any) -> None:
    body = msgspec.msgpack.encode({**GOOD_CALL, 'kwargs': {key: 1}})
    with pytest.raises(WrongRequest, match='malformed request: Expected `str`'):
        RpcMsgPackSerializer.deserialize_call(body)


@pytest.mark.parametrize(
    ('envelope', 'says'),
    [
        (5, 'Expected `object`'),
        (None, 'Expected `object`'),
        ([], 'Expected `object`'),
        ({}, 'neither a result nor an exception'),
        ({'value': 5}, 'neither a result nor an exception'),
        ({'result': 5, 'exception': {'type': 'E', 'args': []}}, 'both a result and an exception'),
        ({'result': None, 'exception': {'type': 'E', 'args': []}}, 'both a result and an exception'),
        ({'exception': None}, r'at `\$.exception`'),
        ({'exception': 'E'}, r'at `\$.exception`'),
        ({'exception': {}}, 'missing required field `type`'),
        ({'exception': {'type': 5, 'args': []}}, r'at `\$.exception.type`'),
        ({'exception': {'type': 'E', 'args': 5}}, r'at `\$.exception.args`'),
    ],
    ids=repr,
)
@BOTH
def test_a_malformed_reply_is_a_wrong_result_that_says_what_is_wrong(
    serializer: Serializer, envelope: Any, says: str
) -> None:
    with pytest.raises(WrongResult, match='^malformed reply: .*' + says):
        serializer.deserialize_result(wire(serializer, envelope))


def in_both(value: bytes) -> tuple[bytes, bytes]:
    """JSON text as an argument of a call and as a result."""
    return b'{"func":"f","args":[%s],"kwargs":{}}' % value, b'{"result":%s}' % value


HOSTILE_JSON = {
    'nothing': (b'', b''),
    'cut off': (b'{"func":"f","args":[', b'{"result":['),
    'more after the end': (b'{"func":"f","args":[],"kwargs":{}}{}', b'{"result":1}{}'),
    'a byte order mark': tuple(b'\xef\xbb\xbf' + body for body in in_both(b'1')),
    'UTF-16': tuple(body.decode().encode('utf-16') for body in in_both(b'1')),
    'not UTF-8': in_both(b'"\xff"'),
    'a surrogate in UTF-8': in_both(b'"\xed\xa0\x80"'),
    'a lone surrogate escaped': in_both(b'"\\ud800"'),
    'an integer of 5,000 digits': in_both(b'9' * 5000),
    'a float out of range': in_both(b'1e999'),
    'NaN': in_both(b'NaN'),
    'Infinity': in_both(b'-Infinity'),
    'deep lists': in_both(b'[' * 200_000),
    'deep dicts': in_both(b'{"a":' * 200_000),
    'a control character': in_both(b'"\n"'),
    'pickle': (b'\x80\x04N.', b'\x80\x04N.'),
}


@pytest.mark.parametrize(('request_body', 'reply_body'), HOSTILE_JSON.values(), ids=HOSTILE_JSON)
def test_hostile_json_is_a_wrong_request_or_a_wrong_result(request_body: bytes, reply_body: bytes) -> None:
    with pytest.raises(WrongRequest, match=r'^malformed request: ') as request:
        RpcJsonSerializer.deserialize_call(request_body)
    with pytest.raises(WrongResult, match=r'^malformed reply: ') as reply:
        RpcJsonSerializer.deserialize_result(reply_body)
    assert max(len(str(request.value)), len(str(reply.value))) <= 200


HOSTILE_MSGPACK = {
    'nothing': b'',
    'a list of 4 billion': b'\xdd\xff\xff\xff\xff',
    'a map of 4 billion': b'\xdf\xff\xff\xff\xff',
    'bytes of 4 GB': b'\xc6\xff\xff\xff\xff',
    'text of 4 GB': b'\xdb\xff\xff\xff\xff',
    'not UTF-8': b'\xa1\xff',
    'an opcode that does not exist': b'\xc1',
    'a map as a key': b'\x81\x80\x01',
    'a list with a map as a key': b'\x81\x91\x80\x01',
    'a time out of range': b'\xc7\x0c\xff' + b'\xff' * 12,
    'a time beyond the year 9999': b'\xc7\x0c\xff\x00\x00\x00\x00\x7f' + b'\xff' * 7,
    'a time of the wrong length': b'\xc7\x05\xff' + b'\0' * 5,
    'an extension cut off': b'\xc9\xff\xff\xff\xff\x01',
    'deep lists': b'\x91' * 200_000,
    'deep maps': b'\x81\xa1a' * 200_000,
}


@pytest.mark.parametrize('value', HOSTILE_MSGPACK.values(), ids=HOSTILE_MSGPACK)
def test_hostile_messagepack_is_a_wrong_request_or_a_wrong_result(value: bytes) -> None:
    with pytest.raises(WrongRequest, match=r'^malformed request: ') as request:
        RpcMsgPackSerializer.deserialize_call(b'\x83\xa4func\xa1f\xa6kwargs\x80\xa4args\x91' + value)
    with pytest.raises(WrongResult, match=r'^malformed reply: ') as reply:
        RpcMsgPackSerializer.deserialize_result(b'\x81\xa6result' + value)
    assert max(len(str(request.value)), len(str(reply.value))) <= 200


@BOTH
@given(data=st.data())
def test_no_bytes_raise_anything_but_the_documented_errors(serializer: Serializer, data: st.DataObject) -> None:
    good = data.draw(
        st.sampled_from(
            [
                wire(serializer, {'func': 'f', 'args': [1, 'two', None, 2.5], 'kwargs': {'k': [{'a': {}}]}}),
                wire(serializer, {'result': {'a': [1, 'ü', -1.5, True]}}),
                wire(serializer, {'exception': {'type': 'E', 'args': [1]}}),
                b'',
            ]
        )
    )
    at = data.draw(st.integers(0, len(good)))
    until = data.draw(st.integers(at, len(good)))
    body = good[:at] + data.draw(st.binary(max_size=12)) + good[until:]
    try:
        func, args, kwargs = serializer.deserialize_call(body)
    except WrongRequest:
        pass
    else:
        assert isinstance(func, str)
        assert isinstance(args, list)
        assert isinstance(kwargs, Mapping)
        assert all(isinstance(name, str) for name in kwargs)
    try:
        serializer.deserialize_result(body)
    except (WrongResult, RemoteException, WrongRequest):
        pass


def test_an_exception_with_a_buffer_that_cannot_be_serialised_keeps_its_class() -> None:
    body = RpcJsonSerializer.serialize_result(KeyError(memoryview(b'abcd')[::2]))

    with pytest.raises(RemoteException) as caught:
        RpcJsonSerializer.deserialize_result(body)

    assert caught.value.error_type == 'KeyError'
