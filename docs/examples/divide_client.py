"""Calls that go well, that raise, and that cannot succeed."""

from amphora import AmqpRpcClient, NoResult, RemoteException, Unroutable, WrongRequest

client = AmqpRpcClient('calculator')

print(client.call.divide(6, 3))

# The function raised: the type is a name, never a class that somebody imported.
try:
    client.call.divide(-5, 5)
except RemoteException as error:
    print(error.error_type, error.args)

try:
    client.call.divide(10, 0)
except RemoteException as error:
    print(error.error_type, error.args)

# The server does not know the function.
try:
    client.call.multiply(10, 2)
except WrongRequest as error:
    print(error)

# An argument that JSON cannot carry: nothing was sent.
try:
    client.call.divide(6, object())
except TypeError as error:
    print(error)

# No queue is bound to this routing key: the broker returned the request.
try:
    client.call(routing_key='nowhere').divide(6, 3)
except Unroutable as error:
    print('unroutable, executed:', error.executed)

# Nobody serves this service, so nobody answers within the timeout of 2 seconds.
idle = AmqpRpcClient('nobody-serves-this', timeout=2)
try:
    idle.call.divide(6, 3)
except NoResult as error:
    print('no result, executed:', error.executed)

idle.stop()
client.stop()
