"""Long texts in JSON: bytes, values and errors are those of msgspec alone, whatever the text and the body."""

from __future__ import annotations

import json
import math
from collections import OrderedDict, UserDict, deque
from collections.abc import Callable, Iterator
from types import MappingProxyType
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET, Raw, Struct

from amphora.errors import RemoteException, WrongRequest, WrongResult
from amphora.serializer import RpcJsonSerializer

long_texts = pytest.importorskip('amphora.long_texts')

LONG = long_texts.LONG
#: of all characters that JSON takes as they are, in ASCII
PLAIN = (bytes(set(range(0x20, 0x80)) - set(b'"\\')) * 60).decode()
SPECIAL = ['"', '\\', '\n', '\0', '\x1f', '\x80', 'é', '€', '\U0001f600', '\\"', '\\u0041']


class Call(Struct):
    func: str
    args: list[Any]
    kwargs: dict[str, Any]


class Reply(Struct):
    result: Any = UNSET
    exception: Any = UNSET


class Text(str):
    """A `str` that is not only one."""

    __slots__ = ()


@st.composite
def texts(draw: Callable[..., Any]) -> str:
    """About as long as matters, now and then with what must be escaped, wherever it stands."""
    text = PLAIN[: draw(st.integers(LONG - 70, LONG + 200))]
    for special in draw(st.lists(st.sampled_from(SPECIAL), max_size=2)):
        at = draw(st.integers(0, len(text)))
        text = text[:at] + special + text[at:]
    return text


others = st.none() | st.integers(-5, 5) | st.text(max_size=5) | st.just('\x7f') | st.lists(texts(), max_size=1)
values = texts() | others


def outcome(read: Callable[[bytes], Any], body: bytes) -> Any:
    """What is read of a body, or the words of the refusal."""
    try:
        return read(body)
    except (WrongRequest, WrongResult) as error:
        return str(error)
    except Exception as error:
        return f'malformed: {error}'


def read_call(body: bytes) -> Any:
    """What msgspec alone reads of a request."""
    call = msgspec.json.decode(body, type=Call)
    return call.func, call.args, call.kwargs


def read_result(body: bytes) -> Any:
    """What msgspec alone reads of a reply that has a result."""
    return msgspec.json.decode(body, type=Reply).result


def assert_read_as_by_msgspec(body: bytes) -> None:
    for read, alone in (
        (RpcJsonSerializer.deserialize_call, read_call),
        (RpcJsonSerializer.deserialize_result, read_result),
    ):
        expected = outcome(alone, body)
        got = outcome(read, body)
        if isinstance(expected, str) and expected.startswith('malformed: '):
            got = got.replace('malformed request: ', 'malformed: ').replace('malformed reply: ', 'malformed: ')
        assert got == expected or (expected is UNSET and got.startswith('malformed reply'))


@given(st.lists(values, max_size=3), st.dictionaries(st.text(max_size=3), values, max_size=2))
def test_calls_are_the_bytes_that_msgspec_makes_and_come_back(args: list[Any], kwargs: dict[str, Any]) -> None:
    body = RpcJsonSerializer.serialize_call('f', args, kwargs)
    assert body == msgspec.json.encode({'func': 'f', 'args': args, 'kwargs': kwargs})
    assert RpcJsonSerializer.deserialize_call(body) == ('f', args, kwargs)


@given(values)
def test_results_are_the_bytes_that_msgspec_makes_and_come_back(value: Any) -> None:
    body = RpcJsonSerializer.serialize_result(value)
    assert body == msgspec.json.encode({'result': value})
    assert RpcJsonSerializer.deserialize_result(body) == value


@pytest.mark.parametrize('special', SPECIAL)
def test_what_must_be_escaped_is_found_wherever_it_stands(special: str) -> None:
    text = PLAIN[:LONG]
    for at in (0, 1, 63, 64, 65, 2000, LONG - 65, LONG - 64, LONG - 1, LONG):
        value = text[:at] + special + text[at:]
        body = RpcJsonSerializer.serialize_result(value)
        assert body == msgspec.json.encode({'result': value})
        assert RpcJsonSerializer.deserialize_result(body) == value


@pytest.mark.parametrize(
    ('args', 'kwargs'),
    [
        ((PLAIN, PLAIN), {}),
        ((PLAIN, PLAIN + ' '), {'k': PLAIN}),
        ((Text(PLAIN), PLAIN), {}),
        ((PLAIN, {'a': [PLAIN]}), {}),
        ((PLAIN, Raw(b'"\\u0000"')), {}),
        ((), {'a': 1, 'b': PLAIN}),
        (([1.5, None], PLAIN, True), {}),
    ],
)
def test_calls_with_more_than_one_long_text(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    body = RpcJsonSerializer.serialize_call('f', args, kwargs)
    sent = ['\0' if isinstance(arg, Raw) else arg for arg in args]
    assert json.loads(body) == {'func': 'f', 'args': sent, 'kwargs': kwargs}


class Reversed(list[Any]):
    """A `list` that iterates as it likes."""

    def __iter__(self) -> Iterator[Any]:
        return reversed(self)


@pytest.mark.parametrize(
    'arguments',
    [
        lambda text: ([text, 1], {}),
        lambda text: (Reversed([text, 1]), {}),
        lambda text: ((value for value in (text, 1)), {}),
        lambda text: (deque([text, 1]), {}),
        lambda text: ({text: 1}, {}),
        lambda text: (None, {}),
        lambda text: ((), {'a': 1, 'b': text}),
        lambda text: ((), OrderedDict(a=1, b=text)),
        lambda text: ((), MappingProxyType({'b': text})),
        lambda text: ((), UserDict(b=text)),
        lambda text: ((text,), None),
    ],
)
def test_whether_a_text_is_long_changes_nothing_whatever_the_arguments_are_in(arguments: Callable[[str], Any]) -> None:
    def made_of(text: str) -> str:
        try:
            body = RpcJsonSerializer.serialize_call('f', *arguments(text))
        except Exception as error:
            return f'{type(error).__name__}: {error}'
        return body.decode().replace(text, 'text')

    assert made_of(PLAIN) == made_of('text')


def test_what_else_cannot_be_encoded_is_refused_beside_a_long_text() -> None:
    with pytest.raises(TypeError, match=r"argument 2 of 'f' cannot be serialised: args\[1\] is a <class 'object'>"):
        RpcJsonSerializer.serialize_call('f', (PLAIN, object()), {})
    with pytest.raises(ValueError, match=r"keyword argument 'k' of 'f' cannot be serialised: kwargs\['k'\] is nan"):
        RpcJsonSerializer.serialize_call('f', (PLAIN,), {'k': math.nan})
    with pytest.raises(ValueError, match='lone surrogate'):
        RpcJsonSerializer.serialize_call('f', (PLAIN + '\ud800',), {})


QUOTED = '"%s"' % PLAIN


@pytest.mark.parametrize(
    'body',
    [
        pytest.param('{ "args" : [ 1, %s ],\n"kwargs": {}, "func": "f"}' % QUOTED, id='other order and blanks'),
        pytest.param('{"func":"f","args":[],"kwargs":{"k":%s}}' % QUOTED, id='by keyword'),
        pytest.param('{"func":"f","args":[%s,"\x7f"],"kwargs":{}}' % QUOTED, id='a mark after it'),
        pytest.param('{"func":"f","args":["\x7f",%s],"kwargs":{}}' % QUOTED, id='a mark before it'),
        pytest.param('{"func":"f","args":["\\u007f",%s],"kwargs":{}}' % QUOTED, id='an escaped mark before it'),
        pytest.param('{"func":"f","args":[%s,"\\u007f"],"kwargs":{}}' % QUOTED, id='an escaped mark after it'),
        pytest.param('{"func":"f","args":["\\"",%s],"kwargs":{}}' % QUOTED, id='an escaped quote before it'),
        pytest.param('{"func":"f","args":[[%s]],"kwargs":{}}' % QUOTED, id='deeper'),
        pytest.param('{"func":%s,"args":[],"kwargs":{}}' % QUOTED, id='a long name'),
        pytest.param('{"func":"f","args":[],"kwargs":{},"more":[%s]}' % QUOTED, id='in what nobody knows'),
        pytest.param('{"func":"f","args":[],"kwargs":{%s:1}}' % QUOTED, id='a key'),
        pytest.param('{"func":"f","args":[],"kwargs":{"k":%s,"k":2}}' % QUOTED, id='a key twice'),
        pytest.param('{"func":"f","args":[%s],"kwargs":{}' % QUOTED, id='not ended'),
        pytest.param('{"func":"f","args":[%s' % QUOTED[:-1], id='nor the text'),
        pytest.param('{"func":"f","args":[%s],"kwargs":[]}' % QUOTED, id='a wrong type'),
        pytest.param('{"func":"f","args":[%s],"kwargs":{}} ?' % QUOTED, id='something after it'),
        pytest.param('{"func":"f","args":[%s,%s],"kwargs":{}}' % (QUOTED, QUOTED), id='two'),
        pytest.param('{"func":"f","args":[%s%s],"kwargs":{}}' % ('1,' * 600, QUOTED), id='much before it'),
        pytest.param('{"func":"f","args":[%s%s],"kwargs":{}}' % (QUOTED, ',1' * 600), id='much after it'),
        pytest.param('{"result":%s}' % QUOTED, id='a result'),
        pytest.param(' {"result" : %s }' % QUOTED, id='a result with blanks'),
        pytest.param('{"result":[%s]}' % QUOTED, id='a list'),
        pytest.param('{"result":{"a":%s}}' % QUOTED, id='a dict'),
        pytest.param('{"result":1,"more":%s}' % QUOTED, id='beside the result'),
        pytest.param('[%s]' % QUOTED, id='a list alone'),
        pytest.param(QUOTED, id='text alone'),
        pytest.param('"' * 5000, id='quotes'),
        pytest.param('[' * 900 + QUOTED, id='brackets'),
        pytest.param('{"result":"%s\t"}' % PLAIN, id='a control character in it'),
    ],
)
def test_any_body_with_a_long_text_is_read_as_msgspec_reads_it(body: str) -> None:
    assert_read_as_by_msgspec(body.encode())


@pytest.mark.parametrize('octets', [b'\xff', b'\xc3', b'\xed\xa0\x80', '\u00e9'.encode()])
def test_texts_that_are_not_ascii_are_read_as_msgspec_reads_them(octets: bytes) -> None:
    assert_read_as_by_msgspec(b'{"result":"%s%s"}' % (PLAIN.encode(), octets))


def test_an_exception_with_a_long_text_arrives() -> None:
    body = RpcJsonSerializer.serialize_result(ValueError(PLAIN[:LONG]))
    with pytest.raises(RemoteException) as caught:
        RpcJsonSerializer.deserialize_result(body)
    assert caught.value.args == (PLAIN[:LONG],)


class Bytes(bytes):
    """`bytes` that are not only that."""

    __slots__ = ()


def test_what_goes_past_msgspec() -> None:
    body = RpcJsonSerializer.serialize_call('f', (1, PLAIN), {'k': 'é'})
    rest = '{"func":"f","args":[1,"\x7f"],"kwargs":{"k":"é"}}'.encode()
    assert long_texts.take_out(body, 2) == (rest, PLAIN)
    assert long_texts.fill(rest.replace(b'\x7f', b'\0'), PLAIN) == body
    assert long_texts.take_out(body, 1) is None
    assert long_texts.take_out(Bytes(body), 2) is None
    assert long_texts.take_out(body.replace(PLAIN.encode(), PLAIN[: LONG - 1].encode()), 2) is None
    assert long_texts.fill(rest, PLAIN) is None
    assert long_texts.fill(b'\0\0', PLAIN) is None


BODIES = [
    RpcJsonSerializer.serialize_call('f', (1, PLAIN), {'k': 'v'}),
    RpcJsonSerializer.serialize_call('f', (), {'k': PLAIN, 'l': [{}]}),
    RpcJsonSerializer.serialize_result(PLAIN),
]


@given(
    st.sampled_from(BODIES),
    st.lists(
        st.tuples(st.integers(-40, 40), st.sampled_from([b'', b'"', b'\\', b'[', b'}', b',', b'\x7f', b'\0', b' '])),
        min_size=1,
        max_size=3,
    ),
)
def test_a_body_that_is_changed_is_read_as_msgspec_reads_it(body: bytes, changes: list[tuple[int, bytes]]) -> None:
    for at, octets in changes:
        body = body[:at] + octets + body[at + (not octets) :]
    assert_read_as_by_msgspec(body)
