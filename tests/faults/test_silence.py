"""A broker of which nothing is heard, or which hears nothing: half-open connections, one that freezes, one that never
says a word."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

import gevent
import pytest
from gevent.server import StreamServer

from amphora import NotSent
from amphora.amqp import Connection, ConnectionFailed
from tests.faults.parties import HEARTBEAT, RECONNECT, Ledgers, connected, connections
from tests.parties import Client, Server
from tests.proxy import FROM_BROKER, TO_BROKER, Proxy
from tests.rabbitmq import HOST, RabbitNode
from tests.stopwatch import GRACE, Stopwatch
from tests.waiting import eventually


@pytest.mark.parametrize(
    ('directions', 'heartbeat'),
    [
        pytest.param([FROM_BROKER], HEARTBEAT, marks=pytest.mark.row('4'), id=FROM_BROKER),
        # It is the broker that notices, and it counts in whole seconds.
        pytest.param([TO_BROKER], 2 * HEARTBEAT, marks=pytest.mark.row('5'), id=TO_BROKER),
        pytest.param([FROM_BROKER, TO_BROKER], HEARTBEAT, marks=pytest.mark.row('4', '5'), id='both ways'),
    ],
)
@pytest.mark.parametrize('side', ['client', 'server'])
def test_a_half_open_connection_is_noticed_and_replaced(
    ledger_of: Ledgers, side: str, directions: list[str], heartbeat: int, server: Server, client: Client, proxy: Proxy
) -> None:
    through_proxy = {'amqp_url': proxy.url, 'heartbeat': heartbeat}
    calling = client(**(through_proxy if side == 'client' else {}))
    ledger = ledger_of(calling)
    serving = server(ledger.double(), **(through_proxy if side == 'server' else {}))
    ledger.call(range(10))
    ledger.wait()
    eventually(lambda: connected(calling, serving))
    half_open = connections(calling if side == 'client' else serving)

    proxy.drop(*directions)
    ledger.call(range(10, 60))

    eventually(lambda: all(each.closed for each in half_open), 2 * heartbeat + 1)
    eventually(lambda: ledger.ended == 60, RECONNECT)
    ledger.check()


@pytest.mark.row('5')
@pytest.mark.parametrize('side', ['client', 'fanout server'])
def test_one_comes_back_although_the_broker_still_believes_in_the_old_connections(
    ledger_of: Ledgers,
    side: str,
    server: Server,
    client: Client,
    fanout_server: Server,
    fanout_client: Client,
    proxy: Proxy,
) -> None:
    # The broker gives up a connection with the default heartbeat after twelve seconds at the earliest.
    if side == 'client':
        calling, serving = client(amqp_url=proxy.url), server()
    else:
        calling, serving = fanout_client(), fanout_server(amqp_url=proxy.url)
    ledger = ledger_of(calling, timeout=5)
    serving.add_function(ledger.double())
    eventually(lambda: connected(calling, serving))
    ledger.call(range(10))
    ledger.wait()
    old = connections(calling if side == 'client' else serving)

    proxy.reset_towards_client()
    eventually(lambda: all(each.closed for each in old) and connected(calling, serving), RECONNECT)
    ledger.call(range(10, 60))

    ledger.check()
    assert proxy.open_links == 4


@pytest.mark.row('4', '5')
@pytest.mark.parametrize('direction', [FROM_BROKER, TO_BROKER])
def test_a_close_waits_no_longer_than_a_second_for_its_answer(direction: str, proxy: Proxy) -> None:
    connection = Connection.from_url(proxy.url)
    channel, other = connection.channel(), connection.channel()
    proxy.drop(direction)

    watch = Stopwatch()
    channel.close()
    assert watch.awake < 1 + GRACE

    watch = Stopwatch()
    connection.close()
    assert watch.awake < 1 + GRACE
    assert other.closed


@pytest.mark.row('4', '5')
def test_stopping_does_not_wait_for_the_heartbeat_to_notice_that_a_connection_is_half_open(
    ledger_of: Ledgers, server: Server, client: Client, proxy: Proxy
) -> None:
    calling, serving = client(amqp_url=proxy.url), server(amqp_url=proxy.url)
    ledger = ledger_of(calling)
    serving.add_function(ledger.double())
    ledger.call(range(10))
    ledger.check()
    # Stopping waits for the confirms of the last replies.
    eventually(lambda: connected(calling, serving) and not serving._native._in_hand)

    proxy.drop(FROM_BROKER, TO_BROKER)
    watch = Stopwatch()
    gevent.joinall([gevent.spawn(calling.stop), gevent.spawn(serving.stop)], raise_error=True)

    # Five seconds for the broker to say that it delivers no more; one for each thing after that.
    assert watch.awake < 12


@pytest.mark.row('6')
def test_a_broker_that_freezes_for_three_heartbeats_is_waited_for(
    ledger_of: Ledgers, server: Server, client: Client, node: RabbitNode
) -> None:
    calling = client(heartbeat=HEARTBEAT)
    ledger = ledger_of(calling)
    serving = server(ledger.double(0.1), heartbeat=HEARTBEAT)
    ledger.call(range(10))
    ledger.wait()
    eventually(lambda: connected(calling, serving))
    before = connections(calling, serving)
    resolved: Counter[int] = Counter()

    def defer(numbers: Iterable[int]) -> None:
        for number in numbers:
            ledger.expect(number)
            calling.defer(timeout=20).double(number).rawlink(lambda _, number=number: resolved.update([number]))

    # Some are under way when it freezes, some come while it is frozen.
    ledger.call(range(10, 40))
    defer(range(100, 130))
    eventually(lambda: len(ledger.executed) > 20)
    node.pause()
    try:
        frozen = gevent.spawn(gevent.sleep, 3 * HEARTBEAT)
        ledger.call(range(40, 70))
        defer(range(130, 160))
        eventually(lambda: all(each.closed for each in before), 2 * HEARTBEAT + 1)
        frozen.join()
    finally:
        node.resume()

    # Connecting to a frozen broker is given up after ten seconds; it thaws before.
    eventually(lambda: ledger.ended == 70 and len(resolved) == 60, 10)
    ledger.wait()
    ledger.check_logs()
    assert not ledger.errors
    # Replies that come again arrive before those to later requests.
    ledger.call(range(200, 210))
    ledger.wait()
    assert resolved == Counter([*range(100, 160)])


@pytest.fixture
def silent_port() -> Iterator[int]:
    """Where somebody accepts connections and says nothing."""
    listener = StreamServer((HOST, 0), lambda *_: gevent.sleep(1_000))
    listener.start()
    yield listener.server_port
    listener.stop(timeout=0)


@pytest.mark.row('30')
@pytest.mark.limit(60, full=90)
def test_a_broker_that_accepts_and_says_nothing_is_given_up_and_tried_again(
    ledger_of: Ledgers,
    server: Server,
    client: Client,
    proxy: Proxy,
    silent_port: int,
    full: bool,
) -> None:
    broker_port, proxy.target = proxy.target, silent_port
    patience, url = (10, proxy.url) if full else (1, proxy.url + '?connection_timeout=1000')
    watch = Stopwatch()
    calling = client(amqp_url=url)
    ledger = ledger_of(calling, timeout=50)
    server(ledger.double(), amqp_url=url)
    ledger.call(range(20))
    attempt = gevent.spawn(Connection.from_url, url)

    # Calls end on time meanwhile.
    with pytest.raises(NotSent, match='there is no connection yet') as raised:
        calling.call(timeout=0.5).double(-1)
    assert watch.awake < 0.5 + 2 * GRACE
    assert raised.value.executed is False
    # It is given up in time.
    with pytest.raises(ConnectionFailed, match=f'within {patience} s'):
        attempt.get()
    assert patience <= watch.seconds
    assert watch.awake < patience + 2 * GRACE
    # And tried again, by each of the four sessions.
    eventually(lambda: proxy.accepted >= 1 + 2 * 4, RECONNECT)

    proxy.target = broker_port

    eventually(lambda: ledger.ended == 20, patience + RECONNECT)
    ledger.check()


@pytest.mark.row('30')
def test_stopping_does_not_wait_for_a_broker_that_says_nothing(
    client: Client, server: Server, proxy: Proxy, silent_port: int
) -> None:
    proxy.target = silent_port
    calling, serving = client(amqp_url=proxy.url), server(amqp_url=proxy.url)
    eventually(lambda: proxy.accepted == 4)

    watch = Stopwatch()
    calling.stop()
    serving.stop()

    assert watch.awake < 1
    eventually(lambda: proxy.open_links == 0)
