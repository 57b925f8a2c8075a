"""One request to every server of the service. The first answer is the result."""

from amphora import AmqpRpcFanoutClient, Unroutable

client = AmqpRpcFanoutClient('cache')

try:
    print(client.call.forget('user-42'))
    print(client.call.where_is('north'))
    print(client.call.where_is('south'))

    # A broadcast that wants no answer: returns when the broker has put it into the queue of every server.
    client.defer(wait_publish=True).forget('user-43')
except Unroutable:
    print('no server is there')

client.stop()
