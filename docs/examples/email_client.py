"""Calls that do not wait, functions with dotted names, and a call that goes to a queue of its own."""

from amphora import AmqpRpcClient

client = AmqpRpcClient('example')

# Remote call of the function "send_email"; the result is fetched when it is needed.
async_result = client.defer.send_email('root@example.com', 'Hello!')
print(async_result.get())

# Remote call of "show_message" with a routing key: it goes to the queue that is bound to that key.
client.create_new_request_queue('user12345')
print(client.defer(routing_key='user12345').show_message('Hello, user12345!').get())

# Remote call of "send_message.sms".
print(client.defer.send_message.sms('+12345678901', 'Message').get())

# Callers are ordinary objects: a part of one can be kept and used again.
email_sender = client.defer.send_message.email
results = [
    email_sender.text('root@example.com', 'Message'),
    email_sender.html('user@example.com', 'Message'),
]

# A name that is made at run time is given as text.
for kind in ('html', 'text'):
    results.append(client.defer(function_name='send_message.email.' + kind)('root@example.com', 'Hello!'))

for result in results:
    print(result.get())

client.stop()
