"""A server of functions with dotted names, which also takes calls from a queue of its own; see `email_client.py`."""

from amphora import AmqpRpcClient, AmqpRpcServer

server = AmqpRpcServer('example')


@server.add_function
def send_email(address, text):
    return f'email to {address}: {text}'


@server.add_function('send_message.sms')
def send_sms(number, text):
    return f'sms to {number}: {text}'


@server.add_function('send_message.email.text')
def send_text(address, text):
    return f'text to {address}: {text}'


@server.add_function('send_message.email.html')
def send_html(address, text):
    return f'<p>html to {address}: {text}</p>'


@server.add_function
def show_message(text):
    return f'shown: {text}'


# Both sides make the queue; whoever comes second finds it there.
client = AmqpRpcClient('example')
client.create_new_request_queue('user12345')
client.stop()
server.receive_from_queue('user12345', block=False)

server.serve(nowait=False)
