"""zerorpc: no broker; the client speaks to the server over ZeroMQ."""

import gevent
import zerorpc

from tests.benchmarks.load import drive_callers, main, ready


class Methods:
    def echo(self, text):
        return text


def serve(url, service, kind):
    server = zerorpc.Server(Methods())
    server.bind(url)
    ready()
    server.run()


def drive(url, service, work):
    client = zerorpc.Client()
    client.connect(url)
    drive_callers(work, lambda: lambda text: client.echo(text), gevent.spawn, gevent.sleep)


if __name__ == '__main__':
    main(serve, drive)
