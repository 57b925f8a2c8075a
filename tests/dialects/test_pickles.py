"""Pickles: plain data goes through both ways, classes are names, and no bytes make `load` run, import or exhaust."""

from __future__ import annotations

import builtins
import gc
import os
import pickle
import shlex
import sys
import tracemalloc
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal
from enum import IntEnum
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from amphora.dialects.pickles import Named, dump, dump_exception, exception_of, load
from tests.hostile.mutating import changed
from tests.stopwatch import Stopwatch

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
every_protocol = pytest.mark.parametrize('protocol', PROTOCOLS)

texts = st.text(st.characters(), max_size=20)  # with lone surrogates
floats = st.floats()
key_parts = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | floats | texts | st.binary(max_size=20)
keys = key_parts | st.tuples(key_parts, key_parts) | st.frozensets(key_parts, max_size=3)
scalars = st.none() | st.booleans() | st.integers() | st.integers(2**2000, 2**2100) | floats | texts | st.binary()
plain_data = st.recursive(
    scalars | st.binary().map(bytearray),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(keys, inner, max_size=4)
        | st.sets(keys, max_size=4)
        | st.frozensets(keys, max_size=4)
        # the same object twice
        | inner.map(lambda value: [value, value])
    ),
    max_leaves=20,
)


def anatomy(value: Any) -> Any:
    """The value down to the exact classes of its parts, comparable where NaN is in it; of a bytearray as of bytes."""
    kind = type(value)
    if kind in (list, tuple):
        return kind, [anatomy(part) for part in value]
    if kind is dict:
        return kind, [(anatomy(key), anatomy(part)) for key, part in value.items()]
    if kind in (set, frozenset):
        return kind, sorted(repr(anatomy(part)) for part in value)
    if kind is bytearray:
        return bytes, bytes(value)
    assert kind in (type(None), bool, int, float, str, bytes)
    return kind, value.hex() if kind is float else value


def peer_loads(data: bytes) -> Any:
    """What every other program in Python does with a pickle."""
    return pickle.loads(data)  # noqa: S301 - our own bytes


class OutOfStock(Exception):
    """An exception of somebody's own."""


class Bomb:
    """What a pickle of calls when it is loaded as pickle."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


# Values, both ways


@given(plain_data, st.sampled_from(PROTOCOLS))
def test_plain_data_that_python_pickled_is_read_as_it_was(value: Any, protocol: int) -> None:
    assert anatomy(load(pickle.dumps(value, protocol))) == anatomy(value)


@given(plain_data)
def test_plain_data_that_is_written_is_what_python_unpickles(value: Any) -> None:
    assert anatomy(peer_loads(dump(value))) == anatomy(value)


@given(plain_data)
def test_what_is_written_is_read(value: Any) -> None:
    assert anatomy(load(dump(value))) == anatomy(value)


@every_protocol
def test_long_values_are_read(protocol: int) -> None:
    value = [list(range(5000)), 'ä' * 70_000, b'\xff' * 70_000, {number: str(number) for number in range(3000)}]
    value += [set(range(3000)), tuple(range(300)), {'number': 2**9000}]
    assert load(pickle.dumps(value, protocol)) == value


@every_protocol
def test_records_that_share_their_keys_and_values_are_read(protocol: int) -> None:
    place = {'city': 'Lüneburg', 'zip': '21335', 'tags': ('a', 'b')}
    records = [{'id': number, 'a rather descriptive name of a column': place} for number in range(2000)]
    assert load(pickle.dumps(records, protocol)) == records


def test_what_python_2_pickled_is_read() -> None:
    # what its cPickle made of {'a': u'\xe4', 'b': [1L, True], 'c': bytearray('x'), 'd': set([1])}
    old = (
        b"(dp1\nS'a'\nV\xe4\np2\nsS'b'\n(lp3\nL1L\naI01\nasS'c'\nc__builtin__\nbytearray\n(Vx\nS'latin-1'\ntR"
        b"sS'd'\nc__builtin__\nset\n((lI1\natRs."
    )
    assert load(old) == {'a': 'ä', 'b': [1, True], 'c': b'x', 'd': {1}}


@pytest.mark.parametrize('depth', [1, 199, 200])
def test_values_of_up_to_two_hundred_levels_are_read(depth: int) -> None:
    value: Any = []
    for _ in range(depth - 1):
        value = [value]
    for protocol in PROTOCOLS:
        assert load(pickle.dumps(value, protocol)) == value


@pytest.mark.parametrize(
    'value',
    [
        object(),
        Decimal(1),
        OrderedDict(a=1),
        IntEnum('Color', 'RED')(1),
        type('Text', (str,), {})('a'),
        type('Record', (Struct,), {})(),
        Named('a', ()),
        ValueError('a'),
        ValueError,
        len,
        iter([]),
        pickle.PickleBuffer(b'a'),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_plain_data_is_not_written(value: Any) -> None:
    for holder in (value, [1, (value,)], {'a': value}, {'a': {'b': [value]}}):
        with pytest.raises(TypeError, match=r'^cannot serialise (the value|a %s): ' % type(value).__name__):
            dump(holder)


def test_what_is_nested_too_deeply_is_not_written() -> None:
    value: Any = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(ValueError, match='the value is nested too deeply for a pickle'):
        dump(value)


# Classes


@every_protocol
def test_an_instance_becomes_the_name_of_its_class_and_its_arguments(protocol: int) -> None:
    [price, failure] = load(pickle.dumps([Decimal('1.50'), ValueError('bad', 1)], protocol))
    assert price == Named('decimal.Decimal', ('1.50',))
    assert failure == Named('builtins.ValueError', ('bad', 1))
    assert repr([price, failure]) == "[decimal.Decimal('1.50'), builtins.ValueError('bad', 1)]"


@every_protocol
def test_a_class_becomes_its_name(protocol: int) -> None:
    assert load(pickle.dumps({Decimal: [OrderedDict, ValueError]}, protocol)) == {
        'decimal.Decimal': ['collections.OrderedDict', 'builtins.ValueError']
    }


@every_protocol
def test_what_an_instance_has_beside_its_arguments_is_its_state(protocol: int) -> None:
    failure = OutOfStock('screws', 3)
    failure.shelf = {'row': 4}  # type: ignore[attr-defined]
    assert load(pickle.dumps(failure, protocol)) == Named(
        '%s.OutOfStock' % OutOfStock.__module__, ('screws', 3), {'shelf': {'row': 4}}
    )


@every_protocol
def test_an_instance_is_the_same_wherever_it_is_referred_to(protocol: int) -> None:
    failure = OutOfStock('screws', 3)
    failure.shelf = 4  # type: ignore[attr-defined]
    described = Named('%s.OutOfStock' % OutOfStock.__module__, ('screws', 3), {'shelf': 4})
    assert load(pickle.dumps([failure, {'again': failure}], protocol)) == [described, {'again': described}]


@pytest.mark.parametrize(
    'refused',
    [
        b'ca\nb\n)Rq\x00h\x00%s\x86b.',
        b'ca\nb\n)Rq\x00]h\x00a%sab.',
        b'ca\nb\n)Rq\x00h\x00a%sa.',
    ],
    ids=['tuple', 'list', 'items'],
)
def test_an_instance_that_contains_itself_does_not_stay_in_memory(refused: bytes) -> None:
    size, times = 100_000, 50
    pickled = refused % (b'X' + size.to_bytes(4, 'little') + b'x' * size)
    tracemalloc.start()
    try:
        for _ in range(times):
            with pytest.raises(ValueError, match='a value contains itself'):
                load(pickled)
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] < size * times / 10
    finally:
        tracemalloc.stop()


def test_keyword_arguments_come_last() -> None:
    called = b'\x80\x04\x8c\x01m\x8c\x01C\x93K\x01\x85}\x8c\x01aK\x02s\x92.'
    assert load(called) == Named('m.C', (1, {'a': 2}))


@pytest.mark.parametrize(
    ('call', 'args'),
    [
        (b'c__builtin__\nbytearray\n(I1000000000\ntR.', (1_000_000_000,)),
        (b'cbuiltins\nset\n(Vabc\ntR.', ('abc',)),
        (b'cbuiltins\nbytes\n(I1000000000\ntR.', (1_000_000_000,)),
        (b'c_codecs\nencode\n(Vabc\nVrot13\ntR.', ('abc', 'rot13')),
        (b'cbuiltins\neval\n(V1\ntR.', ('1',)),
    ],
)
def test_what_is_not_how_python_pickles_plain_data_is_not_carried_out(call: bytes, args: tuple[Any, ...]) -> None:
    described = load(call)
    assert described.name.rpartition('.')[2] in call.decode()
    assert described.args == args


# Hostile pickles: none runs anything


def text(value: str) -> bytes:
    encoded = value.encode()
    return b'X' + len(encoded).to_bytes(4, 'little') + encoded


SYSTEM = b'cos\nsystem\n'
ATTRIBUTE = b'cbuiltins\ngetattr\n'
NAMESPACE = b'ctypes\nSimpleNamespace\n)\x81'

# For each way to run a command when it is loaded as pickle: the pickle; and what we read, None: nothing, an error.
RUNNING: dict[str, tuple[Callable[[bytes], bytes], Any]] = {
    'reduce': (lambda command: SYSTEM + command + b'\x85R.', 'described'),
    'reduce of protocol 0': (lambda command: SYSTEM + b'(' + command + b'tR.', 'described'),
    'a name from the stack': (
        lambda command: b'\x80\x04\x8c\x02os\x8c\x06system\x93' + command + b'\x85R.',
        'described',
    ),
    'inst': (lambda command: b'(' + command + b'ios\nsystem\n.', 'described'),
    'obj': (lambda command: b'(' + SYSTEM + command + b'o.', 'described'),
    'the memo': (
        lambda command: b'0'.join((SYSTEM + b'q\x01', command + b'\x85q\x02', b'h\x01h\x02R.')),
        'described',
    ),
    'a memo that is overwritten': (
        lambda command: b'K\x01q\x010' + SYSTEM + b'q\x010' + command + b'\x85q\x020h\x01h\x02R.',
        'described',
    ),
    'a result that is thrown away': (lambda command: SYSTEM + command + b'\x85R0N.', None),
    'state': (
        lambda command: NAMESPACE + b'}' + text('__setstate__') + SYSTEM + b'sb' + command + b'b.',
        'state',
    ),
    'a method': (
        lambda command: (
            ATTRIBUTE + b'cimportlib\nimport_module\n' + text('os') + b'\x85R' + text('system') + b'\x86R'
            b'' + command + b'\x85R.'
        ),
        ValueError,
    ),
    'a list': (lambda command: b'](' + SYSTEM + command + b'\x85Re.', 'in a list'),
    'a key': (lambda command: b'}' + SYSTEM + command + b'\x85RNs.', ValueError),
    'an element of a set': (lambda command: b'\x8f(' + SYSTEM + command + b'\x85R\x90.', ValueError),
    'an argument': (lambda command: b'cbuiltins\nValueError\n' + SYSTEM + command + b'\x85R\x85R.', 'in arguments'),
    'a dotted name': (
        lambda command: b'\x80\x04' + text('shutil') + text('os.system') + b'\x93' + command + b'\x85R.',
        'of another module',
    ),
    'before the end is missing': (lambda command: SYSTEM + command + b'\x85R', ValueError),
    'before an error': (lambda command: SYSTEM + command + b'\x85R\xff', ValueError),
    'before a second value': (lambda command: SYSTEM + command + b'\x85RN.', ValueError),
}


def expected(outcome: Any, command: str) -> Any:
    described = Named('os.system', (command,))
    return {
        'described': described,
        'state': Named('types.SimpleNamespace', (), command),
        'in a list': [described],
        'in arguments': Named('builtins.ValueError', (described,)),
        'of another module': Named('shutil.os.system', (command,)),
        None: None,
    }[outcome]


@pytest.mark.parametrize('way', RUNNING)
def test_no_way_to_run_a_command_runs_it(way: str, tmp_path: Path) -> None:
    marker = tmp_path / 'ran'
    command = 'touch ' + shlex.quote(str(marker))
    make, outcome = RUNNING[way]
    harmful = make(text(command))
    modules = set(sys.modules)

    if outcome is ValueError:
        with pytest.raises(ValueError, match='malformed pickle'):
            load(harmful)
    else:
        assert load(harmful) == expected(outcome, command)

    assert set(sys.modules) == modules
    assert not marker.exists()
    # It would have run.
    with suppress(Exception):
        peer_loads(harmful)
    assert marker.exists()


@every_protocol
def test_no_object_that_python_pickled_runs_anything(protocol: int, tmp_path: Path) -> None:
    marker = tmp_path / 'ran'
    bomb = Bomb('touch ' + shlex.quote(str(marker)))
    described = Named(os.system.__module__ + '.system', (bomb.command,))
    failure = OutOfStock(bomb)
    failure.cause = [bomb]  # type: ignore[attr-defined]

    read = load(pickle.dumps([bomb, {'a': (bomb,)}, failure], protocol))

    assert read == [described, {'a': (described,)}, Named(read[2].name, (described,), {'cause': [described]})]
    assert not marker.exists()


@pytest.mark.parametrize(
    'pickled',
    [
        b'c%s\nClass\n.',
        b'c%s\nClass\n)R.',
        b'c%s\nClass\n)\x81.',
        b'c%s\nClass\n)}\x92.',
        b'(i%s\nClass\n.',
        b'(c%s\nClass\no.',
        b'V%s\nVClass\n\x93.',
    ],
)
def test_no_module_is_imported(pickled: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = 'imported_%d_%d' % (os.getpid(), len(list(sys.modules)))
    (tmp_path / (name + '.py')).write_text('class Class: pass')
    monkeypatch.syspath_prepend(tmp_path)
    pickled = pickled % name.encode()

    load(pickled)

    assert name not in sys.modules
    peer_loads(pickled)
    assert sys.modules.pop(name)


# Hostile pickles: none takes long


def long_text(length: int) -> bytes:
    return text('a' * length)


def huge_integer(length: int) -> bytes:
    return b'\x8b' + length.to_bytes(4, 'little') + b'\x01' * length


COMMON_HASH = [tuple(-1 - (number >> bit & 1) for bit in range(10)) for number in range(2**10)]
PAIRS = b')' + b'2\x86' * 50

EXHAUSTING = {
    'tuples of tuples': PAIRS + b'.',
    'tuples of tuples as a key': b'}' + PAIRS + b'Ns.',
    'tuples of tuples as an element': b'\x8f(' + PAIRS + b'\x90.',
    'tuples of tuples as an element of a frozenset': b'(' + PAIRS + b'\x91.',
    'tuples of tuples as the argument of set': b'cbuiltins\nset\n](' + PAIRS + b'e\x85R.',
    'lists of lists': b'(' * 50 + b']' + b'2l' * 50 + b'.',
    'dicts of dicts': b''.join([b'}'] + [b'q%c0}(Nh%cK\x01h%cu' % (n, n, n) for n in range(50)]) + b'.',
    'instances of instances': b'ca\nb\nq\x000N' + b'q\x010h\x00h\x012\x86R' * 50 + b'.',
    'states of states': b'ca\nb\nq\x000N' + b'q\x010h\x00)Rh\x012\x86b' * 50 + b'.',
    'much text often': b'(' + long_text(50_000) + b'2' * 50_000 + b'l.',
    'a huge integer often': b'(' + huge_integer(50_000) + b'2' * 50_000 + b'l.',
    'a long name often': long_text(50_000) + b'q\x00' + b'h\x00h\x00\x930' * 20_000 + b'.',
    'a long key often': long_text(50_000) + b'q\x00}' + b'h\x00Ns' * 20_000 + b'.',
    'a huge integer as a key': b'}' + huge_integer(50_000) + b'Ns.',
    'encoding often': b'c_codecs\nencode\nq\x00'
    + long_text(50_000)
    + text('latin1')
    + b'\x86q\x01'
    + b'h\x00h\x01R0' * 20_000
    + b'.',
    'sets of many often': b'cbuiltins\nset\nq\x00](' + b'N' * 50_000 + b'e\x85q\x01' + b'h\x00h\x01R0' * 20_000 + b'.',
    'keyword arguments beside many others': b'ca\nb\nq\x00('
    + b'N' * 50_000
    + b'tq\x01'
    + b'h\x00h\x01}\x920' * 20_000
    + b'.',
    'keys of the same hash': b'\x80\x04}('
    + b''.join(pickle.dumps(key, 2)[2:-1].replace(b'q\x00', b'') + b'N' for key in COMMON_HASH)
    + b'u.',
    'integers of the same hash': b'}('
    + b''.join(b'\x8a\x0a' + (n * (2**61 - 1)).to_bytes(10, 'little') + b'N' for n in range(1, 30_000))
    + b'u.',
    'marks': b'(' * 30_000 + b'.',
    'lists in lists': b']' * 30_000 + b'a' * 29_999 + b'.',
    'tuples in tuples': b')' + b'\x85' * 30_000 + b'.',
    'dicts in dicts': b'}N' * 30_000 + b'N' + b's' * 30_000 + b'.',
    'tuples in tuples as a key': b'})' + b'\x85' * 30_000 + b'Ns.',
    'instances in instances': b'ca\nb\n' + b'2' * 29_999 + b')' + b'R\x85' * 30_000 + b'.',
    'indexes of the memo': b'N' + b''.join(b'p%d\n' % (n * (2**61 - 1)) for n in range(1, 30_000)) + b'.',
    'digits': b'L' + b'9' * 1_000_000 + b'L\n.',
    'a length': b'\x8d' + b'\xff' * 7 + b'\x7f' + b'.',
    'a length of bytes': b'\x8e' + b'\xff' * 7 + b'\x7f' + b'.',
    'a length of a bytearray': b'\x96' + b'\xff' * 7 + b'\x7f' + b'.',
}


@pytest.mark.parametrize('kind', EXHAUSTING)
def test_what_is_made_to_exhaust_is_refused_soon(kind: str) -> None:
    data = EXHAUSTING[kind]
    watch = Stopwatch()
    with pytest.raises(ValueError, match='malformed pickle') as caught:
        load(data)
    assert watch.awake < 1
    assert len(str(caught.value)) < 300
    assert caught.value.__context__ is None  # which would hold on to it


def test_a_value_that_is_referred_to_often_is_one() -> None:
    [first, second] = load(pickle.dumps([shared := ['a'], shared]))
    assert first is second


# Malformed pickles


@pytest.mark.parametrize(
    ('data', 'says'),
    [
        (b'', 'pickle exhausted before seeing STOP'),
        (b'.', 'it does not end with one value'),
        (b'NN.', 'it does not end with one value'),
        (b'(N.', 'it does not end with one value'),
        (b'N', 'pickle exhausted before seeing STOP'),
        (b'N.N', 'bytes follow its end'),
        (b'N..', 'bytes follow its end'),
        (b'\xffN.', 'unknown'),
        (b'\x80\x06N.', 'protocol 6 is not known'),
        (b'X\xff\0\0\0abc.', 'expected 255 bytes'),
        (b'0.', 'there is no mark'),
        (b'2.', 'the stack is empty'),
        (b'N\x86.', 'the stack is empty'),
        (b'(\x85.', 'the stack is empty'),
        (b'Na.', 'the stack is empty'),
        (b'NNa.', 'a NoneType is where there should be a list'),
        (b']l.', 'there is no mark'),
        (b'}(Nu.', 'a key has no value'),
        (b'}]Ns.', 'a list cannot be a key'),
        (b'}}Ns.', 'a dict cannot be a key'),
        (b'\x8f(\x8f\x90.', 'a set cannot be a key'),
        (b'}]\x85Ns.', 'a list cannot be a key'),
        (b'h\x00.', 'nothing was kept in the memo at 0'),
        (b'g5\n.', 'nothing was kept in the memo at 5'),
        (b'Np-1\n.', 'an index of the memo is out of range'),
        (b'\x94.', 'the stack is empty'),
        (b']2a.', 'a value contains itself'),
        (b']q\x00h\x00\x85a.', 'a value contains itself'),
        (b'}q\x00Nh\x00s.', 'a value contains itself'),
        (b'ca\nb\n]\x85R2a.', 'a value contains itself'),
        (b'ca\nb\n]q\x00\x85Rq\x010h\x00h\x01a.', 'a value contains itself'),
        (b'ca\nb\n)Rq\x00h\x00\x85b.', 'a value contains itself'),
        (b'NNR.', 'a NoneType is where there should be a tuple'),
        (b'N)R.', 'a NoneType is where there should be a str'),
        (b']}b.', 'a list is where there should be a Named'),
        (b'(o.', 'the class is missing'),
        (b'(No.', 'the class is missing'),
        (b'VA\nN\x93.', 'a NoneType is where there should be a str'),
        (b'ca\nb\nN}\x92.', 'a NoneType is where there should be a tuple'),
        (b'P1\n.', 'PERSID stands for what is not in the pickle'),
        (b'NQ.', 'BINPERSID stands for what is not in the pickle'),
        (b'\x82\x01.', 'EXT1 stands for what is not in the pickle'),
        (b'\x83\x01\x00.', 'EXT2 stands for what is not in the pickle'),
        (b'\x84\x01\x00\x00\x00.', 'EXT4 stands for what is not in the pickle'),
        (b'\x97.', 'NEXT_BUFFER stands for what is not in the pickle'),
        (b'N\x98.', 'READONLY_BUFFER stands for what is not in the pickle'),
        (b'Iabc\n.', 'invalid literal'),
        (b'Fabc\n.', 'could not convert'),
        (b'Sabc\n.', 'no string quotes'),
        (b'V\\ud\n.', 'decode'),
        (b'X\x01\0\0\0\xff.', 'decode'),
        (b'c_codecs\nencode\nV\\u1234\nVlatin1\n\x86R.', 'encode'),
    ],
)
def test_a_malformed_pickle_is_an_error_that_says_why(data: bytes, says: str) -> None:
    with pytest.raises(ValueError, match=r'^malformed pickle, near byte \d+: .*%s' % says):
        load(data)


def test_a_list_that_contains_itself_is_refused_in_every_protocol() -> None:
    value: list[Any] = []
    value.append((value,))
    for protocol in PROTOCOLS:
        with pytest.raises(ValueError, match='a value contains itself'):
            load(pickle.dumps(value, protocol))


def check_that_only_plain_data_comes(data: bytes) -> None:
    try:
        value = load(data)
    except ValueError:
        return
    pending = [value]
    while pending:
        part = pending.pop()
        if type(part) is Named:
            pending += [part.name, part.args, part.state]
        elif type(part) is dict:
            pending += [*part, *part.values()]
        elif type(part) in (list, tuple, set, frozenset):
            pending += part
        else:
            anatomy(part)
    exception_of(value)


SEEDS = [
    pickle.dumps(value, protocol)
    for protocol in PROTOCOLS
    for value in (
        [{'a': (1, 2.5, None, True), 'b': {1, 2}}, 'ä', b'\xff', 2**70, frozenset({(1, 'x')}), bytearray(b'y')],
        ValueError('bad', {'a': [1]}),
        {'date': Decimal('1.5'), 'class': OrderedDict},
    )
]
OPCODES = [
    *(bytes([code]) for code in b'(.012NIFSVLJKMUTBCXGcipghjqrPQbdelotsuRa)]}'),
    *(bytes([code]) for code in range(0x80, 0x99)),
    *(b'I1\n', b"S'a'\n", b'Va\n', b'L1L\n', b'K\x01', b'X\x01\0\0\0a', b'ca\nb\n', b'ia\nb\n', b'p0\n', b'g0\n'),
    *(
        b'cbuiltins\nset\n',
        b'cbuiltins\nbytearray\n',
        b'c_codecs\nencode\n',
        b'Vlatin1\n',
        b'q\0',
        b'h\0',
        b'\x8c\x01a',
    ),
]


@given(st.binary(max_size=100))
def test_of_any_bytes_comes_plain_data_or_a_value_error(data: bytes) -> None:
    check_that_only_plain_data_comes(data)


@given(st.sampled_from(SEEDS).flatmap(changed))
def test_of_a_mutated_pickle_comes_plain_data_or_a_value_error(data: bytes) -> None:
    check_that_only_plain_data_comes(data)


@given(st.lists(st.sampled_from(OPCODES), max_size=30).map(b''.join))
def test_of_any_opcodes_comes_plain_data_or_a_value_error(data: bytes) -> None:
    check_that_only_plain_data_comes(data + b'.')


# Exceptions, both ways

BUILTIN_EXCEPTIONS = sorted(
    name for name, kind in vars(builtins).items() if isinstance(kind, type) and issubclass(kind, BaseException)
)
ARGUMENTS: list[tuple[Any, ...]] = [
    (),
    ('bad',),
    ('bad', 1),
    (2, 'no such file'),
    (2, 'no such file', 'here'),
    ('utf-8', b'\xff', 0, 1, 'bad byte'),
    ('ascii', 'ä', 0, 1, 'bad character'),
    ('bad', ('file', 1, 2, 'text')),
    ({'a': [1, (2,)]}, None, b'\xff'),
]


@pytest.mark.parametrize('name', BUILTIN_EXCEPTIONS)
def test_a_peer_gets_a_builtin_exception_or_one_that_says_what_it_was(name: str) -> None:
    kind = getattr(builtins, name)
    for args in ARGUMENTS:
        got = peer_loads(dump_exception(name, args))
        if isinstance(got, kind) and issubclass(kind, Exception) and kind is not Exception:
            made = kind(*args)
            assert (type(got), got.args, str(got)) == (type(made), made.args, str(made))
        else:
            assert type(got) is Exception
            assert str(got).startswith(name) or name == 'Exception'


@pytest.mark.parametrize(
    ('name', 'args', 'kind'),
    [
        ('ValueError', ('bad', 1), ValueError),
        ('KeyError', ('bad',), KeyError),
        ('OSError', (2, 'no such file'), FileNotFoundError),
        ('Exception', ('bad', 1), Exception),
    ],
)
def test_a_peer_can_catch_the_builtin_exception(name: str, args: tuple[Any, ...], kind: type) -> None:
    got = peer_loads(dump_exception(name, args))
    assert (type(got), got.args) == (kind, args)


@pytest.mark.parametrize(
    ('name', 'args', 'says'),
    [
        ('OutOfStock', (), 'OutOfStock'),
        ('OutOfStock', ('screws', 3), 'OutOfStock: screws, 3'),
        ('UnicodeDecodeError', ('bad',), 'UnicodeDecodeError: bad'),
        ('ExceptionGroup', ('many', [1]), 'ExceptionGroup: many, [1]'),
        ('SystemExit', (1,), 'SystemExit: 1'),
        ('KeyboardInterrupt', (), 'KeyboardInterrupt'),
        ('StopIteration', (1,), 'StopIteration: 1'),
        ('print', ('bad',), 'print: bad'),
        ('int', ('1',), 'int: 1'),
    ],
)
def test_what_a_peer_cannot_have_becomes_text(name: str, args: tuple[Any, ...], says: str) -> None:
    got = peer_loads(dump_exception(name, args))
    assert (type(got), got.args) == (Exception, (says,))


class Unspeakable:
    def __repr__(self) -> str:
        raise RuntimeError('no')


class Chatty:
    def __repr__(self) -> str:
        return 'bla ' * 100_000


def test_arguments_that_are_no_plain_data_become_text() -> None:
    got = peer_loads(dump_exception('ValueError', [Decimal('1.5'), Unspeakable(), [Chatty()], 7]))
    assert got.args[0] == "Decimal('1.5')"
    assert got.args[1] == '<Unspeakable>'
    assert got.args[2].startswith('[bla bla ')
    assert len(got.args[2]) == 1000
    assert got.args[3] == 7


@every_protocol
def test_exceptions_of_peers_are_their_name_and_arguments(protocol: int) -> None:
    noted = OutOfStock('screws', 3)
    noted.shelf = 4  # type: ignore[attr-defined]
    assert exception_of(load(pickle.dumps(ValueError('bad', {'a': [1]}), protocol))) == (
        'ValueError',
        ('bad', {'a': [1]}),
    )
    assert exception_of(load(pickle.dumps(OutOfStock(), protocol))) == ('OutOfStock', ())
    assert exception_of(load(pickle.dumps(noted, protocol))) == ('OutOfStock', ('screws', 3))


@pytest.mark.parametrize('value', [None, 'ValueError', ['builtins.ValueError', ()], {'type': 'ValueError'}])
def test_other_values_are_no_exceptions(value: Any) -> None:
    assert exception_of(load(pickle.dumps(value))) is None


def test_instances_among_the_arguments_become_text() -> None:
    failure = ValueError(Decimal('1.5'), [{'a': (Decimal(1), 2)}], KeyError('b'))
    assert exception_of(load(pickle.dumps(failure))) == (
        'ValueError',
        ("decimal.Decimal('1.5')", [{'a': ("decimal.Decimal('1')", 2)}], "builtins.KeyError('b')"),
    )


@given(st.sampled_from(['ValueError', 'LookupError', 'OutOfStock']), st.lists(plain_data, max_size=3))
def test_exceptions_that_are_written_are_read(name: str, args: list[Any]) -> None:
    read = exception_of(load(dump_exception(name, args)))
    assert read is not None
    if name == 'OutOfStock':
        assert read[0] == 'Exception'
        assert read[1][0].startswith(name)
    else:
        assert read[0] == name
        assert anatomy(list(read[1])) == anatomy(args)


class Row(dict[Any, Any]):
    pass


class Names(list[Any]):
    pass


def named(kind: type, *args: Any) -> Named:
    return Named('%s.%s' % (kind.__module__, kind.__qualname__), args)


@pytest.mark.parametrize('protocol', range(3, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    ('value', 'arrives'),
    [
        (OrderedDict(a=1), named(OrderedDict, {'a': 1})),
        (defaultdict(int, a=1), named(defaultdict, 'builtins.int', {'a': 1})),
        (deque([1, 2]), named(deque, [1, 2])),
        # More than goes into one batch.
        (Row((n, n) for n in range(3000)), named(Row, {n: n for n in range(3000)})),
        (Names(['a', 'b']), named(Names, ['a', 'b'])),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_derived_from_a_list_or_a_dict_becomes_its_name_and_its_items(
    value: Any, arrives: Named, protocol: int
) -> None:
    assert load(pickle.dumps([value, value], protocol)) == [arrives, arrives]


class Seeded(list[Any]):
    seed: Any

    def __reduce__(self) -> Any:
        return Seeded, (self.seed,), None, iter(self)


def test_the_items_of_an_instance_are_not_put_into_an_argument_that_others_refer_to() -> None:
    instance = Seeded([3])
    instance.seed = [1, 2]

    assert load(pickle.dumps((instance.seed, instance))) == ([1, 2], named(Seeded, [1, 2], [3]))
