"""What is in a value that is to be encoded: its parts, and floats that are infinite or not a number."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from math import isfinite
from typing import Any

import msgspec
from msgspec import Struct

#: what msgspec raises at values that it cannot encode
ENCODING_ERRORS = (TypeError, ValueError, OverflowError, RecursionError, BufferError, msgspec.MsgspecError)

# Bytes of a body that are worth thinking twice before looking through them.
_MUCH = 4096
_WITHOUT_FLOATS = frozenset((str, bytes, bool, int, type(None)))

# In MessagePack, a 64-bit float whose exponent is all ones: infinite or not a number. May match by chance.
_MAYBE_NOT_FINITE = re.compile(rb'\xcb[\x7f\xff][\xf0-\xff]', re.DOTALL)


def builtin(value: Any) -> Any:
    """What msgspec is to encode in place of a value that it does not know.

    :raises TypeError: there is nothing.
    """
    # Subclasses of these three it leaves to its users; the json module of the standard library takes them.
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int) and not isinstance(value, bool):  # True comes here as a key only
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    raise TypeError(f'cannot serialise a {type(value).__name__}')


#: any value to MessagePack
encode_msgpack = msgspec.msgpack.Encoder(enc_hook=builtin).encode


def hides_not_finite(body: bytes, value: Any, parts: Iterable[Any]) -> bool:
    """Whether a body has ``null`` where the value has a float that is infinite or not a number.

    :param parts: all that is in the value.
    """
    # Looking through much text takes as long as encoding it, and text holds no float.
    if len(body) > _MUCH and _WITHOUT_FLOATS.issuperset(map(type, parts)):
        return False
    # Not `in`: bytes try an integer first, which takes longer than the search. Nor `find`, which packs its arguments.
    return bool(body.partition(b'null')[1]) and _has_not_finite(value)


def _has_not_finite(value: Any) -> bool:
    """Whether a float in a value is infinite or not a number.

    A walk in Python would cost every message that has a null in it fifty times what encoding it once more costs.
    """
    try:
        if not _MAYBE_NOT_FINITE.search(encode_msgpack(value)):
            return False
    except ENCODING_ERRORS:  # such as an integer of more than 64 bits, which JSON can carry
        pass
    stack = [value]
    while stack:
        value = stack.pop()
        if isinstance(value, float) and not isfinite(value):
            return True
        stack.extend(child for _, _, child in children(value))
    return False


def children(value: Any) -> Iterator[tuple[str, Any, Any]]:
    """The values that a value is encoded by, each with the way to it: how, and by what index, key or name."""
    if isinstance(value, dict):
        for key, child in value.items():
            yield '[', key, child
    elif isinstance(value, (list, tuple)):
        for index, child in enumerate(value):
            yield '[', index, child
    elif isinstance(value, (set, frozenset)):
        for child in value:
            yield '{', None, child
    elif isinstance(value, Enum):
        yield '.', 'value', value.value
    elif not isinstance(value, type):
        for name in _field_names(value):
            yield '.', name, getattr(value, name, None)


def _field_names(value: Any) -> Sequence[str]:
    if isinstance(value, Struct):
        return value.__struct_fields__
    if is_dataclass(value):
        return [field.name for field in fields(value)]
    return [attribute.name for attribute in getattr(type(value), '__attrs_attrs__', ())]
