"""Who is compared: amphora, the limit, and what a user would pick instead."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tests.benchmarks.work import CONCURRENCY, Work


@dataclass(frozen=True)
class Contender:
    """A server and a client that make the same calls as everybody else's.

    :param module: of `tests.benchmarks.contenders`; '': the programs in C.
    :param options: for server and client alike.
    :param needs: the distribution that has to be installed.
    :param broker: ``rabbitmq``, ``embedded`` or ``none``.
    :param kinds: of work that it can do.
    :param most: callers at once that it can have, and why.
    """

    name: str
    module: str = ''
    options: tuple[str, ...] = ()
    needs: str = ''
    broker: str = 'rabbitmq'
    kinds: tuple[str, ...] = ('call',)
    most: tuple[int, str] = (CONCURRENCY[-1], '')

    def why_not(self, work: Work) -> str | None:
        """Why it cannot do a work; None when it can."""
        callers, reason = self.most
        return f'at most {callers:,} callers: {reason}' if work.callers > callers else None

    def missing(self) -> str | None:
        """What has to be installed first; None when all is there."""
        try:
            if self.needs:
                version(self.needs)
        except PackageNotFoundError:
            return f'{self.needs} is not installed; `make bench` installs it'
        return None

    def server(self, programs: Path, url: str, service: str, kind: str, *options: str) -> list[str]:
        """The command of its server."""
        return [*self._program(programs, 'server'), url, service, kind, *self.options, *options]

    def client(self, programs: Path, url: str, service: str, work: Work) -> list[str]:
        """The command of its client."""
        return [*self._program(programs, 'client'), url, service, *work.words, *self.options]

    def _program(self, programs: Path, role: str) -> Sequence[str]:
        if not self.module:
            return [str(programs / role)]
        return [sys.executable, '-m', f'tests.benchmarks.contenders.{self.module}', role]


AMPHORA_KINDS = ('call', 'defer', 'fanout')

CONTENDERS = [
    Contender('amphora safe', 'amphora_rpc', ('safe',), 'amphora', kinds=AMPHORA_KINDS),
    Contender('amphora bare', 'amphora_rpc', ('bare',), 'amphora', kinds=AMPHORA_KINDS),
    Contender('amphora embedded', 'amphora_rpc', ('safe',), 'amphora', broker='embedded', kinds=AMPHORA_KINDS),
    # As amphora: one connection that publishes and one that consumes.
    Contender('C safe', options=('safe', '2')),
    Contender('C bare', options=('bare', '2')),
    # Less safe, since a blocked publisher stops its deliveries, and faster where there is little to do at once.
    Contender('C safe, 1 connection', options=('safe', '1')),
    Contender('C bare, 1 connection', options=('bare', '1')),
    Contender('aio-pika', 'aio_pika_rpc', needs='aio-pika'),
    Contender('nameko', 'nameko_rpc', needs='nameko'),
    Contender('FastStream', 'faststream_rpc', needs='faststream'),
    Contender('oslo.messaging', 'oslo_rpc', needs='oslo.messaging', most=(1_000, 'a thread for each')),
    Contender('RabiBridge', 'rabibridge_rpc', needs='RabiBridge'),
    Contender('pika', 'pika_rpc', needs='pika', most=(100, 'a connection and a thread for each')),
    Contender('py-amqp', 'py_amqp_rpc', needs='amqp', most=(100, 'a connection for each')),
    Contender('Celery', 'celery_rpc', needs='celery'),
    Contender('zerorpc', 'zerorpc_rpc', needs='zerorpc', broker='none'),
]
