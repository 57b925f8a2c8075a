"""oslo.messaging's RPC server and client, both with threads."""

import oslo_messaging
from oslo_config import cfg

from tests.benchmarks.load import drive_callers, main, ready


def transport(url):
    return oslo_messaging.get_rpc_transport(cfg.CONF, url=url.replace('amqp://', 'rabbit://'))


class Endpoint:
    def echo(self, ctxt, text):
        return text


def serve(url, service, kind):
    target = oslo_messaging.Target(topic=service, server='server')
    server = oslo_messaging.get_rpc_server(transport(url), target, [Endpoint()])
    server.start()
    ready()
    server.wait()


def drive(url, service, work):
    client = oslo_messaging.get_rpc_client(transport(url), oslo_messaging.Target(topic=service))
    drive_callers(work, lambda: lambda text: client.call({}, 'echo', text=text))


if __name__ == '__main__':
    main(serve, drive)
