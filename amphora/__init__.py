"""amphora: synchronous RPC over AMQP 0-9-1, on gevent."""

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
