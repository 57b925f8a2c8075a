"""A server in a process of its own, for tests that kill it; doubles numbers, and says what it does on stdout.

Called with a service's name and the seconds that doubling takes. SIGTERM ends it as `stop()` does.
"""

import signal
import sys

import gevent

from amphora import AmqpRpcServer


def say(*words: object) -> None:
    sys.stdout.write(' '.join(map(str, words)) + '\n')
    sys.stdout.flush()


def main(service: str, pause: float) -> None:
    server = AmqpRpcServer(service)

    @server.add_function
    def double(number: int) -> int:
        say('began', number)
        gevent.sleep(pause)
        say('done', number)
        return 2 * number

    gevent.signal_handler(signal.SIGTERM, lambda: gevent.spawn(server.stop))
    say('up')
    server.serve(nowait=False)


if __name__ == '__main__':
    main(sys.argv[1], float(sys.argv[2]))
