"""Limits of the request queue, and large bodies made smaller."""

from typing import Any

import pytest

from amphora import AmqpRpcClient, NoResult, QueueFull, RemoteException, WrongRequest
from amphora.amqp import PreconditionFailed
from amphora.amqp.content import MAX_MESSAGE_SIZE
from amphora.compression import compress
from tests.parties import Client, Gate, Server
from tests.proxy import Proxy
from tests.rpc.peer import Peer, body_of
from tests.stopwatch import Stopwatch
from tests.waiting import eventually

LARGE = 'amphora ' * 1000


def echo(value: Any) -> Any:
    return value


# -- how many may wait, and how long -----------------------------------------------------------------------------------


def test_over_its_size_a_queue_takes_no_more(client: Client) -> None:
    calling = client(queue_size=2)
    for number in range(2):
        calling.cast.echo(number)

    watch = Stopwatch()
    with pytest.raises(QueueFull) as caught:
        calling.call.echo(2)

    assert caught.value.executed is False
    assert watch.awake < 2


def test_there_is_room_again_when_a_server_takes_from_it(client: Client, server: Server) -> None:
    calling = client(queue_size=2)
    results = [calling.defer(wait_publish=True).echo(number) for number in range(3)]

    with pytest.raises(QueueFull):
        results[2].get()
    server(echo, queue_size=2)

    assert [result.get() for result in results[:2]] == [0, 1]
    assert calling.call.echo(3) == 3


@pytest.mark.parametrize('full', [1, 3])
def test_a_full_queue_is_worked_off_after_its_server_was_cut_off(
    client: Client, server: Server, gate: Gate, gateway: Proxy, peer: Peer, full: int
) -> None:
    # What comes again is counted by sending it again, for which there is no room.
    gateway.admit()
    assert server(gate.function('echo'), queue_size=full, prefetch=1, amqp_url=gateway.url).wait_ready(10)
    calling = client(queue_size=full)
    results = [calling.defer.echo(0)]
    assert eventually(lambda: gate.entered)
    results += [calling.defer.echo(number) for number in range(1, full + 1)]
    assert eventually(lambda: peer.ready() == full)

    gateway.refuse()
    gateway.reset()
    server(echo, queue_size=full, prefetch=1)

    assert [result.get() for result in results] == list(range(full + 1))


def test_a_queue_of_ones_own_has_the_size_too(client: Client, label: str) -> None:
    calling = client(queue_size=1)
    calling.create_new_request_queue(label)
    calling.cast(routing_key=label).echo(0)

    with pytest.raises(QueueFull):
        calling.cast(routing_key=label).echo(1)


def test_a_request_waits_no_longer_than_its_time_to_live(client: Client, server: Server, peer: Peer) -> None:
    calling = client(request_ttl=0.2)
    calling.cast.note('late')
    assert eventually(lambda: peer.ready() == 0)
    done: list[Any] = []

    server(named={'note': done.append}, request_ttl=0.2)
    calling.cast.note('in time')

    assert eventually(lambda: done)
    assert done == ['in time']


def test_both_sides_must_agree(client: Client, server: Server) -> None:
    calling = client(queue_size=2)
    calling.cast.echo(1)

    with pytest.raises(PreconditionFailed, match='x-max-length'):
        server(echo, queue_size=3).wait_ready(5)


@pytest.mark.parametrize(
    ('name', 'value'),
    [
        ('queue_size', 0),
        ('queue_size', -1),
        ('queue_size', 1.5),
        ('queue_size', True),
        ('request_ttl', 0),
        ('request_ttl', -1),
        ('request_ttl', 'soon'),
        ('request_ttl', 1e10),
        ('compression', 'deflate'),
        ('compression', True),
        ('compress_threshold', -1),
        ('compress_threshold', '1k'),
    ],
)
def test_a_limit_that_makes_no_sense_is_an_error(name: str, value: Any) -> None:
    with pytest.raises((ValueError, TypeError), match=name):
        AmqpRpcClient('any', autostart=False, **{name: value})


# -- large bodies ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('algorithm', ['gzip', 'zstd'])
def test_large_bodies_travel_compressed(server: Server, client: Client, algorithm: str) -> None:
    server(echo, compression=algorithm)

    assert client(compression=algorithm).call.echo(LARGE) == LARGE


@pytest.mark.parametrize('algorithm', ['gzip', 'zstd'])
def test_each_side_reads_what_the_other_compresses_without_being_told(
    server: Server, client: Client, algorithm: str
) -> None:
    server(echo)
    assert client(compression=algorithm).call.echo(LARGE) == LARGE

    server(echo, service='other', compression=algorithm)
    assert client(service='other').call.echo(LARGE) == LARGE


def test_a_body_is_labelled_and_small(client: Client, peer: Peer) -> None:
    calling = client(compression='gzip')
    calling.cast.echo(LARGE)

    message = peer.take()

    assert message.properties['content_encoding'] == 'gzip'
    assert len(message.body) < 200


@pytest.mark.parametrize(('value', 'options'), [('small', {}), (LARGE, {'compress_threshold': 10_000})])
def test_a_body_below_the_threshold_stays_as_it_is(
    client: Client, peer: Peer, value: str, options: dict[str, Any]
) -> None:
    calling = client(compression='gzip', **options)
    calling.cast.echo(value)

    message = peer.take()

    assert 'content_encoding' not in message.properties
    assert value.encode() in message.body


def answer_to(peer: Peer, body: bytes, encoding: str) -> Any:
    """What a server says to a request with such a body."""
    replies = peer.declare_reply_queue('me')
    peer.request(body, message_id='1', reply_to='me', content_encoding=encoding)
    return body_of(peer.take(replies))


def test_a_bomb_is_refused(server: Server, peer: Peer, client: Client) -> None:
    server(echo)
    bomb = compress('gzip', bytes(300_000_000))

    error = answer_to(peer, bomb, 'gzip')

    assert error['exception']['type'] == 'WrongRequest'
    assert 'more than' in error['exception']['args'][0]
    assert client().call.echo(1) == 1


def test_a_call_that_is_not_answered_says_so_with_compression_too(client: Client) -> None:
    with pytest.raises(NoResult):
        client(compression='zstd').call(timeout=0.3).echo(LARGE)


def test_an_encoding_that_nobody_knows_is_refused(server: Server, peer: Peer) -> None:
    server(echo)

    error = answer_to(peer, b'{}', 'br')

    assert error['exception']['type'] == WrongRequest.__name__
    assert 'gzip and zstd' in error['exception']['args'][0]


@pytest.mark.limit(60)
def test_what_is_above_the_limit_is_refused_however_small_it_would_be_when_compressed(
    server: Server, client: Client
) -> None:
    server(named={'length': len, 'much': lambda: 'x' * (MAX_MESSAGE_SIZE + 1)}, compression='gzip')
    calling = client(compression='gzip', timeout=40)

    with pytest.raises(ValueError, match='bytes'):
        calling.call.length('x' * (MAX_MESSAGE_SIZE + 1))
    with pytest.raises(RemoteException) as caught:
        calling.call.much()

    assert caught.value.error_type == 'ValueError'
