"""The table of functions, and calling one: `Request` in, `Reply` out. No AMQP, no gevent."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from reprlib import Repr
from typing import Any

from amphora.envelope import Reply, Request
from amphora.errors import IgnoreRequest, RejectRequest, RemoteException, WrongRequest

logger = logging.getLogger('amphora.dispatch')

Function = Callable[..., Any]

# How much of the arguments of a call that raised is logged, in characters.
_EXCERPT_LENGTH = 200


class FunctionTable:
    """Functions by the name they are called by."""

    def __init__(self) -> None:
        self._functions: dict[str, Function] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(self._functions)

    def __contains__(self, name: object) -> bool:
        return name in self._functions

    def items(self) -> Iterator[tuple[str, Function]]:
        """Names with their functions, in the order in which they were registered."""
        return iter(list(self._functions.items()))

    def add(self, function: Function, name: str) -> None:
        """Register a function; one of the same name is replaced.

        :raises TypeError: it cannot be called, or the name is no text.
        :raises ValueError: the name is empty.
        """
        if not callable(function):
            raise TypeError('a function must be callable, which %r is not' % (function,))
        if not isinstance(name, str):
            raise TypeError('the name of a function must be a str, not %r' % (name,))
        if not name:
            raise ValueError('the name of a function must not be empty')
        self._functions[name] = function

    def invoke(self, request: Request) -> Reply:
        """Call the function; whatever it raises becomes part of the reply.

        :raises IgnoreRequest: the function does not want this request: there is no reply.
        :raises RejectRequest: the function wants it to be set aside.
        :raises KeyboardInterrupt: that is for the program, whichever function it interrupts.
        """
        function = self._functions.get(request.function)
        if function is None:
            logger.warning('no function %.100r is registered', request.function)
            unknown = WrongRequest('no function %.100r is registered' % request.function)
            unknown.unknown_function = request.function
            return Reply(request.id, error=unknown)
        try:
            return Reply(request.id, function(*request.args, **request.kwargs))
        except (IgnoreRequest, RejectRequest, KeyboardInterrupt):
            raise
        except BaseException as error:  # SystemExit, GreenletExit and gevent.Timeout end a call, not the server
            logger.warning('%s raised %s', request.function, type(error).__name__, exc_info=True)
            if logger.isEnabledFor(logging.DEBUG):
                args, kwargs = _excerpt(request.args), _excerpt(request.kwargs)
                logger.debug('%s was called with %s %s', request.function, args, kwargs)
            if not isinstance(error, Exception):
                error = _as_exception(error)
            return Reply(request.id, error=error)


def _as_exception(error: BaseException) -> Exception:
    """What stands for something that is no `Exception`, for serializers that know nothing else."""
    try:
        args = tuple(error.args)
    except Exception:  # a class may make a property of it
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
    except Exception as error:  # what a serializer of the user's own makes may have any `repr`
        text = '<%s>' % type(error).__name__
    return text[:_EXCERPT_LENGTH]
