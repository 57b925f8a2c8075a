"""Serializers: calls and results to bytes and back, in JSON and in MessagePack.

Each is a format's name and its way to serialise, in the form that users may give their own in. Knows not who sends the
bytes, nor over what.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from amphora.codec import json, msgpack

__all__ = ('AbstractRpcSerializer', 'RpcJsonSerializer', 'RpcMsgPackSerializer')


class AbstractRpcSerializer:
    """What a serializer must offer. Classes are used as they are given, without being instantiated; objects work too.

    Source: the 2013 reference; serializers written for that release work unchanged.
    """

    #: content type of the messages; without one they carry none
    content_type: str = ''

    @staticmethod
    def serialize_call(func: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str | bytes:
        """The body of a request.

        :param func: name of the remote function.
        :param args: its positional arguments.
        :param kwargs: its keyword arguments.
        :raises TypeError, ValueError: an argument cannot be serialised.
        """
        raise NotImplementedError

    @staticmethod
    def deserialize_call(body: bytes) -> tuple[str, Sequence[Any], Mapping[str, Any]]:
        """Function name, positional and keyword arguments of a request.

        :param body: the body of a request, as it was received.
        :raises amphora.WrongRequest: it is none.
        """
        raise NotImplementedError

    @staticmethod
    def serialize_result(obj: Any) -> str | bytes:
        """The body of a reply.

        :param obj: what the remote function returned, or the exception that it raised.
        :raises TypeError, ValueError: the result cannot be serialised. An exception always can, in some form.
        """
        raise NotImplementedError

    @staticmethod
    def deserialize_result(body: bytes) -> Any:
        """The result in a reply.

        :param body: the body of a reply, as it was received.
        :raises amphora.RemoteException: the remote function raised.
        :raises amphora.WrongRequest: the server did not understand the request.
        :raises amphora.WrongResult: the body is no reply.
        """
        raise NotImplementedError


def check_serializer(serializer: object) -> None:
    """Make sure that something offers what `AbstractRpcSerializer` demands.

    :raises TypeError: it does not; the error names what is missing.
    """
    missing = [
        name
        for name in ('serialize_call', 'deserialize_call', 'serialize_result', 'deserialize_result')
        if not callable(getattr(serializer, name, None))
    ]
    if missing:
        raise TypeError(f'a serializer must have {", ".join(missing)}, which {serializer!r} has not')


class RpcJsonSerializer(AbstractRpcSerializer):
    """JSON, for whatever reads JSON.

    Beside JSON's own types it takes dates, times and durations (ISO 8601, where the offset of a zone is rounded to
    minutes), `Decimal`, `UUID`, `bytes` (base64), sets, enums, dataclasses, attrs classes and `msgspec.Struct`; they
    arrive as the text, list or dict that JSON makes of them, and keys of dicts arrive as text. Infinite floats and NaN
    are refused, JSON has none.
    """

    content_type = 'application/json'
    serialize_call = staticmethod(json.serialize_call)
    deserialize_call = staticmethod(json.deserialize_call)
    serialize_result = staticmethod(json.serialize_result)
    deserialize_result = staticmethod(json.deserialize_result)


class RpcMsgPackSerializer(AbstractRpcSerializer):
    """MessagePack: shorter than JSON, and `bytes`, infinite floats, NaN and keys of dicts arrive as what they were.

    It takes the types that `RpcJsonSerializer` takes; a `datetime` with a zone arrives as one in UTC. Integers have at
    most 64 bits.
    """

    content_type = 'application/msgpack'
    serialize_call = staticmethod(msgpack.serialize_call)
    deserialize_call = staticmethod(msgpack.deserialize_call)
    serialize_result = staticmethod(msgpack.serialize_result)
    deserialize_result = staticmethod(msgpack.deserialize_result)
