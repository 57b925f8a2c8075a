"""A server whose function raises; `divide_client.py` shows what the caller sees."""

from amphora import AmqpRpcServer

server = AmqpRpcServer('calculator')


@server.add_function
def divide(x, y):
    if x < 0:
        raise ValueError('x', x)
    elif y < 0:
        raise ValueError('y', y)
    else:
        return x / y


server.serve(nowait=False)
