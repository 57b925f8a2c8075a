"""A server of four functions; `math_client.py` calls them."""

from gevent import monkey

monkey.patch_socket()

from amphora import AmqpRpcServer

server = AmqpRpcServer('simplemath')


def add(x, y):
    return x + y


server.add_function(add)


def substract(x, y):
    return x - y


server.add_function(substract, name='sub')


@server.add_function
def multiply(x, y):
    return x * y


@server.add_function('div')
def divide(x, y):
    return x / y


server.serve(nowait=False)
