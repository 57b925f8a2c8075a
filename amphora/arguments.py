"""Arguments of a call, checked and converted as the function's annotations say. No AMQP, no gevent."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from inspect import Parameter
from typing import Any, get_type_hints

import msgspec
from msgspec import inspect as types

# Characters of what is said of a misfit: the sender chooses how long some of it is.
_REASON_LENGTH = 500


class Misfit(Exception):
    """Arguments are not what the function takes; says which, and why."""


class Annotations:
    """What a function's annotations say of its arguments.

    :param function: the function, or anything else that can be called.
    :raises TypeError: Python does not know its parameters, or msgspec cannot check for an annotation; the error names
        it.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        try:
            self._signature = inspect.signature(function)
        except (TypeError, ValueError) as error:
            raise TypeError('the arguments of %r cannot be validated: %s' % (function, error)) from error
        hints = _hints(function)
        # By parameter: its kind, and the type of each value. Those that take anything are left out.
        self._types: dict[str, tuple[Any, Any]] = {}
        for name, parameter in self._signature.parameters.items():
            annotation = hints.get(name, Any)
            if annotation is not Any and annotation is not object:
                _check_annotation(function, name, annotation)
                self._types[name] = (parameter.kind, annotation)

    def fit(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments as the function takes them.

        :raises Misfit: they do not fit.
        """
        try:
            bound = self._signature.bind(*args, **kwargs)
        except TypeError as error:
            raise Misfit(str(error)[:_REASON_LENGTH]) from None
        given = bound.arguments
        for name, (kind, type) in self._types.items():
            if name not in given:
                continue
            value = given[name]
            if kind is Parameter.VAR_POSITIONAL:
                given[name] = tuple(_convert(each, type, '%s[%d]' % (name, index)) for index, each in enumerate(value))
            elif kind is Parameter.VAR_KEYWORD:
                given[name] = {key: _convert(each, type, key) for key, each in value.items()}
            else:
                given[name] = _convert(value, type, name)
        return bound.args, bound.kwargs

    def before(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """A function that checks and converts its arguments, and then calls with them."""

        @functools.wraps(call)
        def checked(*args: Any, **kwargs: Any) -> Any:
            args, kwargs = self.fit(args, kwargs)
            return call(*args, **kwargs)

        return checked


def _convert(value: Any, type: Any, name: str) -> Any:
    try:
        # In JSON every key is text; those of other formats are converted none the less.
        return msgspec.convert(value, type, str_keys=True)
    except msgspec.ValidationError as error:
        reason = str(error).replace(' - at `$', ' - at `%.100s' % name)
        raise Misfit('argument %.100r: %s' % (name, reason[:_REASON_LENGTH])) from None


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    annotated: Any = function
    while isinstance(annotated, functools.partial):
        annotated = annotated.func
    if isinstance(annotated, type):
        made = inspect.getattr_static(annotated, '__init__')
        if not (inspect.isfunction(made) or hasattr(annotated, '_fields')):
            made = getattr(inspect.getattr_static(annotated, '__new__'), '__func__', None)
        # Named tuples and Structs have none of their own: they are made of their fields.
        annotated = made if inspect.isfunction(made) else annotated
    elif not inspect.isroutine(annotated):
        annotated = type(annotated).__call__
    try:
        return get_type_hints(annotated, include_extras=True)
    except Exception as error:  # an annotation may be any expression
        raise TypeError(
            'the arguments of %r cannot be validated: its annotations do not evaluate: %s: %s'
            % (function, type(error).__name__, error)
        ) from error


def _check_annotation(function: Callable[..., Any], name: str, annotation: Any) -> None:
    """Make sure that msgspec can check for an annotation.

    :raises TypeError: it cannot.
    """
    try:
        unknown = next(_unknown(types.type_info(annotation), set()), None)
        reason = None if unknown is None else 'msgspec does not know %r' % unknown
    except Exception as error:  # annotations inside the class of an argument may be any expression as well
        reason = str(error)
    if reason is not None:
        raise TypeError('argument %r of %r cannot be validated: %s' % (name, function, reason))


def _unknown(node: Any, seen: set[int]) -> Iterator[Any]:
    """The classes in a type that msgspec could only tell apart from others, and make none of."""
    if isinstance(node, types.CustomType):
        yield node.cls
    elif isinstance(node, tuple):
        for each in node:
            yield from _unknown(each, seen)
    elif isinstance(node, types.Field):
        yield from _unknown(node.type, seen)
    elif isinstance(node, types.Type) and id(node) not in seen:
        seen.add(id(node))
        for field in node.__struct_fields__:
            yield from _unknown(getattr(node, field), seen)
