"""A connection is reset in the middle of whatever it carries."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import gevent
import pytest

from amphora import AmqpRpcClient, AmqpRpcServer
from tests.faults.parties import Ledgers, connected
from tests.ledger import Ledger
from tests.parties import Client
from tests.proxy import Proxy
from tests.rabbitmq import RabbitNode
from tests.waiting import eventually

# Numbers of calls: for each offset one during which a connection is reset, and one that follows. All have as many
# digits as the one that is measured, and so have the results.
DURING, AFTER, MEASURED = 10_000, 20_000, 49_999


class Lane:
    """A client and a server of a service of their own, `side` of which comes anew and through a proxy for each trial;
    the other stays."""

    def __init__(self, side: str, service: str, node: RabbitNode, ledger: Ledger) -> None:
        self._side = side
        self._service = service
        self._ledger = ledger
        self._proxy = Proxy(node.port)
        self._staying = self._make('server' if side == 'client' else 'client', node.url)

    def _make(self, side: str, url: str) -> AmqpRpcClient | AmqpRpcServer:
        if side == 'client':
            client = AmqpRpcClient(self._service, amqp_url=url)
            self._ledger.observe(client)
            return client
        server = AmqpRpcServer(self._service, amqp_url=url)
        server.add_function(self._ledger.double())
        server.serve()
        return server

    @contextmanager
    def _trial(self) -> Iterator[AmqpRpcClient | AmqpRpcServer]:
        fresh = self._make(self._side, self._proxy.url)
        try:
            yield fresh
        finally:
            with gevent.Timeout(10):
                fresh.stop()

    def _call(self, number: int, fresh: AmqpRpcClient | AmqpRpcServer) -> None:
        client = fresh if self._side == 'client' else self._staying
        gevent.joinall(self._ledger.call([number], client))

    def measure(self, node: RabbitNode) -> tuple[int, int]:
        """How many bytes go through the proxy for the two connections to be made, and then for one call."""
        with self._trial() as fresh:
            eventually(lambda: connected(fresh))
            connecting = self._proxy.relayed
            self._call(MEASURED, fresh)
            # The last of it are acks.
            eventually(lambda: not self._unacked(node), 10)
            return connecting, self._proxy.relayed - connecting

    def _unacked(self, node: RabbitNode) -> int:
        return sum(messages for name, (messages, _) in node.list_queues().items() if self._service in name)

    def reset_while_connecting(self, offsets: Iterable[int]) -> None:
        for offset in offsets:
            self._proxy.cut_at = self._proxy.relayed + offset
            with self._trial() as fresh:
                self._try(offset, fresh)

    def reset_during_a_call(self, offsets: Iterable[int]) -> None:
        for offset in offsets:
            with self._trial() as fresh:
                eventually(lambda fresh=fresh: connected(fresh))
                self._proxy.cut_at = self._proxy.relayed + offset
                self._try(offset, fresh)

    def _try(self, offset: int, fresh: AmqpRpcClient | AmqpRpcServer) -> None:
        self._call(DURING + offset, fresh)
        eventually(lambda: self._proxy.cut_at is None)
        # What the broker delivers again because of the reset comes before this one, and is dealt with when this one is.
        self._call(AFTER + offset, fresh)

    def close(self) -> None:
        with gevent.Timeout(10):
            self._staying.stop()
        self._proxy.close()


@pytest.mark.row('3')
@pytest.mark.limit(60, full=180)
@pytest.mark.parametrize('moment', ['connecting', 'calling'])
@pytest.mark.parametrize('side', ['client', 'server'])
def test_connections_may_be_reset_at_any_byte(
    side: str, moment: str, ledger_of: Ledgers, client: Client, node: RabbitNode, service: str, full: bool
) -> None:
    ledger = ledger_of(client())
    lanes = [Lane(side, f'{service}-{number:02}', node, ledger) for number in range(24 if full else 4)]
    try:
        connecting, calling = lanes[0].measure(node)
        if moment == 'calling':
            offsets, trial = range(0, calling + 1, 1 if full else 40), Lane.reset_during_a_call
        else:
            offsets, trial = range(0, connecting, 7 if full else 250), Lane.reset_while_connecting
        shares = [offsets[at :: len(lanes)] for at in range(len(lanes))]
        gevent.joinall([gevent.spawn(trial, *each) for each in zip(lanes, shares, strict=True)], raise_error=True)
    finally:
        for lane in lanes:
            lane.close()

    ledger.check()
