"""nameko: a service in its container, and the standalone proxy, which has many calls under way by `call_async`."""

import eventlet

eventlet.monkey_patch()

from nameko.containers import ServiceContainer  # noqa: E402
from nameko.rpc import rpc  # noqa: E402
from nameko.standalone.rpc import ServiceRpcProxy  # noqa: E402

from tests.benchmarks.load import drive_pipeline, main, ready  # noqa: E402


def serve(url, service, kind):
    class EchoService:
        name = service

        @rpc
        def echo(self, text):
            return text

    container = ServiceContainer(EchoService, {'AMQP_URI': url})
    container.start()
    ready()
    container.wait()


def drive(url, service, work):
    with ServiceRpcProxy(service, {'AMQP_URI': url}) as proxy:
        drive_pipeline(work, lambda text: proxy.echo.call_async(text), lambda reply: reply.result())


if __name__ == '__main__':
    main(serve, drive)
