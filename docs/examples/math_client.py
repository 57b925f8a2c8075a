"""Calls the functions of `math_server.py`, whether that has been started already or starts later."""

from gevent import monkey

monkey.patch_socket()

from amphora import AmqpRpcClient

client = AmqpRpcClient('simplemath')

print(client.call.add(2, 3))
print(client.call.sub(10, 3))
print(client.call.multiply(5, 5))
print(client.call.div(64, 16))
