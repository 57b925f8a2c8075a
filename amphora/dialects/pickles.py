"""Plain data in Python's pickle format: read without ever being loaded as pickle, and written for those who do.

What a pickle from the network names is never imported, and nothing in it is called: a class becomes its name, an
instance a description. Knows no dialect: which messages hold pickles, and what becomes of their values, is theirs.
"""

from __future__ import annotations

import builtins
import pickle
from collections.abc import Sequence
from io import BytesIO
from pickletools import genops
from typing import Any

from amphora.dialects.unpickling import Machine, Named

__all__ = ('Named', 'dump', 'dump_exception', 'exception_of', 'load')

# The newest that every Python 3 loads; 5 adds only what no plain data needs.
_PROTOCOL = 4

_TEXT_LENGTH = 1000

# What a pickle holds once it can refer to often: `t = (t, t)` fifty times would be petabytes in JSON. Those that
# programs make refer to short texts and small records, at two to five bytes a reference.
_ALLOWED_PER_BYTE = 64
_ALLOWED_ALWAYS = 1_000_000


def load(data: bytes) -> Any:
    """The value in a pickle of any protocol.

    None, bool, int, float, str, bytes, list, tuple, dict, set and frozenset come as they are, a bytearray comes as
    bytes, a class as its dotted name, and an instance of any other class as a `Named`.

    :raises ValueError: it is no pickle, or not a complete one; it refers to what is not in it; it holds a value that
        contains itself, is nested deeper than 200 levels, or has a key of more than 32 parts; or it was made to take
        more time or memory than its length accounts for.
    """
    machine = Machine(_ALLOWED_ALWAYS + _ALLOWED_PER_BYTE * len(data))
    at: int | None = 0
    try:
        for opcode, argument, position in genops(data):
            at = position
            machine.execute(opcode.name, argument)
        if at != len(data) - 1:
            raise ValueError('bytes follow its end')
        return machine.result()
    except Exception as error:  # no code but this and the standard library's runs in there: the bytes caused it
        reason = str(error) if isinstance(error, ValueError) else '%s: %s' % (type(error).__name__, error)
    # Raised out here it has no cause, of which nobody would learn more, and which holds on to the bytes.
    raise ValueError('malformed pickle, near byte %s: %.200s' % (at, reason))


def dump(value: Any) -> bytes:
    """A pickle of plain data, which every Python 3 loads.

    :param value: None, bool, int, float, str, bytes, bytearray, list, tuple, dict, set or frozenset, and nothing but
        these in it.
    :raises TypeError: it is, or holds, something else; the error names the class.
    :raises ValueError: it is nested too deeply.
    """
    file = BytesIO()
    try:
        _PlainPickler(file, _PROTOCOL).dump(value)
    except RecursionError:
        raise ValueError('the value is nested too deeply for a pickle') from None
    except pickle.PicklingError as error:  # only of the standard library's own PickleBuffer
        raise TypeError('cannot serialise the value: %s' % error) from None
    return file.getvalue()


def dump_exception(type_name: str, args: Sequence[Any]) -> bytes:
    """A pickle of an exception, which every Python 3 loads and can raise.

    It is of the builtin class of that name if there is one that takes these arguments, or else an `Exception` whose
    text says the name and the arguments.

    :param type_name: name of the exception's class.
    :param args: what it was made with; what is no plain data goes as its `repr`, shortened.
    """
    plain = tuple(arg if _is_plain(arg) else _text_of(arg) for arg in args)
    kind = getattr(builtins, type_name, None)
    # What is no Exception would end the program that raises it; asyncio's futures refuse a StopIteration.
    if isinstance(kind, type) and issubclass(kind, Exception) and kind is not StopIteration:
        try:
            return pickle.dumps(kind(*plain), _PROTOCOL)
        except Exception:  # each class refuses other arguments in its own way
            pass
    text = ', '.join(arg if isinstance(arg, str) else _text_of(arg) for arg in plain)
    return pickle.dumps(Exception('%s: %s' % (type_name, text) if text else type_name), _PROTOCOL)


def exception_of(value: Any) -> tuple[str, tuple[Any, ...]] | None:
    """The name of the class, without its module, and the arguments of a pickled exception; None: the value is none.

    :param value: what `load` gave. Any instance of a class is taken for an exception: whether it is one, only the
        class could tell. Instances among its arguments become text.
    """
    if not isinstance(value, Named):
        return None
    return value.name.rpartition('.')[2], tuple(map(_without_instances, value.args))


class _PlainPickler(pickle.Pickler):
    """Refuses what the pickler of the standard library does not know by itself, subclasses of what it knows too."""

    def reducer_override(self, value: Any) -> Any:
        """Called with whatever that is."""
        if value is bytearray:  # protocol 4 has no opcode for one, so the class is named
            return NotImplemented
        raise TypeError(
            'cannot serialise a %s: a pickle for others holds None, bool, int, float, str, bytes, bytearray, list, '
            'tuple, dict, set and frozenset' % type(value).__name__
        )


def _is_plain(value: Any) -> bool:
    try:
        dump(value)
    except (TypeError, ValueError):
        return False
    return True


def _text_of(value: Any) -> str:
    """Text that stands for a value, whatever its class does."""
    try:
        return '%.*r' % (_TEXT_LENGTH, value)
    except Exception:  # the class is the user's; and an integer may have too many digits
        return '<%s>' % type(value).__name__


def _without_instances(value: Any) -> Any:
    """The value with text in the place of each `Named`."""
    kind = type(value)
    if kind is Named:
        return _text_of(value)
    if kind is list or kind is tuple:
        return kind(map(_without_instances, value))
    if kind is dict:
        return {key: _without_instances(child) for key, child in value.items()}
    return value
