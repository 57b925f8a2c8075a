"""Puts three calls into a queue for `worker.py`, which may be started before or after this."""

from amphora import AmqpRpcClient

client = AmqpRpcClient('reports')
client.create_new_request_queue('nightly')

summarise = client.defer(routing_key='nightly').summarise
results = [summarise(list(range(size))) for size in (1, 10, 100)]

for result in results:
    print(result.get())

client.stop()
