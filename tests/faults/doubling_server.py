"""A server in a process of its own, for tests that kill it; doubles numbers, and says what it does on stdout.

Called with a service's name, the directory of a ledger and the seconds that doubling takes. SIGTERM ends it as `stop()`
does.
"""

import signal
import sys
from pathlib import Path

import gevent

from amphora import AmqpRpcServer
from tests.ledger import Executions


def say(*words: object) -> None:
    sys.stdout.write(' '.join(map(str, words)) + '\n')
    sys.stdout.flush()


def main(service: str, directory: Path, pause: float) -> None:
    server = AmqpRpcServer(service)
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
    main(sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]))
