"""Requests that came to grief once: they wait for what went before them, and for nothing else."""

import gevent

from amphora import AmqpRpcServer, IgnoreRequest
from amphora.dead_letters import DELIVERIES
from tests.parties import Server
from tests.proxy import Proxy
from tests.rpc.peer import Peer
from tests.waiting import eventually

# Seconds by which everything is held up between server and broker, each way: long enough to tell what waits for what.
DELAY = 0.2


def ignore() -> None:
    raise IgnoreRequest


def far_away(server: Server, gateway: Proxy, done: list[str]) -> AmqpRpcServer:
    gateway.admit()
    serving = server(ignore, named={'note': done.append}, amqp_url=gateway.url)
    assert serving.wait_ready(10)
    gateway.delay = DELAY
    return serving


def note(peer: Peer, id: str) -> None:
    body = {'func': 'note', 'args': [id], 'kwargs': {}}
    peer.request(body, message_id=id, reply_to='nobody', headers={DELIVERIES: 1})


def test_they_are_not_held_up_by_others_that_are_passed_on_all_the_time(
    server: Server, gateway: Proxy, peer: Peer
) -> None:
    done: list[str] = []
    far_away(server, gateway, done)
    for number in range(30):
        peer.request({'func': 'ignore', 'args': [], 'kwargs': {}}, message_id=str(number), reply_to='nobody')
        gevent.sleep(0.05)  # so that there is always one whose copy is under way

    note(peer, 'late')

    eventually(lambda: done == ['late'], 4)
    gateway.delay = 0


def test_one_that_comes_twice_and_waits_longer_the_second_time_runs_once(
    server: Server, gateway: Proxy, peer: Peer
) -> None:
    done: list[str] = []
    serving = far_away(server, gateway, done)

    note(peer, 'twice')
    gevent.sleep(0.05)
    # The second waits for the copy of this one as well; the first has been answered by then.
    peer.request({'func': 'ignore', 'args': [], 'kwargs': {}}, message_id='1', reply_to='nobody')
    gevent.sleep(0.05)
    note(peer, 'twice')

    gevent.sleep(6 * DELAY)
    gateway.delay = 0
    serving.stop()
    assert done == ['twice']
