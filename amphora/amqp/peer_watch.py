"""Whether the broker is still there, by what comes from it.

It is given up when it has been silent for two heartbeat intervals, and when it goes on sending, but nothing that is
ever complete. The heartbeats of this side are `amphora.amqp.heartbeat`'s.

Source: AMQP 0-9-1 section 4.2.7; https://www.rabbitmq.com/docs/heartbeats (a peer is given up after two intervals of
silence).
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

import gevent

from amphora.amqp.errors import ConnectionClosed
from amphora.amqp.frames import Splitter
from amphora.amqp.transport import Transport

# Bytes of a frame that must come in two heartbeats; the slowest of links carries a hundred times as many.
_PROGRESS = 1024


class PeerWatch:
    """Watches a connection's peer from the hub, from when it is made.

    :param transport: what it sends comes by this.
    :param splitter: and is made frames of by this.
    :param heartbeat: the interval that was agreed on, in seconds; more than 0.
    :param on_gone: called in the hub with the reason to give the peer up; it is to close the transport.
    """

    def __init__(
        self, transport: Transport, splitter: Splitter, heartbeat: float, on_gone: Callable[[ConnectionClosed], None]
    ) -> None:
        self._transport = transport
        self._splitter = splitter
        self._heartbeat = heartbeat
        self._on_gone = on_gone
        # How far the frame has come that is not complete, and since when no further.
        self._progress = (0, 0)
        self._progressed = 0.0
        self._timer = gevent.get_hub().loop.timer(0, min(0.5, heartbeat / 4))
        self._timer.start(self._check)

    def close(self) -> None:
        """Watch no more."""
        self._timer.stop()
        self._timer.close()

    def _check(self) -> None:
        self._transport.recover()
        if not self._transport.closed:
            self._check_progress()
        if not self._transport.closed:
            self._check_silence()

    def _check_silence(self) -> None:
        if monotonic() - self._transport.last_received <= 2 * self._heartbeat:
            return
        # The hub may have been busy for long: what came meanwhile still waits to be read.
        self._transport.poll()
        silence = monotonic() - self._transport.last_received
        if not self._transport.closed and silence > 2 * self._heartbeat:
            text = 'the broker was silent for %.1f s; the heartbeat is %g s'
            self._on_gone(ConnectionClosed(text % (silence, self._heartbeat)))

    def _check_progress(self) -> None:
        """Give up a broker that is never silent and says nothing: each byte of a frame is a sign of life."""
        now = monotonic()
        late = now - self._progressed > 2 * self._heartbeat
        if self._splitter.pending and late and self._reached() == self._progress:
            # As above.
            self._transport.poll()
        pending, reached = self._splitter.pending, self._reached()
        if not pending or reached != self._progress:
            self._progress, self._progressed = reached, now
        elif not self._transport.closed and late:
            text = 'the broker has sent %d bytes of a frame, and less than %d of them in the last %.1f s'
            self._on_gone(ConnectionClosed(text % (pending, _PROGRESS, now - self._progressed)))

    def _reached(self) -> tuple[int, int]:
        return self._splitter.begun, self._splitter.pending // _PROGRESS
