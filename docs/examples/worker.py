"""Takes three calls from a queue, answers them, and ends; `worker_client.py` makes the calls."""

from amphora import AmqpRpcClient, AmqpRpcServer

server = AmqpRpcServer('reports')


@server.add_function
def summarise(numbers):
    return {'count': len(numbers), 'sum': sum(numbers)}


# Both sides make the queue; whoever comes second finds it there.
client = AmqpRpcClient('reports')
client.create_new_request_queue('nightly')
client.stop()

# Returns when three calls are answered. With a timeout in seconds it would raise gevent.Timeout after that.
taken = server.receive_from_queue('nightly', max_calls=3)
print(f'{taken} calls taken')

server.stop()
