"""A cluster of three RabbitMQ nodes loses one of them, or two."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from amphora import NoResult
from tests.faults.cluster import Cluster
from tests.faults.parties import RECONNECT, Ledgers
from tests.parties import Client, Gate, Server
from tests.stopwatch import Stopwatch
from tests.waiting import eventually

# Seconds in which the nodes that are left elect another leader of a queue, and calls go on.
FAILOVER = RECONNECT + 7


@pytest.fixture(scope='module')
def private_cluster() -> Iterator[Cluster]:
    with Cluster() as made:
        yield made


@pytest.fixture
def cluster(private_cluster: Cluster) -> Cluster:
    """A cluster that a test may do anything to."""
    private_cluster.mend()
    return private_cluster


@pytest.fixture
def amqp_url(cluster: Cluster) -> list[str]:
    return cluster.urls


@pytest.mark.row('13')
@pytest.mark.limit(90, full=400)
def test_calls_go_on_while_the_leader_of_their_queue_is_killed_again_and_again(
    ledger_of: Ledgers, server: Server, client: Client, cluster: Cluster, service: str, full: bool
) -> None:
    ledger = ledger_of(client(queue_type='quorum'))
    server(ledger.double(0.01), queue_type='quorum')
    stop = []
    ledger.keep_calling(lambda: bool(stop), callers=20)
    eventually(lambda: ledger.ended > 100, FAILOVER)

    for _ in range(20 if full else 2):
        leader = cluster.leader(f'rpc_{service}_request')
        leader.kill()
        ended = ledger.ended
        eventually(lambda ended=ended: ledger.ended > ended + 100, FAILOVER)
        leader.start()
    stop.append(True)

    ledger.check()


@pytest.mark.row('13')
def test_a_call_gets_its_result_although_the_node_of_its_reply_queue_is_killed(
    server: Server, client: Client, cluster: Cluster, service: str, gate: Gate
) -> None:
    doomed, *others = cluster.nodes
    server(gate.function(), amqp_url=[node.url for node in others], queue_type='quorum')
    calling = client(queue_type='quorum')
    results = [calling.defer(timeout=20).wait(number) for number in range(10)]
    eventually(lambda: len(gate.entered) == 10)
    assert cluster.leader(f'rpc_{service}_{calling.uuid}_response') is doomed

    doomed.kill()
    gate.open()

    assert [result.get(timeout=20) for result in results] == list(range(10))


@pytest.mark.row('14')
def test_calls_end_on_time_without_a_quorum_and_succeed_when_it_is_back(
    ledger_of: Ledgers, server: Server, client: Client, cluster: Cluster, service: str, full: bool
) -> None:
    calling = client(queue_type='quorum')
    ledger = ledger_of(calling)
    server(ledger.double(), queue_type='quorum')
    ledger.call(range(100))
    ledger.check()

    # The leader is one of them, and stays down: who remembers it must look for another.
    leader = cluster.leader(f'rpc_{service}_request')
    follower = next(node for node in cluster.nodes if node is not leader)
    leader.kill()
    follower.kill()
    for _ in range(5 if full else 1):
        watch = Stopwatch()
        with pytest.raises(NoResult):
            calling.call(timeout=1).double(-1)
        watch.check_timeout(1)
    follower.start()
    ledger.call(range(100, 200))

    eventually(lambda: ledger.ended == 200, FAILOVER)
    ledger.wait()
    assert not ledger.errors
    ledger.check_logs()
