"""Bytes to and from a socket, in gevent's hub: one reading callback, one coalescing writer.

Knows bytes, not frames; that is why whoever writes must hand over whole frames.

Reading: an io watcher's callback receives and hands the bytes up; no greenlet has to be woken for it. Nothing called
from there may block.

Writing: the first write of a loop iteration goes to the socket at once, everything else written in the same iteration
leaves as one `send` at its end. While iterations write more than once, the first waits for the others: a packet of its
own would cost both sides more than the moment is worth. What the socket does not take waits for it to become writable.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from time import monotonic
from typing import Any

import gevent
from gevent import monkey

from amphora.amqp.gathered import GATHER_FROM, Gathered
from amphora.native_threads import allocate_lock

# A gevent loop's io events.
_READ, _WRITE = 1, 2
# What libuv's loop says of its iterations, which libev's counts from 0; and what none says.
_UNCOUNTED, _NO_ITERATION = -1, -2
# Bytes received in one go: a full body frame costs one system call, while much comes. Otherwise less, and as much as a
# TLS record holds: Python makes room for all of it first, and asking the system for as much as a frame is eight times
# as long as receiving a few messages.
_LARGE, _SMALL = 131072, 16384
# Writes are joined up to this many bytes, and one that is larger goes alone: beyond it copying costs more than the
# system calls that it saves.
_JOIN = GATHER_FROM

# How often to read from a socket that can no longer be written to: more than it can hold.
_LAST_READS = 1000

_NOTHING = b''

# The native one, whether this program is monkey-patched or not: the writer is shared with the native heartbeat thread.
_socket_class = monkey.get_original('socket', 'socket')


class Transport:
    """A connected socket.

    :param sock: a connected gevent socket; the transport takes its descriptor over.
    :param on_data: called in the hub with the bytes that came.
    :param on_lost: called once, in the hub, with the reason why the socket is gone; not after `close`.
    :param on_drain: called in the hub when `is_congested` has been true and at most half of `high_water` is unsent.
    :param high_water: unsent bytes above which `is_congested` is true.
    """

    def __init__(
        self,
        sock: Any,
        on_data: Callable[[bytes], None],
        on_lost: Callable[[Exception], None],
        on_drain: Callable[[], None],
        high_water: int,
    ) -> None:
        self.high_water = high_water
        self.closed = self._paused = False
        self.last_received = self.last_sent = monotonic()
        self._on_data = on_data
        self._on_lost = on_lost
        self._on_drain = on_drain
        self._was_congested = False
        self._room = _SMALL
        self._sock = _socket_class(sock.family, sock.type, sock.proto, sock.detach())
        self._sock.setblocking(False)
        self._queue: list[bytes | Gathered] = []
        self._queued = 0
        # What the socket left of the last send; goes before anything else. Guarded by the lock.
        self._partial: bytes | memoryview | Gathered = _NOTHING
        # True while somebody is already going to flush: a callback at the end of this iteration, or the write watcher.
        self._armed = False
        # Whether the last iteration that wrote did so more than once.
        self._busy = False
        # The last of the loop's iterations whose first write went out at once.
        self._iteration = _NO_ITERATION
        self._lock = allocate_lock()
        self._loop = gevent.get_hub().loop
        self._reader: Any = self._loop.io(self._sock.fileno(), _READ)
        self._writer: Any = self._loop.io(self._sock.fileno(), _WRITE)

    def start(self) -> None:
        """Begin to read."""
        self._reader.start(self._readable)

    def pause(self) -> None:
        """Read no more: what the peer sends stays in the socket, and then with the peer."""
        if not self.closed:
            self._paused = True
            self._reader.stop()

    def resume(self) -> None:
        """Read again after `pause`."""
        if not self.closed:
            self.last_received = monotonic()  # its silence was this side's doing
            self._paused = False
            self._reader.start(self._readable)

    # -- reading -------------------------------------------------------------------------------------------------------

    def poll(self) -> None:
        """Read what has come by now without waiting for the loop to say so."""
        if not self.closed:
            self._readable()

    def _readable(self) -> bool:
        """Hand on what has come; False when nothing has."""
        try:
            data = self._sock.recv(self._room)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            self._lose(error)
            return False
        except BaseException:
            self._interrupted()
            raise
        if not data:
            self._lose(ConnectionResetError('the peer closed the socket'))
            return False
        self._room = _LARGE if len(data) >= _SMALL else _SMALL
        self.last_received = monotonic()
        try:
            self._on_data(data)
        except BaseException:
            self._interrupted()
            raise
        return True

    # -- writing -------------------------------------------------------------------------------------------------------

    @property
    def unsent(self) -> int:
        """Bytes that were written and that the socket has not taken yet."""
        return self._queued + len(self._partial)

    def is_congested(self) -> bool:
        """Whether more is unsent than the high-water mark; `on_drain` is then called at half of that mark."""
        if self._queued + len(self._partial) > self.high_water:
            self._was_congested = True
            return True
        return False

    def write(self, data: bytes | Gathered) -> None:
        """Send whole frames, in the order of the calls; never blocks, never interleaves. Ignored once closed."""
        if self._armed:
            self._queue.append(data)
            self._queued += len(data)
        elif not self.closed:
            self._armed = True
            try:
                iteration = self._loop.iteration
                if self._busy or iteration == self._iteration:
                    self._queue.append(data)
                    self._queued += len(data)
                    self._loop.run_callback(self.flush)
                elif not self._push(data):
                    self._writer.start(self._writable)
                elif iteration == _UNCOUNTED:
                    self._loop.run_callback(self.flush)
                else:
                    self._iteration, self._armed = iteration, False
                    if self._queue or self._was_congested:
                        # Something has written meanwhile, such as a finalizer; or somebody waits for `on_drain`.
                        self._armed = True
                        self._loop.run_callback(self.flush)
            except BaseException:
                self._interrupted()
                raise

    def flush(self) -> None:
        """Hand to the socket what is queued; runs at the end of an iteration that has queued something."""
        if not self.closed:
            try:
                self._busy = len(self._queue) > self._busy  # the first is among them when it has waited
                self._drain()
            except BaseException:
                self._interrupted()
                raise

    def _writable(self) -> None:
        try:
            if self._push():
                self._writer.stop()
                self._drain()
        except BaseException:
            self._interrupted()
            raise

    def _drain(self) -> None:
        while self._queue:
            data: bytes | Gathered
            if self._queued <= _JOIN:
                data = b''.join(self._queue)  # type: ignore[arg-type]  # what is gathered is more
                self._queue.clear()
            else:
                data = self._take()
            self._queued -= len(data)
            if not self._push(data):
                self._writer.start(self._writable)
                break
        else:
            self._armed = False
        if self._was_congested and self.unsent <= self.high_water // 2 and not self.closed:
            self._was_congested = False
            self._on_drain()

    def _take(self) -> bytes | Gathered:
        """The first of what is queued, as much as is worth joining."""
        size = count = 0
        for piece in self._queue:
            size += len(piece)
            if size > _JOIN and count:
                break
            count += 1
        data = self._queue[0] if count == 1 else b''.join(self._queue[:count])  # type: ignore[arg-type]  # as above
        del self._queue[:count]
        return data

    def _push(self, data: bytes | Gathered = b'') -> bool:
        """Hand data to the socket, after what it left last time; False when some of it must wait until it is
        writable."""
        try:
            with self._lock:
                return self._transmit(self._encode(data))
        except OSError as error:
            # Whoever writes must not be entered again by what a loss sets off: it is told from the loop.
            self._loop.run_callback(self._writing_failed, error)
            return True

    def _transmit(self, data: bytes | Gathered) -> bool:
        if self.closed:
            return True
        pending: bytes | memoryview | Gathered = data
        if self._partial:
            pending = bytes(self._partial) + bytes(data) if data else self._partial
        try:
            sent = pending.send(self._sock) if isinstance(pending, Gathered) else self._sock.send(pending)
        except (BlockingIOError, InterruptedError):
            sent = 0
        else:
            self.last_sent = monotonic()
        if sent == len(pending):
            self._partial = _NOTHING
        elif isinstance(pending, Gathered):
            pending.skip(sent)
            self._partial = pending
        else:
            self._partial = memoryview(pending)[sent:]
        return not self._partial

    def _encode(self, data: bytes | Gathered) -> bytes | Gathered:
        return data

    def keep_alive(self, heartbeat: bytes) -> None:
        """Send a heartbeat frame, or go on with what the socket did not take; for the native heartbeat thread.

        The hub may be busy, even stuck in a function that burns the CPU, so nothing here touches the loop.
        """
        # A failing socket is the hub's to find out and to tell.
        with contextlib.suppress(OSError), self._lock:
            self._transmit(b'' if self._partial or self.closed else self._encode(heartbeat))

    # -- the end -------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the socket at once; what is unsent is dropped."""
        with self._lock:
            if self.closed:
                return
            self.closed = True
            self._queue.clear()
            self._queued = 0
            self._partial = _NOTHING
            self._armed = False
        for watcher in (self._reader, self._writer):
            watcher.stop()
            watcher.close()
        self._sock.close()

    def abandon(self) -> None:
        """In a forked child: let go of the socket, which is the parent's, without a word on it."""
        # The native thread may have held the lock at the fork; it does not exist here.
        self._lock = allocate_lock()
        self.close()

    def finish(self, last: bytes, answer: bytes, timeout: float) -> None:
        """At the end of the thread that made it: send what is queued, and last frames; wait for the answer to them, and
        close the socket. The loop is left alone, which may be gone.

        To close a socket from which something has not been read resets it, and the peer loses what it has not read.

        :param answer: the end of what is received, when this has come; over TLS nothing that is received ends so.
        :param timeout: seconds to wait at most.
        """
        with self._lock:
            self.closed = True
        with contextlib.suppress(OSError), self._sock:
            until = monotonic() + timeout
            self._sock.settimeout(timeout)
            self._sock.sendall(bytes(self._partial) + bytes(self._encode(b''.join((*map(bytes, self._queue), last)))))
            received = b''
            while not received.endswith(answer) and monotonic() < until:
                data = self._sock.recv(_LARGE)
                if not data:
                    break
                received = (received + data)[-len(answer) :]

    def recover(self) -> None:
        """In the hub, now and then: Ctrl-C may come before the first line of what the loop calls. gevent then no longer
        calls what reads or writes."""
        if self.closed:
            return
        if not (self._reader.active or self._paused):
            self._lose(ConnectionAbortedError('reading was interrupted'))
        elif self._armed and not self._writer.active:
            self.flush()

    def _interrupted(self) -> None:
        # Ctrl-C may come anywhere: nobody knows how much of a frame was taken or sent, and the next connection does.
        self._loop.run_callback(self._lose, ConnectionAbortedError('reading or writing was interrupted'))

    def _writing_failed(self, error: Exception) -> None:
        # What the peer has said before it went is still there: why it went, and what it has confirmed.
        for _ in range(_LAST_READS):
            if self.closed or not self._readable():
                break
        self._lose(error)

    def _lose(self, error: Exception) -> None:
        if not self.closed:
            self.close()
            self._on_lost(error)
