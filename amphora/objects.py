"""Which methods of an object are for others: what `AmqpRpcServer.add_object` offers."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any

from amphora.functions import check_function_name, options_of

# Methods that cannot be called before they are bound.
_UNBOUND = (classmethod, functools.partialmethod, functools.singledispatchmethod)


def public_methods(obj: object, name: str | None = None) -> dict[str, Callable[..., Any]]:
    """The public methods of an object, bound, as ``Class.method``; those of its base classes first.

    A method is what its class defines or inherits, static and class methods included. What is callable and only stored
    in an attribute is none. Nothing but methods is read from the object: properties do not run.

    :param name: in the place of the class's name.
    :raises TypeError: it is a class or a module, or the name is no text.
    :raises ValueError: it has none; or two are marked with the same name; or the name is empty.
    """
    if isinstance(obj, type):
        raise TypeError('%r is a class: give an object of it' % (obj,))
    if isinstance(obj, ModuleType):
        raise TypeError('%r is a module: mark its functions and give load_functions its vars()' % (obj,))
    kind = type(obj)
    prefix = kind.__name__ if name is None else check_function_name(name)
    methods: dict[str, Callable[..., Any]] = {}
    for attribute in dict.fromkeys(each for base in reversed(kind.__mro__) for each in vars(base)):
        if attribute.startswith('_') or not _is_method(obj, kind, attribute):
            continue
        method = getattr(obj, attribute)
        called = '%s.%s' % (prefix, options_of(method).name or attribute)
        if called in methods:
            raise ValueError('two methods of %r are named %r' % (obj, called))
        methods[called] = method
    if not methods:
        raise ValueError('%r has no public method' % (obj,))
    return methods


def _is_method(obj: object, kind: type, attribute: str) -> bool:
    defined = inspect.getattr_static(kind, attribute)
    if inspect.getattr_static(obj, attribute) is not defined:
        return False  # an attribute of the object's own hides it
    if isinstance(defined, _UNBOUND):
        return True
    return callable(defined) and not isinstance(defined, type) and hasattr(type(defined), '__get__')
