"""PrettyCaller: attributes and options become a function name, its arguments and a mapping of options.

Knows nothing of clients, messages or the wire, nor what an option means: it hands all of it to a callback.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NoReturn, TypeAlias

__all__ = ('NO_OPTIONS', 'Callback', 'PrettyCaller')

#: what a `PrettyCaller` calls: function name, positional arguments, keyword arguments, options
Callback: TypeAlias = Callable[[str, tuple[Any, ...], dict[str, Any], Mapping[str, Any]], Any]

#: the options of every call that was given none; compare with ``is`` to skip looking for them
NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})

_FUNCTION_NAME = 'function_name'

# How many callers one remembers that have been made of it by attributes.
_REMEMBERED = 1000

# callback, function name ('' while there is none), options, names of the options, verb, and callers by their names: no
# call changes them, so each is made once. One that was given options is not kept itself, and remembers none.
_State: TypeAlias = 'tuple[Callback, str, Mapping[str, Any], frozenset[str], str, dict[str, PrettyCaller] | None]'


class PrettyCaller:
    """Calls remote functions as if they were methods; no call changes it, so any part of one can be kept and reused.

    ::

        call.add(2, 3)                              # add
        call.send_message.sms('+123', 'Hello')      # send_message.sms
        call(timeout=5).add(2, 3)                   # add, with an option
        call(function_name='send_message.sms')('+123', 'Hello')

    While it has no function name, calling it takes options and gives a new caller; once it has one, calling it
    calls, and all arguments are the remote function's own. Every attribute is part of a remote name, except names with
    two underscores at both ends: those raise AttributeError, so that looking for one sends nothing. For the same
    reason `copy` and `pickle` are refused.

    :param callback: called as ``callback(function_name, args, kwargs, options)`` for each remote call; what it returns
        or raises is the call's outcome. ``options`` is read-only.
    :param option_names: options that are accepted beside ``function_name``, which is always one and never handed on.
    :param verb: what errors and `repr` call it.
    :raises TypeError: at an option that does not exist, at positional arguments without a function name, and at a
        ``function_name`` that is not a `str`.
    :raises ValueError: when ``function_name`` is empty.

    Source: the 2013 reference of ``AmqpRpcClient.call`` and ``defer``.
    """

    __slots__ = ('_state',)

    _state: _State

    def __init__(self, callback: Callback, option_names: frozenset[str] = frozenset(), verb: str = 'call') -> None:
        _fill(self, (callback, '', NO_OPTIONS, option_names, verb, {}))

    # Not __getattr__: that one is asked only after a lookup has failed, which costs more than all the rest, and it
    # would let the slot shadow a remote function of the same name.
    def __getattribute__(self, attribute: str) -> Any:
        callback, name, options, option_names, verb, callers = _read(self)
        full_name = name + '.' + attribute if name else attribute
        if callers is not None:
            caller = callers.get(full_name)
            if caller is not None:
                return caller
        if attribute[:2] == '__' == attribute[-2:] or not attribute:
            return object.__getattribute__(self, attribute)
        caller = _new(PrettyCaller)
        _fill(caller, (callback, full_name, options, option_names, verb, callers))
        if callers is not None and len(callers) < _REMEMBERED:
            callers[full_name] = caller
        return caller

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        callback, name, options, option_names, verb, _ = _read(self)
        if name:
            return callback(name, args, kwargs, options)
        if args:
            raise TypeError(
                f'{verb}() has no function name yet and takes options only; name the function as in '
                f"{verb}.add(2, 3) or {verb}(function_name='add')(2, 3)"
            )
        for option in kwargs:
            if option not in option_names and option != _FUNCTION_NAME:
                known = ', '.join(sorted(option_names | {_FUNCTION_NAME}))
                raise TypeError(f'{verb}() got an unexpected option {option!r}; options are {known}')
        if _FUNCTION_NAME in kwargs:
            name = _checked_name(kwargs.pop(_FUNCTION_NAME), verb)
        if kwargs:
            options = MappingProxyType({**options, **kwargs})
        caller = _new(PrettyCaller)
        _fill(caller, (callback, name, options, option_names, verb, None))
        return caller

    def __repr__(self) -> str:
        _, name, options, _, verb, _ = _read(self)
        target = verb + '.' + name if name else verb
        given = ''.join(f' {option}={value!r}' for option, value in options.items())
        return f'<PrettyCaller {target}{given}>'

    def __setattr__(self, attribute: str, value: Any) -> NoReturn:
        raise AttributeError(f'a PrettyCaller cannot be changed; {attribute!r} was not set')

    def __delattr__(self, attribute: str) -> NoReturn:
        raise AttributeError(f'a PrettyCaller cannot be changed; {attribute!r} was not deleted')

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError('a PrettyCaller belongs to its client and cannot be copied or pickled')


# Past __getattribute__ and __setattr__, to the one slot.
_read: Callable[[PrettyCaller], _State] = PrettyCaller.__dict__['_state'].__get__
_fill: Callable[[PrettyCaller, _State], None] = PrettyCaller.__dict__['_state'].__set__
_new: Callable[[type[PrettyCaller]], PrettyCaller] = object.__new__


def _checked_name(name: object, verb: str) -> str:
    if not isinstance(name, str):
        raise TypeError(f'{verb}(): function_name must be a str, not {type(name).__name__}')
    if not name:
        raise ValueError(f'{verb}(): function_name must not be empty')
    return name
