"""A machine for the opcodes of Python's pickle format that makes plain data and can make nothing else.

A class is its dotted name from the start, so that there is nothing to import and nothing to call. What the machine
does and what it makes are bounded by an allowance. Knows nothing of the bytes: pickletools of the standard library
reads opcodes from them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from types import NoneType
from typing import Any

from msgspec import Struct
from msgspec.structs import force_setattr

_NEWEST_PROTOCOL = 5
_DEEPEST = 200
_MEMO_INDEXES = range(1 << 32)

# Keys of dicts and elements of sets are hashed and compared wherever they are put. Tuples and large integers of the
# same hash are easily made, as many as one likes; among honest ones only -1 and -2, and what holds them, have the same.
_KEY_PARTS = 32
_KEY_INTEGERS = range(-(1 << 63), 1 << 64)
_KEYS_OF_ONE_HASH = 16
_WORK_OF_A_KEY = 64

# What Python 2 called them; pickles of protocol 2 and older still do.
_RENAMED_MODULES = {'__builtin__': 'builtins', 'exceptions': 'builtins'}


class Named(Struct, frozen=True):
    """An instance of a class, as a pickle describes it: what would be called, and is not.

    :param name: module and name of the class, or of the function that would make the instance.
    :param args: what it would be called with; keyword arguments come last, as a dict. So do the items of an instance of
        a class derived from list or dict, as a list or a dict.
    :param state: what would be set on the instance, mostly a dict of its attributes; None: nothing.
    """

    name: str
    args: tuple[Any, ...]
    state: Any = None

    def __repr__(self) -> str:
        return '%s(%s)' % (self.name, ', '.join(map(repr, self.args)))


class Machine:
    """The stack and the memo that the opcodes of one pickle work on; what they must not do raises a ValueError.

    :param allowance: how much may be copied and hashed meanwhile, and come out in the end when all that is kept once
        and referred to often is written out; in bytes of texts, and a byte for any other value.
    """

    def __init__(self, allowance: int) -> None:
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []  # what is below each mark
        self._memo: dict[int, Any] = {}
        self._allowance = allowance
        self._spent = 0
        self._keys_by_hash: dict[int, list[Any]] = {}
        # What was made for the items of instances, by its id.
        self._made: dict[int, Any] = {}

    def execute(self, opcode: str, argument: Any) -> None:
        """Do what an opcode says.

        :param opcode: its name in pickletools.
        """
        action = _ACTIONS.get(opcode)
        if action is None:
            raise ValueError('%s stands for what is not in the pickle' % opcode)
        action(self, argument)

    def result(self) -> Any:
        """The value that is left at the end."""
        if self._below or len(self._stack) != 1:
            raise ValueError('it does not end with one value')
        _weigh(self._stack[0], 1, {}, self._allowance)
        return self._stack[0]

    def push(self, value: Any) -> None:
        self._stack.append(value)

    def top(self, *kinds: type) -> Any:
        """The topmost value, of one of these classes if any are given."""
        if not self._stack:
            raise ValueError('the stack is empty')
        value = self._stack[-1]
        if kinds and type(value) not in kinds:
            raise ValueError('a %s is where there should be a %s' % (type(value).__name__, kinds[0].__name__))
        return value

    def pop(self, *kinds: type) -> Any:
        """Take the topmost value, of one of these classes if any are given."""
        value = self.top(*kinds)
        self._stack.pop()
        return value

    def mark(self) -> None:
        if len(self._below) == _DEEPEST:
            raise ValueError('it is nested deeper than %d levels' % _DEEPEST)
        self._below.append(self._stack)
        self._stack = []

    def pop_items(self) -> list[Any]:
        """Take what is above the last mark, and the mark."""
        if not self._below:
            raise ValueError('there is no mark')
        items, self._stack = self._stack, self._below.pop()
        return items

    def pop_anything(self) -> None:
        """Take the topmost value, or the mark that is there instead."""
        if self._stack:
            self._stack.pop()
        else:
            self.pop_items()

    def memoize(self, index: int | None) -> None:
        """Keep the topmost value; without an index, at the next one."""
        if index is None:
            index = len(self._memo)
        if index not in _MEMO_INDEXES:
            raise ValueError('an index of the memo is out of range')
        self._memo[index] = self.top()

    def recall(self, index: int) -> None:
        if index not in self._memo:
            raise ValueError('nothing was kept in the memo at %d' % index)
        self.push(self._memo[index])

    def append(self, values: list[Any]) -> None:
        self._top_holding(list).extend(values)

    def add(self, values: list[Any]) -> None:
        self.top(set).update(self._keys(values))

    def set_items(self, items: list[Any]) -> None:
        """Put keys and values, by turns, into the dict on top."""
        if len(items) % 2:
            raise ValueError('a key has no value')
        self._top_holding(dict).update(zip(self._keys(items[::2]), items[1::2], strict=True))

    def _top_holding(self, kind: type) -> Any:
        """The topmost value, of this class; or, of an instance of one derived from it, the argument for its items."""
        value = self.top(kind, Named)
        if type(value) is kind:
            return value
        # Not to an argument of its own, which others may refer to.
        if not value.args or type(value.args[-1]) is not kind or id(value.args[-1]) not in self._made:
            self._spend(len(value.args))
            items = kind()
            self._made[id(items)] = items
            # In place: the memo has it already.
            force_setattr(value, 'args', (*value.args, items))
        return value.args[-1]

    def push_frozenset(self, values: list[Any]) -> None:
        self.push(frozenset(self._keys(values)))

    def push_name(self, module: str, name: str) -> None:
        self._spend(len(module) + len(name))
        self.push('%s.%s' % (_RENAMED_MODULES.get(module, module), name))

    def instantiate(self, name: str, args: tuple[Any, ...]) -> None:
        """Push what a class makes of arguments: plain data where Python pickles it so, or else a description."""
        match name, args:
            case ('_codecs.encode', (str(text), 'latin1')) | ('builtins.bytearray', (str(text), 'latin-1')):
                self._spend(len(text))
                self.push(text.encode('latin-1'))
            case ('builtins.bytes' | 'builtins.bytearray', ()):
                self.push(b'')
            case ('builtins.bytearray', (bytes(data),)):
                self.push(data)
            case ('builtins.set', (list(items),)):
                self._spend(_WORK_OF_A_KEY * len(items))
                self.push(set(self._keys(items)))
            case ('builtins.frozenset', (list(items),)):
                self._spend(_WORK_OF_A_KEY * len(items))
                self.push_frozenset(items)
            case _:
                # With a list first: the garbage collector never learns of one in which there is nothing for it when it
                # is made, and what is set later may lead back to it.
                instance = Named(name, args, [])
                force_setattr(instance, 'state', None)
                self.push(instance)

    def instantiate_with_keywords(self) -> None:
        keywords, args, name = self.pop(dict), self.pop(tuple), self.pop(str)
        self._spend(len(args))
        self.instantiate(name, (*args, keywords))

    def instantiate_items(self) -> None:
        name, *args = self.pop_items() or [None]
        if type(name) is not str:
            raise ValueError('the class is missing')
        self.instantiate(name, tuple(args))

    def set_state(self, state: Any) -> None:
        # In place: the memo has the instance already, for those who refer to it.
        force_setattr(self.top(Named), 'state', state)

    def _keys(self, values: Iterable[Any]) -> Iterator[Any]:
        """The values, each made sure of that it does no harm as a key of a dict or an element of a set."""
        for value in values:
            self._check_key(value)
            yield value

    def _check_key(self, key: Any) -> None:
        parts = [key]
        for part in parts:  # which get more meanwhile
            kind = type(part)
            if kind is str or kind is bytes:
                self._spend(len(part))
            elif kind is tuple or kind is frozenset:
                if len(parts) + len(part) > _KEY_PARTS:
                    raise ValueError('a key has more than %d parts' % _KEY_PARTS)
                parts.extend(part)
            elif kind is int:
                if part not in _KEY_INTEGERS:
                    raise ValueError('a key is an integer of more than 64 bits')
            elif kind is not bool and kind is not float and kind is not NoneType:
                raise ValueError('a %s cannot be a key' % kind.__name__)
        if len(parts) > 1:
            alike = self._keys_by_hash.setdefault(hash(key), [])
            if key not in alike:
                alike.append(key)
                if len(alike) > _KEYS_OF_ONE_HASH:
                    raise ValueError('more than %d keys have the same hash' % _KEYS_OF_ONE_HASH)

    def _spend(self, work: int) -> None:
        self._spent += work
        if self._spent > self._allowance:
            raise ValueError('it makes more work than its length accounts for')


def _weigh(value: Any, level: int, weighed: dict[int, tuple[int, int]], limit: int) -> tuple[int, int]:
    """How large a value is when it is written out, and how many levels it has.

    :param level: the level that it is on, from 1.
    :param weighed: what is known of the containers met so far, by their ids; no levels: it is being weighed just now.
    """
    kind = type(value)
    children: Iterable[Any]
    if kind is list or kind is tuple or kind is set or kind is frozenset:
        children = value
    elif kind is dict:
        children = chain(value, value.values())
    elif kind is Named:
        children = (value.name, value.args, value.state)
    elif kind is str or kind is bytes:
        return 1 + len(value), 0
    elif kind is int:
        return 1 + value.bit_length() // 8, 0
    else:
        return 1, 0
    size, levels = weighed.get(id(value), (0, 1))
    if not levels:
        raise ValueError('a value contains itself')
    if level + levels - 1 > _DEEPEST:
        raise ValueError('it is nested deeper than %d levels' % _DEEPEST)
    if not size:
        weighed[id(value)] = 0, 0
        size = 1
        for child in children:
            child_size, child_levels = _weigh(child, level + 1, weighed, limit)
            size += child_size
            levels = max(levels, 1 + child_levels)
            if size > limit:
                raise ValueError('it unfolds to more than its length accounts for')
        weighed[id(value)] = size, levels
    return size, levels


_Action = Callable[[Machine, Any], object]


def _check_protocol(_: Machine, protocol: int) -> None:
    if protocol > _NEWEST_PROTOCOL:
        raise ValueError('protocol %d is not known' % protocol)


def _nothing(_: Machine, __: Any) -> None:
    pass


def _push(machine: Machine, value: Any) -> None:
    machine.push(value)


def _pushing(make: Callable[[Machine], Any]) -> _Action:
    return lambda machine, _: machine.push(make(machine))


def _pushing_tuple_of(length: int) -> _Action:
    return lambda machine, _: machine.push(tuple([machine.pop() for _ in range(length)][::-1]))


def _memoize(machine: Machine, index: int | None) -> None:
    machine.memoize(index)


def _recall(machine: Machine, index: int) -> None:
    machine.recall(index)


def _set_item(machine: Machine, _: Any) -> None:
    value, key = machine.pop(), machine.pop()
    machine.set_items([key, value])


def _push_dict(machine: Machine, _: Any) -> None:
    items = machine.pop_items()
    machine.push({})
    machine.set_items(items)


def _push_global(machine: Machine, argument: str) -> None:
    module, _, name = argument.partition(' ')  # as pickletools joins them
    machine.push_name(module, name)


def _push_global_of_stack(machine: Machine, _: Any) -> None:
    name, module = machine.pop(str), machine.pop(str)
    machine.push_name(module, name)


def _instantiate(machine: Machine, _: Any) -> None:
    args, name = machine.pop(tuple), machine.pop(str)
    machine.instantiate(name, args)


def _instantiate_global(machine: Machine, argument: str) -> None:
    args = tuple(machine.pop_items())
    _push_global(machine, argument)
    machine.instantiate(machine.pop(), args)


# Opcodes that are missing stand for what only the sender's program knows: persistent ids, codes of copyreg's registry,
# buffers that are sent beside the pickle.
_ACTIONS: dict[str, _Action] = {
    'PROTO': _check_protocol,
    'FRAME': _nothing,
    'STOP': _nothing,
    'MARK': lambda machine, _: machine.mark(),
    'POP': lambda machine, _: machine.pop_anything(),
    'POP_MARK': lambda machine, _: machine.pop_items(),
    'DUP': _pushing(Machine.top),
    **dict.fromkeys(('PUT', 'BINPUT', 'LONG_BINPUT', 'MEMOIZE'), _memoize),
    **dict.fromkeys(('GET', 'BINGET', 'LONG_BINGET'), _recall),
    'NONE': _push,
    'NEWTRUE': _pushing(lambda _: True),
    'NEWFALSE': _pushing(lambda _: False),
    **dict.fromkeys(('INT', 'BININT', 'BININT1', 'BININT2', 'LONG', 'LONG1', 'LONG4', 'FLOAT', 'BINFLOAT'), _push),
    **dict.fromkeys(('STRING', 'BINSTRING', 'SHORT_BINSTRING'), _push),
    **dict.fromkeys(('UNICODE', 'SHORT_BINUNICODE', 'BINUNICODE', 'BINUNICODE8'), _push),
    **dict.fromkeys(('SHORT_BINBYTES', 'BINBYTES', 'BINBYTES8'), _push),
    'BYTEARRAY8': lambda machine, data: machine.push(bytes(data)),
    'EMPTY_LIST': _pushing(lambda _: []),
    'LIST': _pushing(Machine.pop_items),
    'APPEND': lambda machine, _: machine.append([machine.pop()]),
    'APPENDS': lambda machine, _: machine.append(machine.pop_items()),
    'EMPTY_TUPLE': _pushing(lambda _: ()),
    'TUPLE': _pushing(lambda machine: tuple(machine.pop_items())),
    'TUPLE1': _pushing_tuple_of(1),
    'TUPLE2': _pushing_tuple_of(2),
    'TUPLE3': _pushing_tuple_of(3),
    'EMPTY_DICT': _pushing(lambda _: {}),
    'DICT': _push_dict,
    'SETITEM': _set_item,
    'SETITEMS': lambda machine, _: machine.set_items(machine.pop_items()),
    'EMPTY_SET': _pushing(lambda _: set()),
    'ADDITEMS': lambda machine, _: machine.add(machine.pop_items()),
    'FROZENSET': lambda machine, _: machine.push_frozenset(machine.pop_items()),
    'GLOBAL': _push_global,
    'STACK_GLOBAL': _push_global_of_stack,
    **dict.fromkeys(('REDUCE', 'NEWOBJ'), _instantiate),
    'NEWOBJ_EX': lambda machine, _: machine.instantiate_with_keywords(),
    'INST': _instantiate_global,
    'OBJ': lambda machine, _: machine.instantiate_items(),
    'BUILD': lambda machine, _: machine.set_state(machine.pop()),
}
