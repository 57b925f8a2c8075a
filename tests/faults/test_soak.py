"""Everything at once for a long time: what is used by then is no more than what was used soon after the beginning."""

from __future__ import annotations

import gc
import os
import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import gevent
import pytest
from greenlet import greenlet

from amphora import AmqpRpcClient, AmqpRpcFanoutClient, AmqpRpcFanoutServer, NoResult, RemoteException, WrongRequest
from tests.faults.parties import Ledgers, ServerProcess, connected
from tests.parties import Client, Server
from tests.proxy import Proxy
from tests.stopwatch import GRACE, Stopwatch
from tests.waiting import eventually

PAGE = os.sysconf('SC_PAGE_SIZE')
# Kilobytes by which a process may have grown: allocators do not give everything back at once.
GROWTH = 16_384
# Seconds between two resets of all connections, and between two restarts of a server.
RESETS, RESTARTS = 7, 15


def resident(pid: int | str = 'self') -> int:
    """Kilobytes of memory that a process occupies."""
    return int(Path(f'/proc/{pid}/statm').read_text().split()[1]) * PAGE // 1024


def descriptors(pid: int | str = 'self') -> int:
    return len(os.listdir(f'/proc/{pid}/fd'))


def greenlets() -> int:
    gc.collect()
    return sum(isinstance(each, greenlet) and not each.dead for each in gc.get_objects())


class Load:
    """Calls of all kinds, until it is told to rest.

    :ivar outcomes: how many calls ended in which way.
    """

    def __init__(self, calling: AmqpRpcClient, fanout: AmqpRpcFanoutClient) -> None:
        self.outcomes: Counter[str] = Counter()
        self._calling = calling
        self._fanout = fanout
        self._resting = False
        self._greenlets: list[gevent.Greenlet] = []

    def start(self) -> None:
        self._resting = False
        kinds: list[tuple[Callable[[], str], float]] = [
            *[(self._double, 0.02)] * 20,
            *[(self._large, 0.5)] * 4,
            (self._failing, 0.05),
            (self._unknown, 0.05),
            (self._late, 0.1),
            (self._deferred_and_dropped, 0.02),
            (self._to_all, 0.1),
        ]
        self._greenlets = [gevent.spawn(self._repeat, *kind) for kind in kinds]

    def rest(self) -> None:
        self._resting = True
        gevent.joinall(self._greenlets, timeout=40, raise_error=True)
        assert all(each.ready() for each in self._greenlets)
        self._greenlets = []

    def _repeat(self, kind: Callable[[], str], pause: float) -> None:
        while not self._resting:
            self.outcomes[kind()] += 1
            gevent.sleep(pause * random.random() * 2)

    def _double(self) -> str:
        number = random.randrange(1 << 40)
        return 'right' if self._calling.call(timeout=30).double(number) == 2 * number else 'wrong'

    def _large(self) -> str:
        text = '%010d' % random.randrange(10**10) * 10_000
        return 'right' if self._calling.call(timeout=30).echo(text) == text else 'wrong'

    def _failing(self) -> str:
        try:
            self._calling.call(timeout=30).fail('on purpose')
        except RemoteException as error:
            return 'failed' if error.args == ('on purpose',) else 'wrong'
        return 'wrong'

    def _unknown(self) -> str:
        try:
            self._calling.call(timeout=30).no_such_function()
        except WrongRequest:
            return 'unknown'
        return 'wrong'

    def _late(self) -> str:
        watch = Stopwatch()
        try:
            self._calling.call(timeout=0.05).pause(0.2)
        except NoResult:
            # The other rows run beside this one, on as few cores as there are.
            took = watch.awake
            return 'late' if took < 0.05 + GRACE else f'too late: {took:.2f} s'
        return 'wrong'

    def _deferred_and_dropped(self) -> str:
        self._calling.defer(timeout=30).double(1)
        return 'dropped'

    def _to_all(self) -> str:
        try:
            return 'right' if self._fanout.call(timeout=30).echo('all') == 'all' else 'wrong'
        except NoResult:
            # A fanout server that is just connecting again has no queue yet; the request was for who was there.
            return 'nobody'


@pytest.mark.row('soak')
@pytest.mark.limit(90, full=800)
def test_memory_greenlets_and_descriptors_stay_what_they_were(
    ledger_of: Ledgers,
    server: Server,
    client: Client,
    server_process: Callable[..., ServerProcess],
    proxy: Proxy,
    service: str,
    full: bool,
) -> None:
    seconds, warm_up = (600, 150) if full else (10, 5)
    calling = client(amqp_url=proxy.url, prefetch=20)
    # For the servers, which want one; what is called here is checked at once.
    directory = ledger_of(client())
    directory.reported = False
    lasting = server_process(directory, 0, amqp_url=proxy.url, prefetch=20)
    coming_and_going = server_process(directory, 0)
    to_all = {'service': f'{service}-all', 'amqp_url': proxy.url}
    # One request at a time: greenlets that wait for the next are kept, up to the prefetch, and would be counted.
    everywhere = [server(named={'echo': str}, kind=AmqpRpcFanoutServer, prefetch=1, **to_all) for _ in range(3)]
    load = Load(calling, client(kind=AmqpRpcFanoutClient, **to_all))

    def usage() -> dict[str, int]:
        """What is used once nothing is under way."""
        load.rest()
        eventually(lambda: connected(calling, *everywhere), 10)
        eventually(lambda: not len(calling._pending), 40)
        return {
            'memory': resident(),
            'memory of a server': resident(lasting.process.pid),
            'greenlets': greenlets(),
            'descriptors': descriptors(),
            'descriptors of a server': descriptors(lasting.process.pid),
        }

    began = time.monotonic()
    reset_at, restart_at = began + RESETS / 2, began + RESTARTS / 3
    before: dict[str, int] = {}
    load.start()
    while (elapsed := time.monotonic() - began) < seconds:
        gevent.sleep(0.1)
        # What runs here is measured as well: the books of two servers would outgrow everything else.
        lasting.forget()
        coming_and_going.forget()
        if time.monotonic() > reset_at:
            reset_at += RESETS
            proxy.reset()
        if time.monotonic() > restart_at:
            restart_at += RESTARTS
            assert coming_and_going.terminate() == 0
            coming_and_going = server_process(directory, 0)
        if not before and elapsed > warm_up:
            before = usage()
            load.start()
    after = usage()
    # The last reset may have been a second ago, and what it set off may still be ending: what is left behind stays.
    eventually(lambda: greenlets() <= before['greenlets'] + 5, 10)

    assert not load.outcomes['wrong'], load.outcomes
    assert not [outcome for outcome in load.outcomes if outcome.startswith('too late')], load.outcomes
    assert load.outcomes['right'] > 20 * seconds
    assert after['descriptors'] <= before['descriptors'] + 2, (before, after)
    assert after['descriptors of a server'] <= before['descriptors of a server'] + 2, (before, after)
    if full:
        # In a few seconds caches are not full yet.
        assert after['memory'] <= before['memory'] + GROWTH, (before, after)
        assert after['memory of a server'] <= before['memory of a server'] + GROWTH, (before, after)
