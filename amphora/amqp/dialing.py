"""From a host's name to a socket that is connected to it."""

from __future__ import annotations

import socket as stdlib_socket
from time import monotonic
from typing import Any

from gevent import socket


def dial(host: str, port: int, seconds: float) -> Any:
    """A socket to the first of a host's addresses that answers.

    :param seconds: how long it may take. An address that does not answer leaves time for those after it; for the last
        one the caller watches the clock.
    :raises OSError: what the last address said, or there is none.
    :raises UnicodeError: no host can have that name.
    """
    until = monotonic() + seconds
    addresses = socket.getaddrinfo(host, port, 0, stdlib_socket.SOCK_STREAM)
    while True:
        family, kind, proto, _, address = addresses.pop(0)
        sock = None
        try:
            sock = socket.socket(family, kind, proto)
            sock.settimeout(max(0.01, (until - monotonic()) / (len(addresses) + 2)) if addresses else None)
            sock.connect(address)
            sock.settimeout(None)
            sock.setsockopt(stdlib_socket.IPPROTO_TCP, stdlib_socket.TCP_NODELAY, 1)
            sock.setsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_KEEPALIVE, 1)
            return sock
        except BaseException as error:
            if sock is not None:
                sock.close()
            if not (addresses and isinstance(error, OSError)):
                raise
