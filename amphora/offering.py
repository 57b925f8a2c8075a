"""What a server lets its clients call: functions, one by one, or all that an object, a module or a directory has.

Knows functions and their options; not where requests for them come from.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, overload

from amphora.dispatch import FunctionTable, Registered
from amphora.functions import FunctionOptions, marked_functions, name_of, options_of
from amphora.objects import public_methods
from amphora.plugins import plugin_functions
from amphora.time_limit import limited

if TYPE_CHECKING:
    from amphora.coroutines import Coroutines

F = TypeVar('F', bound=Callable[..., Any])


class Offering:
    """The functions of a server, and the ways to add some."""

    def __init__(self) -> None:
        self._functions = FunctionTable(limited, self._awaited)
        # What runs the async functions; None: there are none.
        self._coroutines: Coroutines | None = None

    @overload
    def add_function(self, func: F, name: str | None = None, **options: Any) -> F: ...

    @overload
    def add_function(self, func: str, **options: Any) -> Callable[[F], F]: ...

    @overload
    def add_function(self, func: None = None, name: str | None = None, **options: Any) -> Callable[[F], F]: ...

    def add_function(self, func: Any = None, name: str | None = None, **options: Any) -> Any:
        """Let clients call a function; in any of these forms::

            server.add_function(add)
            server.add_function(substract, name='sub')

            @server.add_function
            def multiply(x, y): ...

            @server.add_function('div', timeout=5, validate=True)
            def divide(x: int, y: int) -> float: ...

        It may raise `IgnoreRequest` to leave the request to another server. An ``async def`` function runs in an
        asyncio event loop in a thread of its own, which the servers of the process share.

        :param func: the function; or, as a decorator, its name.
        :param name: what clients call it; None: what `amphora.function` says, or else the function's own name.
        :param options: those of `amphora.function`, in the place of what that says.
        :returns: the function itself, or a decorator.
        :raises TypeError: it cannot be called, or has no name of its own and is given none; its annotations cannot be
            validated; an option does not exist or is of the wrong type.
        :raises ValueError: an option makes no sense.
        """
        if isinstance(func, str):
            if name is not None:
                raise TypeError('the name was given twice: %r and %r' % (func, name))
            func, name = None, func
        if func is None:
            return lambda decorated: self.add_function(decorated, name, **options)
        name = name_of(func) if name is None else name
        self._add([(name, func, options_of(func).but(options))])
        return func

    def add_object(self, obj: object, name: str | None = None) -> list[str]:
        """Let clients call the public methods of an object, as ``Class.method``::

            server.add_object(Stock())  # client.call.Stock.take('bolt', 3)

        Public are the methods that its class defines or inherits, static and class methods too, whose names do not
        begin with an underscore. What `amphora.function` says of a method counts.

        :param name: in the place of the class's name.
        :returns: the names that clients call.
        :raises TypeError: it is a class or a module; or a method cannot be added, as in `add_function`.
        :raises ValueError: it has no public method; or two are named the same.
        """
        return self._add_functions(public_methods(obj, name))

    def load_functions(self, namespace: Mapping[str, object]) -> list[str]:
        """Let clients call the functions that are marked with `amphora.function`, and no others::

            server.load_functions(globals())

        :param namespace: where they are. Those that were imported there count as well.
        :returns: the names that clients call.
        :raises TypeError: it is no mapping; or a function cannot be added, as in `add_function`.
        :raises ValueError: there is no marked function; or two are named the same.
        """
        functions = marked_functions(namespace)
        if not functions:
            raise ValueError('no function there is marked with @amphora.function')
        return self._add_functions(functions)

    def load_plugins(self, directory: str | os.PathLike[str]) -> list[str]:
        """Let clients call the functions that are marked with `amphora.function` in the files ``plugin*.py`` of a
        directory.

        The files are imported in the order of their names, each once in a process. When one of them is wrong nothing is
        added.

        :returns: the names that clients call.
        :raises FileNotFoundError: there is no such directory, or no such file in it.
        :raises NotADirectoryError: it is a file.
        :raises ImportError: a file cannot be imported; the error names it.
        :raises ValueError: a file has no marked function; or two functions are named the same.
        :raises TypeError: a function cannot be added, as in `add_function`.
        """
        return self._add_functions(plugin_functions(directory))

    def _add_functions(self, functions: Mapping[str, Callable[..., Any]]) -> list[str]:
        self._add((name, function, options_of(function)) for name, function in functions.items())
        return list(functions)

    def _add(self, functions: Iterable[tuple[str, Callable[..., Any], FunctionOptions]]) -> None:
        # All of them or none: one may be impossible, or have a name that no queue can have.
        replaced: list[tuple[str, Registered]] = []
        try:
            for name, function, options in functions:
                replaced.append((name, self._functions.add(function, name, options)))
            self._offered()
        except BaseException:
            for name, before in reversed(replaced):
                self._functions.put(name, before)
            raise

    def _offered(self) -> None:
        """Something was added; called once for all that one call adds.

        :raises ValueError: it cannot be offered.
        """

    def _awaited(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        if self._coroutines is None:
            # Here and not above: it takes asyncio, which is slow to import, and most servers do without.
            from amphora.coroutines import Coroutines

            self._coroutines = Coroutines()
        return self._coroutines.awaited(function, name)

    def _end_coroutines(self) -> None:
        """No async function runs any more, or is to."""
        if self._coroutines is not None:
            self._coroutines.close()
