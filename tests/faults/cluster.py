"""Three RabbitMQ nodes that form a cluster, on this machine."""

from __future__ import annotations

import json
from types import TracebackType

import gevent

from tests.rabbitmq import RabbitNode
from tests.waiting import eventually

SIZE = 3
# Seconds that an election may take, with the broker's noticing that it needs one.
ELECTION_LIMIT = 20


class Cluster:
    """`RabbitNode`s that form a cluster, from its construction to `close()`.

    :ivar nodes: all of them, those that are down too.
    """

    def __init__(self) -> None:
        # The first one keeps the epmd of all.
        first = RabbitNode()
        self.nodes = [first]
        try:
            self.nodes += [RabbitNode(cookie=first.cookie, epmd_port=first.epmd_port) for _ in range(SIZE - 1)]
            first.start()
            gevent.joinall([gevent.spawn(node.start) for node in self.nodes[1:]], raise_error=True)
            # One after the other: who joins while another does may find a member that is only half of one.
            for node in self.nodes[1:]:
                self._join(node)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Cluster:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _join(self, node: RabbitNode) -> None:
        node.ctl('stop_app')
        node.ctl('join_cluster', self.nodes[0].nodename)
        node.ctl('start_app')

    @property
    def urls(self) -> list[str]:
        return [node.url for node in self.nodes]

    def leader(self, queue: str) -> RabbitNode:
        """The node that leads a quorum queue, as soon as there is one."""
        return eventually(lambda: self._leader(queue), ELECTION_LIMIT)

    def _leader(self, queue: str) -> RabbitNode | None:
        running = [node for node in self.nodes if node.is_running]
        queues = json.loads(running[0].ctl('list_queues', 'name', 'leader', '--formatter', 'json'))
        leaders = [each['leader'] for each in queues if each['name'] == queue]
        return next((node for node in running if node.nodename in leaders), None)

    def mend(self) -> None:
        """Start the nodes that are down."""
        gevent.joinall([gevent.spawn(node.start) for node in self.nodes if not node.is_running], raise_error=True)

    def close(self) -> None:
        # Nobody needs what they hold, so none has to hand it over first.
        for node in self.nodes:
            node.kill()
        for node in reversed(self.nodes):
            node.close()
