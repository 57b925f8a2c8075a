"""Words for the parties of a test: clients, servers, and what their functions wait for."""

from collections.abc import Callable
from typing import Any

import gevent.event

from amphora import AmqpRpcClient, AmqpRpcServer

Server = Callable[..., AmqpRpcServer]
Client = Callable[..., AmqpRpcClient]


class Gate:
    """A remote function that waits: `entered` says what it was called with so far; `open()` lets it return."""

    def __init__(self) -> None:
        self.entered: list[Any] = []
        self.left: list[Any] = []
        self._opened = gevent.event.Event()

    def function(self, name: str = 'wait') -> Callable[[Any], Any]:
        def wait(value: Any = None) -> Any:
            self.entered.append(value)
            if not self._opened.wait(20):
                raise TimeoutError('nobody opened the gate')
            self.left.append(value)
            return value

        wait.__name__ = name
        return wait

    def open(self) -> None:
        self._opened.set()
