"""What the celery worker of `test_celery` runs."""

import os

from celery import Celery

app = Celery('peers', broker=os.environ.get('PEERS_BROKER', ''), backend='rpc://')
# A worker must not outlive a broker that is gone.
app.conf.update(broker_connection_max_retries=3, worker_prefetch_multiplier=1, result_expires=60)


@app.task
def add(x: int, y: int) -> int:
    return x + y


@app.task(bind=True, max_retries=2, default_retry_delay=0)
def flaky(self) -> int:
    if self.request.retries < 2:
        raise self.retry()
    return self.request.retries
