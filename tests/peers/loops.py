"""An asyncio loop in a native thread, for clients that need one while the test's own thread runs gevent's."""

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any

import gevent

LIMIT = 20


class Loop:
    """Runs until `stop`."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """What a coroutine returns; gevent goes on meanwhile."""
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        return gevent.get_hub().threadpool.apply(future.result, (LIMIT,))

    def stop(self) -> None:
        self.run(self._cancel_others())
        self._loop.call_soon_threadsafe(self._loop.stop)
        gevent.get_hub().threadpool.apply(self._thread.join)
        self._loop.close()

    async def _cancel_others(self) -> None:
        others = [task for task in asyncio.all_tasks(self._loop) if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
