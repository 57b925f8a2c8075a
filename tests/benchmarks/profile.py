"""Where the time goes in amphora's client and server: a flame graph of each, by py-spy, and the share of each stage."""

from __future__ import annotations

import argparse
import secrets
import shutil
import sys
from pathlib import Path

from tests.benchmarks.contender import CONTENDERS, Contender
from tests.benchmarks.load import PATIENCE
from tests.benchmarks.measurement import MARGIN, START_LIMIT
from tests.benchmarks.process import running
from tests.benchmarks.stages import shares
from tests.benchmarks.work import SMALL, Work
from tests.rabbitmq import RabbitNode

#: samples a second
RATE = 500
#: the two processes, in the order in which they start
SIDES = ('server', 'client')
#: what py-spy makes of the samples, and the ending of the file
FORMATS = {'flamegraph': 'svg', 'raw': 'txt'}


def recorded(command: list[str], file: Path, form: str) -> list[str]:
    """The command under py-spy, which writes when it or the command ends."""
    spy = Path(sys.executable).with_name('py-spy')
    found = str(spy) if spy.exists() else shutil.which('py-spy')
    if found is None:
        raise SystemExit('py-spy is not installed; `make profile` installs it')
    return [found, 'record', '--rate', str(RATE), '--format', form, '--output', str(file), '--', *command]


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
    directory = options.output.resolve()
    directory.mkdir(parents=True, exist_ok=True)
    with RabbitNode() as node:
        for form in FORMATS:
            profile(contender, work, node.url, directory, form)
    for side in SIDES:
        print(f'\n{side}: {directory / side}.{FORMATS["flamegraph"]}\n')
        for stage, share in shares((directory / f'{side}.{FORMATS["raw"]}').read_text().splitlines()).items():
            print(f'{share:6.1%}  {stage}')
    return 0


def profile(contender: Contender, work: Work, url: str, directory: Path, form: str) -> None:
    """Do the work once, both sides under py-spy."""
    service = f'profile-{secrets.token_hex(6)}'
    of_server, of_client = (directory / f'{side}.{FORMATS[form]}' for side in SIDES)
    with running(recorded(contender.server(Path(), url, service, work.kind), of_server, form)) as server:
        server.expect('ready', START_LIMIT)
        with running(recorded(contender.client(Path(), url, service, work), of_client, form)) as client:
            client.expect('end', work.warm_up + PATIENCE + work.seconds + MARGIN)
            client.expect('{', MARGIN)
            client.wait(MARGIN)
        server.interrupt(MARGIN)


if __name__ == '__main__':
    sys.exit(main())
