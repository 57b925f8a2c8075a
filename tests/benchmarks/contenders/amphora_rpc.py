"""amphora: ``safe``, as it is by default, and ``bare``, without persistence and confirms."""

import gevent
from gevent.event import Event

from amphora import AmqpRpcClient, AmqpRpcFanoutClient, AmqpRpcFanoutServer, AmqpRpcServer
from tests.benchmarks.load import drive_callers, drive_pipeline, main, ready
from tests.benchmarks.work import FANOUT

PROFILES = {'safe': {}, 'bare': {'persistent': False, 'confirm': False}}


def echo(text):
    return text


def serve(url, service, kind, profile, count='0'):
    options = {'amqp_url': url, **PROFILES[profile]}
    function = echo
    if kind == 'fanout':
        servers = [AmqpRpcFanoutServer(service, **options) for _ in range(FANOUT)]
    elif kind == 'hold':
        servers = [AmqpRpcServer(service, prefetch=int(count), **options)]
        function = hold_all(int(count))
    else:
        servers = [AmqpRpcServer(service, **options)]
    for server in servers:
        server.add_function(function, 'echo')
        server.serve()
    for server in servers:
        server.wait_ready()
    ready()
    Event().wait()


def hold_all(count):
    """A function that never returns, and says when it was called so many times."""
    held, never = [], Event()

    def hold(text):
        held.append(text)
        if len(held) == count:
            print('held', flush=True)
        never.wait()

    return hold


def drive(url, service, work, profile):
    options = {'amqp_url': url, **PROFILES[profile]}
    client = (AmqpRpcFanoutClient if work.kind == 'fanout' else AmqpRpcClient)(service, **options)
    if work.kind == 'defer':
        drive_pipeline(work, lambda text: client.defer.echo(text), lambda result: result.get())
    else:
        drive_callers(work, lambda: lambda text: client.call.echo(text), gevent.spawn, gevent.sleep)


if __name__ == '__main__':
    main(serve, drive)
