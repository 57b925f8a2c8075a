"""A serializer of one's own: JSON, compressed. Server and client are one program here."""

import zlib

from amphora import AbstractRpcSerializer, AmqpRpcClient, AmqpRpcServer, RpcJsonSerializer, WrongRequest, WrongResult

LIMIT = 10_000_000  # bytes that a body may have once it is decompressed


def decompress(body):
    decompressor = zlib.decompressobj()
    plain = decompressor.decompress(body, LIMIT)
    if not decompressor.eof:
        raise ValueError(f'the body is cut off, or longer than {LIMIT} bytes')
    return plain


class CompressedJsonSerializer(AbstractRpcSerializer):
    content_type = 'application/json+zlib'

    @staticmethod
    def serialize_call(func, args, kwargs):
        return zlib.compress(RpcJsonSerializer.serialize_call(func, args, kwargs))

    @staticmethod
    def deserialize_call(body):
        try:
            plain = decompress(body)
        except (ValueError, zlib.error) as error:
            raise WrongRequest(str(error)) from error
        return RpcJsonSerializer.deserialize_call(plain)

    @staticmethod
    def serialize_result(obj):
        return zlib.compress(RpcJsonSerializer.serialize_result(obj))

    @staticmethod
    def deserialize_result(body):
        try:
            plain = decompress(body)
        except (ValueError, zlib.error) as error:
            raise WrongResult(str(error)) from error
        return RpcJsonSerializer.deserialize_result(plain)


server = AmqpRpcServer('compressed', serializer=CompressedJsonSerializer)
server.add_function(len, name='length')
server.serve()

client = AmqpRpcClient('compressed', serializer=CompressedJsonSerializer)
print(client.call.length('x' * 100_000))

client.stop()
server.stop()
