"""A process of ``amphora serve`` that runs a server: loads it, serves, says so, and stops when told to.

Started by `amphora.cli.supervisor` as ``python -m gevent.monkey --module amphora.cli.worker``, so that the standard
library is patched before anything else is imported. It speaks to the process that started it over a socket, a line of
JSON at a time; once that is gone it stops as well.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import traceback
from importlib import import_module
from typing import NoReturn

import gevent
import msgspec
from gevent.event import Event

from amphora.cli.common import LOG_FORMAT, NO_ACCESS, USAGE, explain
from amphora.cli.report import Report
from amphora.errors import AmqpError
from amphora.server import AmqpRpcServer

# Seconds after which a module that is still being imported has most likely begun to serve by itself.
_IMPORT_PATIENCE = 10.0

logger = logging.getLogger('amphora.serve')


class LoadError(Exception):
    """There is no server at ``MODULE:SERVER``."""


def load(target: str) -> AmqpRpcServer:
    """The server that ``MODULE:SERVER`` names.

    :raises LoadError: there is none.
    """
    module_name, _, path = target.partition(':')
    try:
        found = import_module(module_name)
        for attribute in path.split('.'):
            found = getattr(found, attribute)
        if not isinstance(found, AmqpRpcServer) and callable(found):
            found = found()
    except (Exception, SystemExit) as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        place = '' if 'importlib' in where.filename or where.filename == __file__ else ' (%s, line %s)' % where[:2]
        raise LoadError('cannot load %r: %s: %s%s' % (target, type(error).__name__, explain(error), place)) from error
    if not isinstance(found, AmqpRpcServer):
        raise LoadError('%r is no server, but %s' % (target, type(found).__name__))
    return found


class Master:
    """The process that started this one."""

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._socket.set_inheritable(False)

    def tell(self, report: Report) -> None:
        """Report; nobody listens any more when the master is gone."""
        try:
            self._socket.sendall(msgspec.json.encode(report) + b'\n')
        except OSError:
            pass

    def wait_gone(self) -> None:
        """Block until it has ended."""
        try:
            self._socket.recv(1)
        except OSError:
            pass


def _load_or_end(target: str, master: Master, debug: bool) -> AmqpRpcServer:
    watch = gevent.spawn_later(
        _IMPORT_PATIENCE,
        logger.warning,
        'importing %r takes long; a module that is served must not call serve() while it is imported',
        target,
    )
    sys.path.insert(0, os.getcwd())
    try:
        return load(target)
    except LoadError as error:
        if debug:
            traceback.print_exc()
        master.tell(Report(str(error)))
        sys.exit(USAGE)
    finally:
        watch.kill()


def main() -> NoReturn:
    """Serve until SIGTERM."""
    descriptor, target, debug = int(sys.argv[1]), sys.argv[2], '--debug' in sys.argv[3:]
    # The master says when to stop; until there is a server, SIGTERM may end the process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    master = Master(descriptor)
    server = _load_or_end(target, master, debug)
    # After the import: whatever the module has set up is the user's will.
    logging.basicConfig(level=logging.INFO, format=LOG_FORMAT)

    stopping = Event()
    refused: list[AmqpError] = []

    def report_ready() -> None:
        try:
            server.wait_ready()
        except AmqpError as error:
            refused.append(error)
            stopping.set()
        else:
            master.tell(Report())

    def outlive_master() -> None:
        master.wait_gone()
        stopping.set()

    # As often as it comes: systemd, for one, may send it to every process, and the master once more.
    gevent.signal_handler(signal.SIGTERM, stopping.set)
    server.serve()
    gevent.spawn(report_ready)
    gevent.spawn(outlive_master)
    stopping.wait()
    if refused:
        master.tell(Report('the broker refuses: %s' % explain(refused[0])))
    else:
        server.prepare_stop()
    server.stop()
    sys.exit(NO_ACCESS if refused else 0)


if __name__ == '__main__':
    main()
