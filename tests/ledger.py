"""What was called, what ran, and what came back: so that a test of faults can say that nothing was lost or wrong.

Five logs that are only ever appended to, as files, so that what a process wrote is there after it was killed: the
numbers *sent*, *confirmed* by the broker, *executed*, *replied* and *returned* to the caller.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import gevent

from amphora import AmqpRpcClient
from tests.stopwatch import GRACE, Stopwatch

logger = logging.getLogger(__name__)


class Log:
    """Numbers in the order in which they were added, by this process or others.

    :param path: the file that holds them.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)

    def add(self, number: int) -> None:
        os.write(self._file, b'%d\n' % number)

    @property
    def numbers(self) -> list[int]:
        return list(map(int, self._path.read_bytes().split()))

    @property
    def counts(self) -> Counter[int]:
        """How often each number was added."""
        return Counter(self.numbers)

    def close(self) -> None:
        os.close(self._file)


class Executions:
    """The logs of what ran, for whoever runs it.

    :param directory: where the files are.
    """

    def __init__(self, directory: Path) -> None:
        self.executed = Log(directory / 'executed')
        self.replied = Log(directory / 'replied')

    def double(self, pause: float = 0) -> Callable[[int], int]:
        """The remote function, which takes some seconds."""

        def double(number: int) -> int:
            self.executed.add(number)
            gevent.sleep(pause)
            self.replied.add(number)
            return 2 * number

        return double

    def close(self) -> None:
        self.executed.close()
        self.replied.close()


class Ledger:
    """Calls of one remote function of a number, `double`, each in a greenlet of its own.

    :param client: who calls; it should call nothing else.
    :param timeout: seconds, of each call.
    :ivar directory: where the logs are; `Executions` of it are for servers in other processes.
    :ivar answers: what came back for each number.
    :ivar errors: what a call raised, by number.
    :ivar reported: whether what it found goes into the table of faults; not where requests are meant to expire.
    :ivar late: seconds that calls took which outlived their timeout, by number.
    """

    def __init__(self, client: AmqpRpcClient, timeout: float = 20, directory: Path | None = None) -> None:
        self.client = client
        self.timeout = timeout
        self.directory = directory or Path(mkdtemp(prefix='amphora-ledger-'))
        self._sent = Log(self.directory / 'sent')
        self._confirmed = Log(self.directory / 'confirmed')
        self._returned = Log(self.directory / 'returned')
        self._executions = Executions(self.directory)
        self.answers: dict[int, Any] = {}
        self.errors: dict[int, Exception] = {}
        self.late: dict[int, float] = {}
        self.reported = True
        self._calls: dict[int, gevent.Greenlet] = {}
        self._numbers: dict[str | None, int] = {}
        self.observe(client)

    def observe(self, client: AmqpRpcClient) -> None:
        """Keep the logs of this client's calls as well."""
        # What is sent, and what the broker has confirmed, is the client's own affair, and no part of its interface.
        encode, loop = client._calling.encode_request, gevent.get_hub().loop

        def on_encode(request: Any, routing_key: str | None) -> Any:
            if request.function == 'double':
                number = request.args[0]
                self._numbers[request.id] = number
                self._sent.add(number)
                # The request is on its way then, and no answer of the broker has been read.
                loop.run_callback(watch, request.id)
            return encode(request, routing_key)

        def watch(id: str) -> None:
            entry = client._pending.get(id)
            if entry is None:
                return
            settle = entry.publication.on_settled

            def on_settled(publication: Any, acked: bool) -> None:
                if acked and publication.returned is None:
                    self._confirmed.add(self._numbers[id])
                settle(publication, acked)

            entry.publication.on_settled = on_settled

        client._calling.encode_request = on_encode

    def expect(self, number: int) -> None:
        """This number is asked for by other means than a call."""
        self._sent.add(number)

    def double(self, pause: float = 0) -> Callable[[int], int]:
        """The remote function, which takes some seconds."""
        return self._executions.double(pause)

    @property
    def executed(self) -> Counter[int]:
        """How often the function has begun for each number."""
        return self._executions.executed.counts

    def call(self, numbers: Iterable[int], client: AmqpRpcClient | None = None) -> list[gevent.Greenlet]:
        """Begin a call for each number, each in one of the greenlets that are returned.

        :param client: who calls; None: the ledger's own client.
        """
        begun = {number: gevent.spawn(self._call, number, client or self.client) for number in numbers}
        self._calls.update(begun)
        return list(begun.values())

    def keep_calling(self, until: Callable[[], bool], callers: int) -> None:
        """Begin calls, so many at a time and one after the other, as long as the condition is false."""

        def caller(first: int) -> None:
            number = first
            while not until():
                self._calls[number] = gevent.getcurrent()
                self._call(number, self.client)
                number += callers

        for first in range(callers):
            self._calls[first] = gevent.spawn(caller, first)

    def _call(self, number: int, client: AmqpRpcClient) -> None:
        watch = Stopwatch()
        try:
            self.answers[number] = client.call(timeout=self.timeout).double(number)
        except Exception as error:
            self.errors[number] = error
        else:
            self._returned.add(number)
        took = watch.awake
        if took > self.timeout + GRACE:
            self.late[number] = took

    @property
    def sent(self) -> int:
        """How many calls have begun."""
        return len(self._calls)

    @property
    def confirmed(self) -> int:
        """How many requests the broker has confirmed."""
        return len(self._confirmed.counts)

    @property
    def ended(self) -> int:
        """How many calls have come back, with a result or an error."""
        return len(self.answers) + len(self.errors)

    def wait(self) -> None:
        """Block until each call has ended, by its timeout and a little."""
        gevent.joinall(list(set(self._calls.values())), timeout=self.timeout + 2)
        assert self.ended == self.sent, f'{self.sent - self.ended} of {self.sent} calls hang'
        assert not self.late, f'calls outlived their timeout of {self.timeout} s: {self.late}'

    def check(self, executed_here: bool = True) -> None:
        """Each call has ended, and with the right answer; what ran had been asked for.

        :param executed_here: the function that was served is this ledger's own, or one of an `Executions`.
        """
        self.wait()
        assert not self.errors, (
            f'{len(self.errors)} of {self.sent} calls failed: {set(map(repr, self.errors.values()))}'
        )
        assert not self.wrong
        if executed_here:
            assert set(self.executed) == set(self._calls)
            self.check_logs()
        logger.info('%d called, %d of them ran more than once', self.sent, len(self.duplicated))

    def check_logs(self) -> None:
        """Nothing that the broker has confirmed was lost, nothing ran that was not asked for, no answer is wrong.

        Some of the calls may have failed.
        """
        figures = self.figures()
        assert not figures['lost'], f'confirmed, and never ran: {self.lost}'
        assert not figures['unexpected'], figures
        assert not figures['wrong'], figures

    @property
    def lost(self) -> list[int]:
        """What the broker has confirmed and nobody has run."""
        return sorted(set(self._confirmed.numbers) - set(self.executed))

    @property
    def duplicated(self) -> dict[int, int]:
        """Numbers for which the function ran more than once, and how often."""
        return {number: times for number, times in self.executed.items() if times > 1}

    @property
    def wrong(self) -> dict[int, Any]:
        """Answers that are not the double of their number."""
        return {number: answer for number, answer in self.answers.items() if answer != 2 * number}

    def figures(self) -> dict[str, int]:
        """How many were lost, unexpected, duplicated and wrong."""
        return {
            'lost': len(self.lost),
            'unexpected': len(set(self.executed) - set(self._sent.numbers)),
            'duplicated': len(self.duplicated),
            'wrong': len(self.wrong),
        }

    def close(self) -> None:
        """Close the files; the logs can no longer be added to. Where a test has failed, its callers end, too."""
        gevent.killall(list(self._calls.values()))
        for log in (self._sent, self._confirmed, self._returned):
            log.close()
        self._executions.close()
