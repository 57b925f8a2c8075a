"""Which deliveries of a channel the broker is owed an ack for, and the acks, gathered.

Acks cost the broker as much as messages do. So those of one turn of the loop go out together, and as one where nothing
that was delivered before them is still in hand.

Source: https://www.rabbitmq.com/docs/confirms#consumer-acks-multiple-parameter.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gevent

#: seconds that acks may wait for others when that is asked for
LATE = 0.01


class Acks:
    """The acks of one channel, whose deliveries must all be told of, in their order.

    :param ack: writes an ack of a delivery tag, and where its second argument is true of all before it.
    """

    __slots__ = ('_ack', '_flushing', '_loop', '_ready', '_singly', '_timer', '_unsettled')

    def __init__(self, ack: Callable[[int, bool], None]) -> None:
        self._ack = ack
        self._loop = gevent.get_hub().loop
        # A dict keeps the order: the first of them is the oldest delivery in hand.
        self._unsettled: dict[int, None] = {}
        self._ready: list[int] = []
        # Whether the end of this turn of the loop flushes.
        self._flushing = False
        self._timer: Any = None
        self._singly = False

    def delivered(self, tag: int) -> None:
        """A delivery has come, and wants to be settled."""
        self._unsettled[tag] = None

    def stray(self) -> None:
        """A delivery has come that nobody took: no ack must ever include it."""
        self._singly = True

    def settled(self, tag: int) -> None:
        """A delivery was settled by other means."""
        self._unsettled.pop(tag, None)

    def add(self, tag: int) -> None:
        """Ack a delivery at the end of this turn of the loop."""
        self._unsettled.pop(tag, None)
        self._ready.append(tag)
        if not self._flushing:
            self._flushing = True
            self._loop.run_callback(self.flush)

    def add_late(self, tag: int) -> None:
        """Ack a delivery within `LATE` seconds: one whose repeat would do no harm."""
        self._unsettled.pop(tag, None)
        self._ready.append(tag)
        if self._timer is None:
            self._timer = self._loop.timer(LATE)
            self._timer.start(self.flush)

    def flush(self) -> None:
        """Write the acks that were gathered."""
        self._flushing = False
        if self._timer is not None:
            self._timer.close()
            self._timer = None
        ready, self._ready = self._ready, []
        oldest = 0 if self._singly else next(iter(self._unsettled), None)
        if oldest is not None:
            for tag in ready:
                if tag > oldest:
                    self._ack(tag, False)
            ready = [tag for tag in ready if tag < oldest]
        if ready:
            self._ack(max(ready), len(ready) > 1)
