"""AMQP 0-9-1 on gevent. Knows nothing of RPC and is usable alone.

::

    from amphora.amqp import Connection, Message

    with Connection(host='localhost') as connection:
        channel = connection.channel()
        channel.queue.declare('letters')
        channel.basic.publish(Message('hello'), routing_key='letters')
        print(channel.basic.get('letters').body)
"""

from amphora.amqp.channel import Channel
from amphora.amqp.connection import Connection
from amphora.amqp.errors import (
    AccessRefused,
    CertificateRefused,
    ChannelClosed,
    Closed,
    ConnectionClosed,
    ConnectionFailed,
    LoginRefused,
    NotAllowed,
    NotFound,
    PreconditionFailed,
    PublishFailed,
    PublishNacked,
    PublishReturned,
    ResourceLocked,
)
from amphora.amqp.message import DeliveryInfo, Message, ReturnInfo
from amphora.amqp.methods import DeclaredQueue
from amphora.amqp.url import AmqpUrl

__all__ = (
    'AccessRefused',
    'AmqpUrl',
    'CertificateRefused',
    'Channel',
    'ChannelClosed',
    'Closed',
    'Connection',
    'ConnectionClosed',
    'ConnectionFailed',
    'DeclaredQueue',
    'DeliveryInfo',
    'LoginRefused',
    'Message',
    'NotAllowed',
    'NotFound',
    'PreconditionFailed',
    'PublishFailed',
    'PublishNacked',
    'PublishReturned',
    'ResourceLocked',
    'ReturnInfo',
)
