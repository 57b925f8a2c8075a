"""A tuning function: calls of one function go to a queue for each user. Server and client are one program here."""

from amphora import AmqpRpcClient, AmqpRpcServer

server = AmqpRpcServer('chat')


@server.add_function
def show_message(text, user_id):
    return f'{user_id} sees {text!r}'


client = AmqpRpcClient('chat')
client.create_new_request_queue('12345')
server.receive_from_queue('12345', block=False)


@client.tune_function('show_message')
def calculate(args, kwargs):  # a tuple and a dict: no * or **
    return {'routing_key': str(kwargs['user_id'])}


# Goes with the routing key "12345". This server takes calls from that queue only, because serve() was not called.
print(client.defer.show_message('Hello!', user_id=12345).get())

server.stop()
client.remove_request_queue('12345')
client.stop()
