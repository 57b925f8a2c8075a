"""Other systems' ways of calling, and amphora's own: how a request and a reply look on the wire.

One dialect a file, all of them behind `Dialect`. A server answers several at once, a client speaks one::

    server = AmqpRpcServer('math', dialects=[Tutorial(queue='rpc_queue', function='fib'), AmqpRpc(), RabiBridge()])
    client = AmqpRpcClient('math', dialect=AmqpRpc(formatter=MsgPack))
"""

from typing import TYPE_CHECKING

from amphora.lazy import lazy_names

if TYPE_CHECKING:
    from amphora.dialects.aiopika import AioPikaMaster, AioPikaRpc
    from amphora.dialects.amqprpc import AmqpRpc
    from amphora.dialects.base import ClientSide, Dialect, Party, ServerSide, Source
    from amphora.dialects.encoded import Encoded
    from amphora.dialects.formats import Format, GzipJson, Json, MsgPack, Pickle
    from amphora.dialects.native import Native
    from amphora.dialects.rabibridge import RabiBridge
    from amphora.dialects.tutorial import Tutorial

__all__ = (
    'AioPikaMaster',
    'AioPikaRpc',
    'AmqpRpc',
    'ClientSide',
    'Dialect',
    'Encoded',
    'Format',
    'GzipJson',
    'Json',
    'MsgPack',
    'Native',
    'Party',
    'Pickle',
    'RabiBridge',
    'ServerSide',
    'Source',
    'Tutorial',
)

if not TYPE_CHECKING:  # else every name that is misspelt would be one of type Any
    _HOMES = ('base', 'encoded', 'native', 'formats', 'aiopika', 'amqprpc', 'rabibridge', 'tutorial')
    __getattr__ = lazy_names(__name__, _HOMES, __all__)
