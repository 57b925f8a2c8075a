"""The table of functions, and calling one: `Request` in, `Reply` out. No AMQP, no gevent."""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable, Iterator
from reprlib import Repr
from typing import Any

from amphora.arguments import Annotations, Misfit
from amphora.envelope import Reply, Request
from amphora.errors import IgnoreRequest, RejectRequest, RemoteException, WrongRequest
from amphora.functions import DEFAULT_OPTIONS, FunctionOptions, check_function_name
from amphora.invocation import run

logger = logging.getLogger('amphora.dispatch')

Function = Callable[..., Any]
#: a function as it was given, how it is called, its options, and whether it is async; None: there is none
Registered = tuple[Function, Function, FunctionOptions, bool] | None

# How much of the arguments of a call that raised is logged, in characters.
_EXCERPT_LENGTH = 200


def is_async(function: object) -> bool:
    """Whether calling a function gives a coroutine."""
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)


class FunctionTable:
    """Functions by the name they are called by.

    :param limited: makes a function that ends by an exception when it has run for so many seconds.
    :param awaited: makes a function that runs an async function and returns or raises as that does. Without these two
        the table takes no functions that need them.
    :ivar async_names: names of the async functions, which `invoke` can end when their callers have gone.
    """

    def __init__(
        self,
        limited: Callable[[Function, float], Function] | None = None,
        awaited: Callable[[Function, str], Function] | None = None,
    ) -> None:
        self._limited = limited
        self._awaited = awaited
        # As they were given, and how they are called: most often the same.
        self._functions: dict[str, Function] = {}
        self._calls: dict[str, Function] = {}
        self._options: dict[str, FunctionOptions] = {}
        self.async_names: set[str] = set()

    def __iter__(self) -> Iterator[str]:
        return iter(self._functions)

    def __contains__(self, name: object) -> bool:
        return name in self._functions

    def items(self) -> Iterator[tuple[str, Function]]:
        """Names with their functions, in the order in which they were registered."""
        return iter(list(self._functions.items()))

    def options(self, name: str) -> FunctionOptions:
        """How a function is offered.

        :raises KeyError: there is none of that name.
        """
        return self._options[name]

    def add(self, function: Function, name: str, options: FunctionOptions = DEFAULT_OPTIONS) -> Registered:
        """Register a function; one of the same name is replaced.

        :returns: what it has replaced, for `put`.
        :raises TypeError: it cannot be called, or is an async generator; or its arguments are to be validated and
            cannot be; or the name is no text.
        :raises ValueError: the name is empty.
        """
        if not callable(function):
            raise TypeError('a function must be callable, which %r is not' % (function,))
        check_function_name(name)
        if inspect.isasyncgenfunction(function):
            raise TypeError('%r is an async generator, which gives no result to send' % (function,))
        call, waits = function, is_async(function)
        if waits:
            if self._awaited is None:
                raise TypeError('nothing here runs async functions such as %r' % (function,))
            call = self._awaited(call, name)
        if options.timeout is not None:
            call = self._limit(call, options.timeout)
        if options.validate:
            call = Annotations(function).before(call)
        before: Registered = None
        if name in self._functions:
            before = self._functions[name], self._calls[name], self._options[name], name in self.async_names
        self.put(name, (function, call, options, waits))
        return before

    def put(self, name: str, registered: Registered) -> None:
        """Have this under a name, as `add` has returned it; None: nothing."""
        self.async_names.discard(name)
        if registered is None:
            del self._functions[name], self._calls[name], self._options[name]
            return
        self._functions[name], self._calls[name], self._options[name], waits = registered
        if waits:
            self.async_names.add(name)

    def _limit(self, call: Function, seconds: float) -> Function:
        if self._limited is None:
            raise TypeError('nothing here limits the time of functions such as %r' % (call,))
        return self._limited(call, seconds)

    def invoke(self, request: Request, time_left: float | None = None) -> Reply:
        """Call the function; whatever it raises becomes part of the reply.

        :param time_left: seconds after which nobody waits for the answer any more, when that is known. An async
            function is cancelled then; any other goes on to its end.
        :raises IgnoreRequest: the function does not want this request: there is no reply.
        :raises RejectRequest: the function wants it to be set aside.
        :raises KeyboardInterrupt: that is for the program, whichever function it interrupts.
        """
        call = self._calls.get(request.function)
        if call is None:
            logger.warning('no function %.100r is registered', request.function)
            unknown = WrongRequest('no function %.100r is registered' % request.function)
            unknown.unknown_function = request.function
            return Reply(request.id, error=unknown)
        if time_left is not None and request.function in self.async_names:
            call = self._limit(call, time_left)
        try:
            return Reply(request.id, run(request.function, call, request.args, request.kwargs))
        except (IgnoreRequest, RejectRequest, KeyboardInterrupt):
            raise
        except Misfit as misfit:
            logger.warning('a wrong call of %s: %s', request.function, misfit)
            return Reply(request.id, error=WrongRequest('%s: %s' % (request.function, misfit)))
        except WrongRequest as error:
            # Of a call that the function has made itself: to its own caller this must not say that it did not run.
            logger.warning('%s raised WrongRequest', request.function, exc_info=True)
            return Reply(request.id, error=RemoteException('NestedWrongRequest', error.args))
        except BaseException as error:  # SystemExit, GreenletExit and gevent.Timeout end a call, not the server
            logger.warning('%s raised %s', request.function, type(error).__name__, exc_info=True)
            if logger.isEnabledFor(logging.DEBUG):
                args, kwargs = _excerpt(request.args), _excerpt(request.kwargs)
                logger.debug('%s was called with %s %s', request.function, args, kwargs)
            return Reply(request.id, error=as_exception(error))


def as_exception(error: BaseException) -> Exception:
    """The error, or what stands for one that is no `Exception`, for serializers that know nothing else."""
    if isinstance(error, Exception):
        return error
    try:
        args = tuple(error.args)
    except KeyboardInterrupt:
        raise
    except BaseException:  # a class may make a property of it
        args = ()
    return RemoteException(type(error).__name__, args)


class _Excerpts(Repr):
    """Looks at the beginning of a value only: the sender chooses how large it is, and how deep."""

    def repr_bytes(self, value: bytes, level: int) -> str:
        return repr(value[:_EXCERPT_LENGTH])


_excerpts = _Excerpts()
_excerpts.maxstring = _excerpts.maxlong = _excerpts.maxother = _EXCERPT_LENGTH


def _excerpt(value: object) -> str:
    """Some text of a value, for the log."""
    try:
        text = _excerpts.repr(value)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # what a serializer of the user's own makes may have any `repr`
        text = '<%s>' % type(error).__name__
    return text[:_EXCERPT_LENGTH]
