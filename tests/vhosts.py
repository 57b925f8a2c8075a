"""Virtual hosts for tests: each has one of its own, and they are made and deleted many at once."""

import secrets

import gevent

from tests.rabbitmq import RabbitNode

# How many are made at once in the end; few at first, for a run of few tests.
MOST = 32


class VirtualHosts:
    """Virtual hosts of a node, on which guest may do everything.

    A command to the node takes half a second of a processor, however many it names.
    """

    def __init__(self, node: RabbitNode) -> None:
        self._node = node
        self._free: list[str] = []
        self._taken: list[str] = []
        self._count = 1
        self._deleting = gevent.spawn(lambda: None)

    def take(self) -> str:
        """The name of one that nobody has used. Whoever took one before is done with it."""
        if not self._free:
            self._deleting.join()
            self._deleting = gevent.spawn(self._node.delete_vhosts, self._taken)
            self._free = [f'test-{secrets.token_hex(6)}' for _ in range(self._count)]
            self._taken = []
            self._node.add_vhosts(self._free)
            self._count = min(2 * self._count, MOST)
        name = self._free.pop()
        self._taken.append(name)
        return name

    def close(self) -> None:
        """Leave the rest to the node's end."""
        self._deleting.join()
