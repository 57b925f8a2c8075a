"""Calls that wait for their reply: request id -> who waits, each with its deadline.

Knows ids, replies and time; nothing of messages. A waiting `call` is switched to straight from the hub; a `defer` has
an AsyncResult, which this table does not keep alive: when its last reference goes, so does the entry.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any

import gevent
from gevent.event import AsyncResult
from gevent.hub import Hub
from greenlet import greenlet

# Deadlines are looked at this often, in seconds: a call outlives its timeout by no more than that.
_TICK = 0.05
_NOTHING = object()


if TYPE_CHECKING:
    _AsyncResult = AsyncResult[Any]
else:
    _AsyncResult = AsyncResult  # takes no type parameter at run time


class Entry:
    """One call that waits. Either `resolve` or `fail` is taken, once.

    :ivar id: the request's id.
    :ivar deadline: monotonic time at which it ends without a result.
    :ivar publication: the request on its way; the owner of the table puts it here.
    """

    __slots__ = ('_error', '_greenlet', '_number', '_reply', '_slot', 'deadline', 'id', 'publication')

    def __init__(self, id: str, deadline: float) -> None:
        self.id = id
        self.deadline = deadline
        self.publication: Any = None
        # The table's slot and its number there; from `Pending.open` on.
        self._slot: dict[str, Entry]
        self._number: int
        self._greenlet: greenlet | None = None
        # What came before anybody waited.
        self._reply: Any = _NOTHING
        self._error: BaseException | None = None

    def wait(self, hub: Hub, waiting: greenlet) -> Any:
        """Block until the reply is there; raises what the call failed with.

        :param hub: this thread's.
        :param waiting: the current greenlet.
        """
        if self._error is not None:
            raise self._error
        if self._reply is not _NOTHING:
            return self._reply
        # What a gevent Waiter does, which would be one more object for each call.
        self._greenlet = waiting
        try:
            return hub.switch()
        finally:
            self._greenlet = None

    def deliver(self, value: Any) -> None:
        """In the hub: hand the reply to who waits."""
        if self._greenlet is not None:
            self._greenlet.switch(value)
        else:
            self._reply = value

    def throw(self, error: BaseException) -> None:
        """In the hub: hand an error to who waits."""
        if self._greenlet is not None:
            self._greenlet.throw(error)
        else:
            self._error = error


class Deferred(_AsyncResult):
    """The AsyncResult of a `defer`.

    A result that somebody has linked a callback to is kept by its entry, whether or not anybody else holds it: the
    callback is the point of it then.
    """

    entry: DeferredEntry | None = None

    def rawlink(self, callback: Callable[[Any], object]) -> None:
        """See `gevent.event.AsyncResult.rawlink`."""
        if self.entry is not None:
            self.entry.keep(self)
        super().rawlink(callback)

    def unlink(self, callback: Callable[[Any], object]) -> None:
        """See `gevent.event.AsyncResult.unlink`."""
        super().unlink(callback)
        if self.entry is not None and not self.linkcount():
            self.entry.release()


class DeferredEntry(Entry):
    """A `defer` that waits.

    :param decode: makes the result from the reply, or raises what the call failed with; called in the hub.
    :param on_dropped: called with the id when the last reference to the result is gone before there is one.
    """

    __slots__ = ('_decode', '_kept', '_result')

    def __init__(
        self,
        id: str,
        deadline: float,
        result: Deferred,
        decode: Callable[[Any], Any],
        on_dropped: Callable[[str], None],
    ) -> None:
        super().__init__(id, deadline)
        self._decode = decode
        self._kept: Deferred | None = None
        self._result = weakref.ref(result, lambda _: on_dropped(id))
        result.entry = self

    def keep(self, result: Deferred) -> None:
        """Hold on to the result until it is resolved."""
        self._kept = result

    def release(self) -> None:
        """Undo `keep`."""
        self._kept = None

    def _take_result(self) -> Deferred | None:
        # The result outlives its entry, and need not keep it and the request's body.
        result = self._result()
        if result is not None:
            result.entry = None
        self._kept = None
        return result

    def deliver(self, value: Any) -> None:
        """See `Entry`."""
        result = self._take_result()
        if result is not None:
            try:
                value = self._decode(value)
            except Exception as error:
                # Without its traceback, which leads to the reply: gevent makes a circle of them when it raises the
                # error, and the reply would stay in memory until the garbage is collected.
                result.set_exception(error.with_traceback(None))
            else:
                result.set(value)

    def throw(self, error: BaseException) -> None:
        """See `Entry`."""
        result = self._take_result()
        if result is not None:
            result.set_exception(error)


class Pending:
    """The table.

    :param on_expired: called in the hub with each entry whose deadline has passed, when it is no longer in the table;
        it is to `fail` it.
    """

    def __init__(self, on_expired: Callable[[Entry], None]) -> None:
        self._on_expired = on_expired
        self._entries: dict[str, Entry] = {}
        # Entries by the tick their deadline falls into, so that a tick costs what ends in it and no more.
        self._slots: dict[int, dict[str, Entry]] = {}
        self._swept = 0
        self._loop = gevent.get_hub().loop
        self._timer = self._loop.timer(_TICK, _TICK)
        self._ticking = False

    def __len__(self) -> int:
        return len(self._entries)

    def open(self, entry: Entry) -> None:
        """Have an entry in the table: before its request is written, for the reply may be that quick."""
        if not self._ticking:
            self._swept = int(monotonic() / _TICK)
            self._timer.start(self._tick)
            self._ticking = True  # the last: Ctrl-C may come before
        # A deadline may have passed already: encoding large arguments takes its time.
        number = max(int(entry.deadline / _TICK), self._swept) + 1
        slot = self._slots.get(number)
        if slot is None:
            slot = {}
        entry._slot, entry._number = slot, number
        slot[entry.id] = self._entries[entry.id] = entry
        # Also when it was there: collecting garbage may have dropped the last one in it just now, and so the slot.
        self._slots[number] = slot

    def abandon(self) -> None:
        """In a forked child: those who wait are the parent's."""
        self._timer.stop()
        self._entries.clear()
        self._slots.clear()

    def take(self, id: str | None) -> Entry | None:
        """Take an entry out of the table; None when it is not there (any more)."""
        entry = self._entries.pop(id, None)  # type: ignore[arg-type]  # None is no key, and is not found
        if entry is not None:
            self._leave_slot(entry)
        return entry

    def get(self, id: str | None) -> Entry | None:
        """The entry of an id; None when it is not there (any more)."""
        return self._entries.get(id) if id is not None else None

    def drop(self, id: str) -> None:
        """Nobody holds the result of this entry any more. May be called anywhere, even while garbage is collected."""
        self.take(id)

    def resolve(self, id: str | None, reply: Any) -> bool:
        """Hand a reply to who waits for it; False when nobody does. Only in the hub."""
        entry = self._entries.pop(id, None)  # type: ignore[arg-type]  # as in `take`, without the call
        if entry is None:
            return False
        self._leave_slot(entry)
        entry.deliver(reply)
        return True

    def fail(self, id: str | None, error: BaseException) -> bool:
        """Hand an error to who waits; False when nobody does."""
        entry = self.take(id)
        if entry is not None:
            # A waiter may only be switched to from the hub, and this may be another greenlet.
            self._loop.run_callback(entry.throw, error)
        return entry is not None

    def rest(self) -> None:
        """Look at no deadlines while there are none."""
        if not self._entries:
            self._slots.clear()
            self._timer.stop()
            self._ticking = False

    def _leave_slot(self, entry: Entry) -> None:
        slot = entry._slot
        del slot[entry.id]
        # A deadline may be a day away, and what has been in its slot takes memory even when it is empty.
        if not slot and self._slots.get(entry._number) is slot:
            del self._slots[entry._number]

    def _tick(self) -> None:
        self.rest()
        if not self._ticking:
            return  # a table that is empty does not wake the process
        now = int(monotonic() / _TICK)
        # The slot of the current tick holds deadlines of the tick before it.
        for number in range(self._swept + 1, now + 1):
            for entry in list(self._slots.pop(number, {}).values()):
                # One that ended meanwhile is no longer in the table.
                if self._entries.pop(entry.id, None) is not None:
                    try:
                        self._on_expired(entry)
                    except BaseException:
                        # A greenlet that is none of gevent's ends here with what its call raised: the others of this
                        # tick must hear, too.
                        gevent.get_hub().handle_error(self._on_expired, *sys.exc_info())
        self._swept = now
