"""amphora: synchronous RPC over AMQP 0-9-1, on gevent."""

from typing import TYPE_CHECKING

from amphora.lazy import lazy_names

if TYPE_CHECKING:
    from amphora.caller import PrettyCaller
    from amphora.client import AmqpRpcClient, AmqpRpcFanoutClient
    from amphora.errors import (
        AmphoraError,
        AmqpError,
        BufferFull,
        IgnoreRequest,
        NoResult,
        NotSent,
        QueueFull,
        RejectRequest,
        RemoteException,
        Unroutable,
        WrongRequest,
        WrongResult,
        WrongThread,
    )
    from amphora.functions import function
    from amphora.outcome import Outcome
    from amphora.serializer import AbstractRpcSerializer, RpcJsonSerializer, RpcMsgPackSerializer
    from amphora.server import AmqpRpcFanoutServer, AmqpRpcServer

__all__ = (
    'AbstractRpcSerializer',
    'AmphoraError',
    'AmqpError',
    'AmqpRpcClient',
    'AmqpRpcFanoutClient',
    'AmqpRpcFanoutServer',
    'AmqpRpcServer',
    'BufferFull',
    'IgnoreRequest',
    'NoResult',
    'NotSent',
    'Outcome',
    'PrettyCaller',
    'QueueFull',
    'RejectRequest',
    'RemoteException',
    'RpcJsonSerializer',
    'RpcMsgPackSerializer',
    'Unroutable',
    'WrongRequest',
    'WrongResult',
    'WrongThread',
    'function',
)

if not TYPE_CHECKING:  # else every name that is misspelt would be one of type Any
    # pytest imports this package at every start, for `amphora.pytest_plugin`, also where nobody wants the rest of it.
    _HOMES = ('errors', 'caller', 'functions', 'outcome', 'serializer', 'client', 'server')
    __getattr__ = lazy_names(__name__, _HOMES, __all__)
