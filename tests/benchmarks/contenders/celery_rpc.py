"""Celery's rpc result backend, worker and callers under gevent."""

from gevent import monkey

monkey.patch_all()

import gevent  # noqa: E402
from celery import Celery, signals  # noqa: E402

from tests.benchmarks.load import drive_callers, main, ready  # noqa: E402


def application(url, service):
    app = Celery(service, broker=url, backend='rpc://')
    app.conf.task_default_queue = service
    app.conf.worker_redirect_stdouts = False

    @app.task(name='echo')
    def echo(text):
        return text

    return app, echo


def serve(url, service, kind):
    app, _ = application(url, service)
    signals.worker_ready.connect(lambda **_: ready(), weak=False)
    # Without its events, for whose connection Celery 5.7's worker waits 0.1 s after each task under gevent.
    quiet = ['--without-gossip', '--without-heartbeat', '--loglevel', 'WARNING']
    app.worker_main(['worker', '--pool', 'gevent', '--concurrency', '100', *quiet])


def drive(url, service, work):
    _, echo = application(url, service)
    drive_callers(work, lambda: lambda text: echo.delay(text).get(timeout=60), gevent.spawn, gevent.sleep)


if __name__ == '__main__':
    main(serve, drive)
