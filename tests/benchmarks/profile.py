"""Where the time goes in amphora's client and server: a flame graph of each, by py-spy."""

from __future__ import annotations

import argparse
import secrets
import shutil
import sys
from pathlib import Path

from tests.benchmarks.contender import CONTENDERS
from tests.benchmarks.load import PATIENCE
from tests.benchmarks.measurement import MARGIN, START_LIMIT
from tests.benchmarks.process import running
from tests.benchmarks.work import SMALL, Work
from tests.rabbitmq import RabbitNode

#: samples a second
RATE = 500


def recorded(command: list[str], picture: Path) -> list[str]:
    """The command under py-spy, which draws when it or the command ends."""
    spy = Path(sys.executable).with_name('py-spy')
    found = str(spy) if spy.exists() else shutil.which('py-spy')
    if found is None:
        raise SystemExit('py-spy is not installed; `make profile` installs it')
    return [found, 'record', '--rate', str(RATE), '--output', str(picture), '--', *command]


def main() -> int:
    parser = argparse.ArgumentParser(prog='python -m tests.benchmarks.profile', description=__doc__)
    parser.add_argument('--seconds', type=float, default=10.0, help='how long to look (10)')
    parser.add_argument('--callers', type=int, default=100, help='calls under way at once (100)')
    parser.add_argument('--size', type=int, default=SMALL, help=f'bytes of payload ({SMALL})')
    parser.add_argument('--kind', choices=CONTENDERS[0].kinds, default='call', help='call, defer or fanout (call)')
    names = [each.name for each in CONTENDERS if each.module == CONTENDERS[0].module and each.broker == 'rabbitmq']
    parser.add_argument('--of', choices=names, default=names[0], help=f'which of them ({names[0]})')
    parser.add_argument('--output', type=Path, default=Path('build/profile'), help='a directory (build/profile)')
    options = parser.parse_args()

    contender = next(each for each in CONTENDERS if each.name == options.of)
    work = Work(options.callers, options.size, options.kind, seconds=options.seconds)
    service = f'profile-{secrets.token_hex(6)}'
    directory = options.output.resolve()
    directory.mkdir(parents=True, exist_ok=True)
    pictures = [directory / 'server.svg', directory / 'client.svg']
    with RabbitNode() as node:
        command = contender.server(Path(), node.url, service, work.kind)
        with running(recorded(command, pictures[0])) as server:
            server.expect('ready', START_LIMIT)
            command = contender.client(Path(), node.url, service, work)
            with running(recorded(command, pictures[1])) as client:
                client.expect('end', work.warm_up + PATIENCE + work.seconds + MARGIN)
                client.expect('{', MARGIN)
                client.wait(MARGIN)
            server.interrupt(MARGIN)
    for picture in pictures:
        print(picture.relative_to(Path.cwd()) if picture.is_relative_to(Path.cwd()) else picture)
    return 0


if __name__ == '__main__':
    sys.exit(main())
