"""One of several servers that all get every request: `fanout_server.py NAME`; see `fanout_client.py`."""

import signal
import sys

import gevent

from amphora import AmqpRpcFanoutServer, IgnoreRequest

name = sys.argv[1]
server = AmqpRpcFanoutServer('cache')


@server.add_function
def forget(key):
    print(f'{name} forgets {key}', flush=True)
    return f'{key} is forgotten'


@server.add_function
def where_is(wanted):
    if wanted != name:
        raise IgnoreRequest  # leaves the answer to the other servers
    return f'{name} is here'


gevent.signal_handler(signal.SIGTERM, gevent.spawn, server.stop)
server.serve(nowait=False)
