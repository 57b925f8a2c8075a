"""Heartbeats that leave even while the hub is busy.

One native thread for all connections of the process sends them, so a function that burns the CPU does not cost the
connection. Whether the *peer* is alive is watched in the hub (`amphora.amqp.peer_watch`), for that needs what was read
there.

Source: AMQP 0-9-1 section 4.2.7; https://www.rabbitmq.com/docs/heartbeats (a peer is given up after two intervals of
silence).
"""

from __future__ import annotations

import os
from time import monotonic
from typing import Any

from gevent import monkey

from amphora.amqp.frames import HEARTBEAT_FRAME
from amphora.amqp.transport import Transport
from amphora.native_threads import allocate_lock, sleep

# A native one, whether this program is monkey-patched or not; it makes no hub for itself.
_start_new_thread = monkey.get_original('_thread', 'start_new_thread')


class HeartbeatSender:
    """Sends a heartbeat on each transport that has been silent for half its interval."""

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._lock: Any = allocate_lock()
        self._intervals: dict[Transport, float] = {}
        self._running = False

    def add(self, transport: Transport, interval: float) -> None:
        """Look after a transport from now on.

        :param interval: the negotiated heartbeat, in seconds.
        """
        with self._lock:
            self._intervals[transport] = interval
            if not self._running:
                _start_new_thread(self._run, ())
                self._running = True  # there may be no room for a thread now, and for the next connection there is

    def remove(self, transport: Transport) -> None:
        """Stop looking after a transport; nothing happens when that was not the case."""
        with self._lock:
            self._intervals.pop(transport, None)

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._intervals:
                    self._running = False
                    return
                transports = list(self._intervals.items())
            now = monotonic()
            for transport, interval in transports:
                if now - transport.last_sent >= interval / 2:
                    transport.keep_alive(HEARTBEAT_FRAME)
            # Never for long: a connection with a short interval may be added meanwhile.
            sleep(min(0.5, *(interval / 4 for _, interval in transports)))


#: the one of this process
sender = HeartbeatSender()

# The thread does not exist in a forked child, and the lock may have been held: the child starts afresh.
os.register_at_fork(after_in_child=sender._reset)
