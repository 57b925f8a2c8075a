"""A server that loses no call when it is told to end; see `shutdown_client.py`."""

import hashlib
import signal

import gevent

from amphora import AmqpRpcServer

server = AmqpRpcServer('passwords', prefetch=4)


@server.add_function
def digest(password):
    # Work for the processor goes to gevent's thread pool, so that the server goes on meanwhile.
    made = gevent.get_hub().threadpool.apply(hashlib.pbkdf2_hmac, ('sha256', password.encode(), b'amphora', 200_000))
    return made.hex()


# The handler runs in gevent's hub, where nothing may block: so it spawns a greenlet.
gevent.signal_handler(signal.SIGTERM, gevent.spawn, server.stop)

server.serve(nowait=False)
print('stopped: every call that was begun is answered', flush=True)
