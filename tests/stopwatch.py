"""Time as a test of timeouts needs it: what takes long only because the machine stood still is nobody's fault."""

import threading
import time

# How much later than its timeout a call may end, in seconds.
GRACE = 0.25
# How much earlier a loop's timer may fire: it counts from when the loop last looked at the clock.
_EARLY = 0.05
# How often it is looked whether this process runs, in seconds.
_TICK = 0.01


class _Stalls:
    """How long this process was not run although it was to go on; a native thread looks.

    What the process calculates meanwhile is its own doing, and no excuse.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seconds = 0.0
        self._looked = self._clocks()
        threading.Thread(target=self._watch, name='stalls', daemon=True).start()

    def look(self) -> float:
        """Seconds until now, since this process began to look."""
        with self._lock:
            now, used = self._clocks()
            since, used_then = self._looked
            self._seconds += max(0.0, now - since - _TICK - (used - used_then))
            self._looked = now, used
            return self._seconds

    def _watch(self) -> None:
        while True:
            time.sleep(_TICK)
            self.look()

    @staticmethod
    def _clocks() -> tuple[float, float]:
        return time.monotonic(), time.process_time()


_stalls = _Stalls()


class Stopwatch:
    """Begins when it is made."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._stalled = _stalls.look()

    @property
    def seconds(self) -> float:
        """By the clock. What must not be early is compared with these."""
        return time.monotonic() - self._began

    @property
    def awake(self) -> float:
        """Without those for which the machine did not run this process. What must not be late is compared with
        these."""
        return self.seconds - (_stalls.look() - self._stalled)

    def check_timeout(self, timeout: float) -> None:
        """That what has just ended did so at its timeout, in seconds."""
        assert timeout - _EARLY < self.seconds
        assert self.awake < timeout + GRACE
