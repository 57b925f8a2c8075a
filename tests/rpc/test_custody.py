"""A request that has come to grief three times runs alone: what becomes of it, and what is left of that."""

import logging

import gevent
import pytest

from amphora import RejectRequest, custody
from amphora.amqp import Message
from amphora.answering import ALONE_AFTER
from amphora.dead_letters import DELIVERIES
from amphora.dialects import AioPikaMaster, Json
from tests.parties import Client, Server
from tests.rabbitmq import RabbitNode
from tests.rpc.peer import Peer
from tests.waiting import eventually


def bring_to_grief(peer: Peer) -> None:
    """The request in the queue has been through it three times."""
    request = peer.take()
    request.properties['headers'] = {DELIVERIES: ALONE_AFTER}
    peer.channel.basic.publish(request, '', peer.request_queue)


def queues_left(rabbit: RabbitNode, service: str) -> list[str]:
    return [name for name in rabbit.list_queues() if service in name and name.endswith('_custody')]


@pytest.mark.parametrize('verb', ['defer', 'cast'])
@pytest.mark.parametrize('queue_type', ['classic', 'quorum'])
def test_one_that_is_answered_at_last_leaves_nothing_behind(
    queue_type: str,
    verb: str,
    server: Server,
    client: Client,
    peer: Peer,
    rabbit: RabbitNode,
    service: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    done: list[int] = []
    calling = client(queue_type=queue_type)
    # Both return when the request is in the queue.
    result = calling.cast.note(1) if verb == 'cast' else calling.defer(wait_publish=True).note(1)
    bring_to_grief(peer)

    server(named={'note': done.append}, queue_type=queue_type)

    if result is not None:
        assert result.get(timeout=10) is None
    eventually(lambda: done == [1] and not queues_left(rabbit, service), 10)
    # The connections are as they were, and nothing came again.
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == [
        record.getMessage() for record in caplog.records if 'it runs alone' in record.getMessage()
    ]
    assert peer.ready() == 0


def test_one_whose_reply_waits_for_too_long_goes_back(
    server: Server, client: Client, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(custody, 'REPLY_TIMEOUT', 0)
    done: list[int] = []
    calling = client()
    result = calling.defer(wait_publish=True).note(1)
    bring_to_grief(peer)

    serving = server(named={'note': done.append})

    assert result.get(timeout=10) is None
    # It came again, and was answered again from memory.
    eventually(lambda: calling.ignored_replies == 1)
    assert done == [1]
    serving.stop()
    assert peer.ready() == 0


def test_one_that_is_rejected_does_not_come_again_in_any_dialect(server: Server, peer: Peer, service: str) -> None:
    run: list[None] = []

    def refuse() -> None:
        run.append(None)
        raise RejectRequest('too old')

    queue = f'{service}-refuse'
    server(named={queue: refuse}, dialects=[AioPikaMaster(Json, auto_delete=True)]).wait_ready()
    peer.channel.basic.publish(Message(b'{}', headers={DELIVERIES: ALONE_AFTER}), '', queue)

    dead = f'rpc_{service}_dead'
    eventually(lambda: peer.exists(dead) and peer.ready(dead) == 1, 10)
    assert peer.take(dead).properties['headers']['x-amphora-reason'] == 'rejected: too old'
    # From where it was kept it would be back in a second.
    gevent.sleep(custody.RETURN_AFTER / 1000 + 0.5)
    assert len(run) == 1
