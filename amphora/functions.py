"""What its author says of a function: the mark that `function` leaves on it, and the options in that.

Knows neither servers nor how an option is honoured.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from types import MethodType
from typing import Any, TypeVar, overload

import msgspec
from msgspec import Struct

from amphora.checks import check_flag, check_integer, check_milliseconds
from amphora.queue_arguments import MAX_QUEUE_SIZE

Function = Callable[..., Any]
F = TypeVar('F', bound=Function)

#: the longest `timeout` and `ttl`, in seconds: a year
MAX_SECONDS = 31_536_000
# With two underscores at both ends, because of objects that make something of any other name: a PrettyCaller, a proxy.
_MARK = '__amphora_options__'


class FunctionOptions(Struct, frozen=True, kw_only=True):
    """How a function is to be offered; checked when it is made.

    :ivar name: what clients call it; None: its own name.
    :ivar queue_size: requests that may wait in the function's queue; None: no limit.
    :ivar prefetch: unacked requests that a server takes from the function's queue at once; None: the server's.
    :ivar ttl: seconds that a request may wait in the function's queue; None: no limit.
    :ivar timeout: seconds that one run of the function may take; None: no limit.
    :ivar validate: whether arguments are checked against the function's annotations.
    """

    name: str | None = None
    queue_size: int | None = None
    prefetch: int | None = None
    ttl: float | None = None
    timeout: float | None = None
    validate: bool = False

    def __post_init__(self) -> None:
        if self.name is not None:
            check_function_name(self.name)
        if self.queue_size is not None:
            check_integer(self.queue_size, 'queue_size', 1, MAX_QUEUE_SIZE)
        if self.prefetch is not None:
            check_integer(self.prefetch, 'prefetch', 1, 65535)
        for what, seconds in (('ttl', self.ttl), ('timeout', self.timeout)):
            if seconds is not None:
                check_milliseconds(seconds, what, MAX_SECONDS)
        check_flag(self.validate, 'validate')

    def but(self, changes: Mapping[str, Any]) -> FunctionOptions:
        """These options with some of them changed.

        :raises TypeError: one does not exist, or is of the wrong type.
        :raises ValueError: one makes no sense.
        """
        for option in changes:
            if option not in FunctionOptions.__struct_fields__:
                known = ', '.join(FunctionOptions.__struct_fields__)
                raise TypeError('a function has no option %s; there are: %s' % (option, known))
        return FunctionOptions(**{**msgspec.structs.asdict(self), **changes}) if changes else self


#: of a function that nothing is said of
DEFAULT_OPTIONS = FunctionOptions()


def check_function_name(name: object) -> str:
    """The name, when it can be one of a function's.

    :raises TypeError: it is no text.
    :raises ValueError: it is empty, or cannot be encoded as UTF-8.
    """
    if not isinstance(name, str):
        raise TypeError('the name of a function must be a str, not %r' % (name,))
    if not name:
        raise ValueError('the name of a function must not be empty')
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise ValueError('the name of a function cannot be encoded as UTF-8: %s' % error) from error
    return name


@overload
def function(func: F, /) -> F: ...


@overload
def function(
    *,
    name: str | None = None,
    queue_size: int | None = None,
    prefetch: int | None = None,
    ttl: float | None = None,
    timeout: float | None = None,
    validate: bool = False,
) -> Callable[[F], F]: ...


def function(func: Any = None, /, **options: Any) -> Any:
    """Mark a function as one to offer, and say how; with options or without::

        @amphora.function
        def add(x, y): ...

        @amphora.function(name='div', timeout=5, validate=True)
        def divide(x: int, y: int) -> float: ...

    The function stays what it is and can be called as before. `AmqpRpcServer.load_functions` and
    `AmqpRpcServer.load_plugins` offer what is marked; `AmqpRpcServer.add_function` and `AmqpRpcServer.add_object` heed
    the options.

    :param name: what clients call it; None: its own name. Of a method it is what stands behind the class's name.
    :param queue_size: how many requests may wait; over it the caller gets `QueueFull` at once. This, `prefetch` and
        `ttl` are for dialects that have a queue for each function.
    :param prefetch: unacked requests that a server takes from the function's queue at once; None: as the server's.
    :param ttl: seconds that a request may wait in the function's queue.
    :param timeout: seconds that one run may take. What runs longer is ended by a `gevent.Timeout`, and an async
        function is cancelled; its caller gets a `RemoteException` of the type ``Timeout``.
    :param validate: check the arguments against the annotations, and convert them, with `msgspec.convert`; what does
        not fit is answered with `WrongRequest`.
    :raises TypeError: an option does not exist or is of the wrong type; or what is marked is no function.
    :raises ValueError: an option makes no sense; the error names it.
    """
    made = DEFAULT_OPTIONS.but(options)
    if func is None:
        return lambda decorated: _mark(decorated, made)
    return _mark(func, made)


def _mark(func: F, options: FunctionOptions) -> F:
    # In a class body, `@amphora.function` may stand above `@staticmethod`.
    target = func.__func__ if isinstance(func, (staticmethod, classmethod)) else func
    if isinstance(target, str):
        raise TypeError('give the name of a function as name=%r' % target)
    if isinstance(target, type) or not callable(target):
        raise TypeError('amphora.function marks functions, and %r is none' % (target,))
    try:
        setattr(target, _MARK, options)
    except AttributeError as error:
        raise TypeError('%r cannot be marked: add it with server.add_function instead' % (target,)) from error
    return func


def mark_of(value: object) -> FunctionOptions | None:
    """What the mark of a function says; None: it has none. Any object may be asked: its own code does not run."""
    if type(value) is MethodType:
        value = value.__func__
    mark = inspect.getattr_static(value, _MARK, None)
    return mark if isinstance(mark, FunctionOptions) else None


def options_of(func: object) -> FunctionOptions:
    """What the mark of a function says, or else the default."""
    return mark_of(func) or DEFAULT_OPTIONS


def name_of(func: Function) -> str:
    """What clients call a function unless they are told otherwise.

    :raises TypeError: it has no name.
    """
    name = options_of(func).name or getattr(func, '__name__', None)
    if name is None:
        raise TypeError('%r has no name of its own: give one with name=' % (func,))
    return check_function_name(name)


def marked_functions(namespace: Mapping[str, object]) -> dict[str, Function]:
    """The marked functions of a namespace by the names that clients call them.

    :param namespace: such as ``globals()`` or the ``vars()`` of a module.
    :raises TypeError: it is no mapping.
    :raises ValueError: two different functions have the same name.
    """
    if not isinstance(namespace, Mapping):
        raise TypeError('functions are loaded from a mapping such as globals(), not from %r' % (namespace,))
    found: dict[str, Function] = {}
    for value in list(namespace.values()):
        if mark_of(value) is not None and callable(value):
            name = name_of(value)
            if found.setdefault(name, value) != value:
                raise ValueError('two functions are named %r: %r and %r' % (name, found[name], value))
    return found
