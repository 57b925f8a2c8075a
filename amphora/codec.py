"""What goes over the wire of a call and of its result, in one format: the envelopes, encoded and decoded.

``{"func", "args", "kwargs"}`` and ``{"result"}`` or ``{"exception": {"type", "args"}}``. Nothing is imported or
instantiated because of what was received.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NoReturn

import msgspec
from msgspec import UNSET, Struct, UnsetType

from amphora.errors import RemoteException, WrongRequest, WrongResult, remote_error
from amphora.values import ENCODING_ERRORS, builtin, children, encode_msgpack, hides_not_finite

try:
    from amphora.long_texts import HOLE, LONG, MARK, begins_plain, fill, take_out
except ImportError:  # nothing could be compiled where this was installed: no text is long
    LONG = sys.maxsize

# How much is said of a malformed body, and of an exception's argument that does not serialise, in characters.
_REASON_LENGTH = 200
_TEXT_LENGTH = 1000


class _Call(Struct, gc=False):
    func: str
    args: Sequence[Any]
    kwargs: Mapping[str, Any]


class _ReceivedCall(Struct, gc=False):
    func: str
    args: list[Any]
    kwargs: dict[str, Any]


class _Fault(Struct, gc=False):
    type: str
    args: list[Any] = []


class _Reply(Struct, gc=False):
    result: Any = UNSET
    exception: _Fault | UnsetType = UNSET


class _NotFinite(ValueError):
    """A value holds an infinite float or NaN, and the format would make null of it."""


class Codec:
    """One format's way to serialise.

    :param encode: any value to bytes.
    :param decode_call: bytes to a `_ReceivedCall`.
    :param decode_reply: bytes to a `_Reply`.
    :param nulls_not_finite: whether `encode` writes floats that are infinite or not a number as ``null``.
    """

    def __init__(
        self,
        encode: Callable[[Any], bytes],
        decode_call: Callable[[bytes], _ReceivedCall],
        decode_reply: Callable[[bytes], _Reply],
        nulls_not_finite: bool,
    ) -> None:
        self._encode = encode
        self._decode_call = decode_call
        self._decode_reply = decode_reply
        self._nulls_not_finite = nulls_not_finite

    def serialize_call(self, func: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bytes:
        """See `amphora.serializer.AbstractRpcSerializer`."""
        call = _Call(func, args, kwargs)
        try:
            return self._encode_call(call, args, kwargs)
        except ENCODING_ERRORS as error:
            self._refuse_call(call, error)

    def deserialize_call(self, body: bytes) -> tuple[str, list[Any], dict[str, Any]]:
        """See `amphora.serializer.AbstractRpcSerializer`."""
        try:
            call = self._read_call(body)
        except Exception as error:  # no code but msgspec's runs in there: whatever it is, the bytes caused it
            # Of its traceback nobody learns more, and it would hold on to the body.
            raise WrongRequest(_reason('request', error)) from error.with_traceback(None)
        return call.func, call.args, call.kwargs

    def serialize_result(self, obj: Any) -> bytes:
        """See `amphora.serializer.AbstractRpcSerializer`."""
        if isinstance(obj, BaseException):
            return self._serialize_exception(obj)
        try:
            return self._encode_result(obj)
        except ENCODING_ERRORS as failure:
            error, description = self._describe('result', obj, failure)
            raise error(f'the result cannot be serialised: {description}') from failure

    def deserialize_result(self, body: bytes) -> Any:
        """See `amphora.serializer.AbstractRpcSerializer`."""
        try:
            reply = self._read_reply(body)
        except Exception as error:  # as above
            raise WrongResult(_reason('reply', error)) from error.with_traceback(None)
        fault = reply.exception
        if isinstance(fault, UnsetType):
            if reply.result is UNSET:
                raise WrongResult('malformed reply: it has neither a result nor an exception')
            return reply.result
        if reply.result is not UNSET:
            raise WrongResult('malformed reply: it has both a result and an exception')
        raise remote_error(fault.type, fault.args)

    def _serialize_exception(self, exception: BaseException) -> bytes:
        kind: Any = exception.error_type if isinstance(exception, RemoteException) else type(exception).__name__
        args = _args_of(exception)
        failure, body = self._try(_exception_envelope(kind, args))
        if failure is None and isinstance(kind, str):
            return body
        kind = _clean(kind) if isinstance(kind, str) else type(exception).__name__
        # Each is tried inside an envelope, so that what nests too deeply fails here and not below.
        args = [_text_of(arg) if self._try(_exception_envelope('', [arg]))[0] else arg for arg in args]
        return self._encode(_exception_envelope(kind, args))

    def _encode_call(self, call: _Call, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bytes:
        return self._checked(call, (*args, *kwargs.values()) if kwargs else args)

    def _encode_result(self, obj: Any) -> bytes:
        # A dict and not a _Reply, which would leave out a result that is msgspec's UNSET.
        return self._checked({'result': obj}, (obj,))

    def _read_call(self, body: bytes) -> _ReceivedCall:
        return self._decode_call(body)

    def _read_reply(self, body: bytes) -> _Reply:
        return self._decode_reply(body)

    def _checked(self, value: Any, parts: Iterable[Any]) -> bytes:
        """A value, encoded.

        :param parts: what the value consists of.
        :raises: one of `ENCODING_ERRORS`, which `_NotFinite` is too.
        """
        body = self._encode(value)
        if self._nulls_not_finite and hides_not_finite(body, value, parts):
            raise _NotFinite('a float is infinite or not a number')
        return body

    def _try(self, value: Any) -> tuple[Exception | None, bytes]:
        """Why a value cannot be encoded, or None and what it is encoded to."""
        try:
            return None, self._checked(value, (value,))
        except ENCODING_ERRORS as error:
            # Its traceback leads back to who asks: a circle, and the value would stay until the garbage is collected.
            return error.with_traceback(None), b''

    def _refuse_call(self, call: _Call, cause: Exception) -> NoReturn:
        """Say which of a call's arguments cannot be serialised, and what in it."""
        arguments: list[tuple[str, str, Any]] = [('the function name', 'it', call.func)]
        arguments += ((f'argument {n + 1}', f'args[{n}]', arg) for n, arg in enumerate(call.args))
        arguments += ((f'keyword argument {name!r}', f'kwargs[{name!r}]', arg) for name, arg in call.kwargs.items())
        for what, path, value in arguments:
            failure, _ = self._try(value)
            if failure is not None:
                error, description = self._describe(path, value, failure)
                raise error(f'{what} of {call.func!r} cannot be serialised: {description}') from cause
        # Each is fine alone: a keyword is not, or all together nest too deeply.
        error, description = self._describe('kwargs', call.kwargs, cause)
        raise error(f'the arguments of {call.func!r} cannot be serialised: {description}') from cause

    def _describe(self, path: str, value: Any, failure: Exception) -> tuple[type[Exception], str]:
        """The class and the text of the error for a value that failed: what it is that fails, at which path in it."""
        # What refers to itself would have no end.
        while not isinstance(failure, RecursionError) and (found := self._failing_part(path, value)):
            path, value, failure = found
        path = _shortened(path, _REASON_LENGTH)
        if isinstance(failure, RecursionError):
            return ValueError, f'{path} refers to itself or is nested too deeply'
        if isinstance(failure, UnicodeEncodeError):
            return ValueError, f'{path} holds a lone surrogate, which UTF-8 cannot carry'
        if isinstance(failure, _NotFinite):
            return ValueError, f'{path} is {float.__repr__(value)}, which JSON cannot carry'
        if isinstance(failure, TypeError):
            return TypeError, f'{path} is a {type.__repr__(type(value))}'
        return ValueError, f'{path} is out of range: {failure}'

    def _failing_part(self, path: str, value: Any) -> tuple[str, Any, Exception] | None:
        """The first part of a value that fails by itself: the path to it, the part, and why."""
        for way, key, child in children(value):
            failure, _ = self._try(child)
            if failure is not None:
                return _step(path, way, key), child, failure
        if isinstance(value, dict):
            for key in value:
                failure, _ = self._try({key: 0})
                if failure is not None:
                    return f'(a key of {path})', key, failure
        return None


_SEQUENCES = frozenset((list, tuple))


class JsonCodec(Codec):
    """JSON, in which a long text, as an argument or as the result, goes past msgspec."""

    def _encode_call(self, call: _Call, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bytes:
        body: bytes | None = None
        lifted = _lift(args, kwargs)
        if lifted is not None:
            text, others, named = lifted
            body = fill(Codec._encode_call(self, _Call(call.func, others, named), others, named), text)
        return body or Codec._encode_call(self, call, args, kwargs)

    def _encode_result(self, obj: Any) -> bytes:
        body: bytes | None = None
        if type(obj) is str and len(obj) >= LONG and begins_plain(obj):
            body = fill(Codec._encode_result(self, HOLE), obj)
        return body or Codec._encode_result(self, obj)

    def _read_call(self, body: bytes) -> _ReceivedCall:
        if type(body) is bytes and len(body) > LONG:
            taken = take_out(body, 2)
            if taken is not None:
                with suppress(Exception):  # what is wrong with it is to be said of the whole body
                    call = self._decode_call(taken[0])
                    if _put_back(taken[1], call):
                        return call
        return self._decode_call(body)

    def _read_reply(self, body: bytes) -> _Reply:
        if type(body) is bytes and len(body) > LONG:
            taken = take_out(body, 1)
            if taken is not None:
                with suppress(Exception):  # as above
                    reply = self._decode_reply(taken[0])
                    if reply.result == MARK:
                        reply.result = taken[1]
                        return reply
        return self._decode_reply(body)


def _lift(args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[str, Sequence[Any], Mapping[str, Any]] | None:
    """A long text among a call's arguments, and the arguments with a hole where it was.

    None when there is none, or when it would be of no use: it is not plain, or there is more text beside it.
    """
    # Of what else the arguments may be in, msgspec knows whether it takes it, and what it makes of it.
    if type(args) not in _SEQUENCES or type(kwargs) is not dict:
        return None
    longest, size = '', 0
    for value in (*args, *kwargs.values()) if kwargs else args:
        if type(value) is str:
            size += len(value)
            if len(value) > len(longest):
                longest = value
    if len(longest) < LONG or 2 * len(longest) <= size or not begins_plain(longest):
        return None
    others = [HOLE if value is longest else value for value in args]
    return longest, others, {name: HOLE if value is longest else value for name, value in kwargs.items()}


def _put_back(text: str, call: _ReceivedCall) -> bool:
    """Put a text where its mark is among a call's arguments; False where it is not."""
    for place, value in enumerate(call.args):
        if value == MARK:
            call.args[place] = text
            return True
    for name, value in call.kwargs.items():
        if value == MARK:
            call.kwargs[name] = text
            return True
    return False


def _step(path: str, way: str, key: Any) -> str:
    """A path and one step more, as Python would write it, but for the elements of sets, which Python cannot name."""
    if way == '[':
        return f'{path}[{_text_of(key)}]'
    return f'{path}.{key}' if way == '.' else f'(an element of {path})'


def _exception_envelope(kind: str, args: list[Any]) -> dict[str, dict[str, Any]]:
    return {'exception': {'type': kind, 'args': args}}


def _args_of(exception: BaseException) -> list[Any]:
    try:
        args: Any = exception.args
    except KeyboardInterrupt:
        raise
    except BaseException:  # a class may make a property of it, and gevent.Timeout is no Exception
        return []
    return list(args) if isinstance(args, (list, tuple)) else [args]


def _text_of(value: Any) -> str:
    """Text that stands for a value which cannot be serialised, whatever its class does."""
    for to_text in (repr, str):
        try:
            return _clean(to_text(value))
        except KeyboardInterrupt:
            raise
        except BaseException:  # the class is the user's
            continue
    return f'<{type(value).__name__}>'


def _clean(text: str) -> str:
    return _shortened(text, _TEXT_LENGTH).encode(errors='backslashreplace').decode()


def _shortened(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 3] + '...'


def _reason(what: str, error: Exception) -> str:
    return _shortened(f'malformed {what}: {error}', _REASON_LENGTH)


#: JSON
json = JsonCodec(
    msgspec.json.Encoder(enc_hook=builtin).encode,
    msgspec.json.Decoder(_ReceivedCall).decode,
    msgspec.json.Decoder(_Reply).decode,
    nulls_not_finite=True,
)
#: MessagePack
msgpack = Codec(
    encode_msgpack,
    msgspec.msgpack.Decoder(_ReceivedCall).decode,
    msgspec.msgpack.Decoder(_Reply).decode,
    nulls_not_finite=False,
)
