"""A server in a process of its own, for tests that kill it; doubles numbers, and says what it does on stdout.

Called with a service's name, the directory of a ledger, the seconds that doubling takes, and as JSON the options of the
server. SIGTERM ends it as `stop()` does; a call of `die` ends it as SIGKILL does, and `burn` keeps the CPU busy.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import gevent

from amphora import AmqpRpcServer
from tests.ledger import Executions


def say(*words: object) -> None:
    sys.stdout.write(' '.join(map(str, words)) + '\n')
    sys.stdout.flush()


def die() -> None:
    say('died', 1)
    os.kill(os.getpid(), signal.SIGKILL)


def burn(seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass


def fail(text: str) -> None:
    raise ValueError(text)


def echo(text: str) -> str:
    return text


def main(service: str, directory: Path, pause: float, options: dict[str, Any]) -> None:
    server = AmqpRpcServer(service, **options)
    server.add_function(die)
    server.add_function(burn)
    server.add_function(fail)
    server.add_function(echo)
    server.add_function(gevent.sleep, name='pause')
    ledgers_double = Executions(directory).double(pause)

    @server.add_function
    def double(number: int) -> int:
        say('began', number)
        doubled = ledgers_double(number)
        say('done', number)
        return doubled

    gevent.signal_handler(signal.SIGTERM, lambda: gevent.spawn(server.stop))
    say('up')
    server.serve(nowait=False)


if __name__ == '__main__':
    main(sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]), json.loads(sys.argv[4]))
