"""amphora: synchronous RPC over AMQP 0-9-1, on gevent."""

from typing import TYPE_CHECKING

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
        RemoteException,
        Unroutable,
        WrongRequest,
        WrongResult,
        WrongThread,
    )
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
    'PrettyCaller',
    'QueueFull',
    'RemoteException',
    'RpcJsonSerializer',
    'RpcMsgPackSerializer',
    'Unroutable',
    'WrongRequest',
    'WrongResult',
    'WrongThread',
)

if not TYPE_CHECKING:  # else every name that is misspelt would be one of type Any

    def __getattr__(name):
        """Import what is asked for when it is: pytest imports this package at every start, for `amphora.pytest_plugin`,
        also where nobody wants the rest of it."""
        if name.startswith('__'):
            raise AttributeError('module %r has no attribute %r' % (__name__, name))
        from importlib import import_module

        for home in ('caller', 'client', 'errors', 'serializer', 'server'):
            public = vars(import_module('amphora.' + home))
            globals().update((each, public[each]) for each in __all__ if each in public)
        if name not in globals():
            raise AttributeError('module %r has no attribute %r' % (__name__, name))
        return globals()[name]
