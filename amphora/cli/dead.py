"""``amphora dead``: the dead letters of a service, and what is to become of them."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

import click
import msgspec
from rich.table import Table
from rich.text import Text

from amphora.amqp import Connection, Message
from amphora.cli.common import Command, Failure, connect, plain, say, url_option
from amphora.cli.letters import DeadLetter, NotSentBack, Sender, count_letters, describe, id_of, take
from amphora.cli.tables import table_console
from amphora.dead_letters import dead_queue
from amphora.settings import make_settings

#: exit code: dead letters stay that were to go, or are not there
LEFT = 1
#: how many are listed by default
LIST_LIMIT = 100

_NAME = 'amphora dead'
_UNKNOWN = '?'


class _Choice:
    """Which letters are meant: those with certain ids, or all when there are none."""

    def __init__(self, ids: Iterable[str]) -> None:
        self._ids = frozenset(ids)
        self._met: set[str | None] = set()

    def among(self, messages: Iterable[Message]) -> Iterator[Message]:
        """Those of the messages that are meant."""
        for message in messages:
            id = id_of(message)
            if not self._ids or id in self._ids:
                self._met.add(id)
                yield message

    @property
    def missing(self) -> list[str]:
        """Ids that no letter had so far."""
        return sorted(self._ids - self._met)


def _letters(count: int) -> str:
    return '%d dead letter%s' % (count, '' if count == 1 else 's')


# -- looking -----------------------------------------------------------------------------------------------------------


def _look(connection: Connection, queue: str, count: int, choice: _Choice, with_arguments: bool) -> list[DeadLetter]:
    with connection.channel() as channel:
        return [describe(message, with_arguments) for message in choice.among(take(channel, queue, count))]


def _row(letter: DeadLetter) -> dict[str, str]:
    """The texts of a letter, by their headings."""
    row = {
        'set aside': None if letter.time is None else letter.time.astimezone().strftime('%Y-%m-%d %H:%M:%S'),
        'function': letter.function,
        'deliveries': None if letter.deliveries is None else str(letter.deliveries),
        'id': letter.id,
    }
    if not isinstance(letter.arguments, msgspec.UnsetType):
        row['arguments'] = letter.arguments
    row |= {'queue': letter.queue, 'reason': letter.reason}
    return {heading: _UNKNOWN if text is None else plain(text) for heading, text in row.items()}


def _show(letters: list[DeadLetter]) -> None:
    console = table_console()
    rows = [_row(letter) for letter in letters]
    # Most often all came from one queue for one reason: said once, that leaves room for the rest.
    common = {heading: rows[0][heading] for heading in ('queue', 'reason') if len({row[heading] for row in rows}) == 1}
    table = Table(box=None, pad_edge=False)
    for heading in rows[0]:
        if heading not in common:
            # An id that is broken into lines cannot be copied.
            table.add_column(heading, no_wrap=heading in ('set aside', 'deliveries', 'id'), overflow='fold')
    for row in rows:
        table.add_row(*(Text(text) for heading, text in row.items() if heading not in common))
    console.print(table)
    for heading, text in common.items():
        console.print('%-6s  %s' % (heading, text), soft_wrap=True)


# -- acting ------------------------------------------------------------------------------------------------------------


def _act(
    connection: Connection, queue: str, count: int, choice: _Choice, verb: str, do: Callable[[Message], None]
) -> bool:
    """Do something with letters, and ack each when that is done; whether none had to stay."""
    done = 0
    staying: Counter[str] = Counter()
    try:
        with connection.channel() as channel:
            for message in choice.among(take(channel, queue, count)):
                try:
                    do(message)
                except NotSentBack as error:
                    staying[str(error)] += 1
                    continue
                assert message.delivery_info is not None
                channel.basic.ack(message.delivery_info.delivery_tag)
                done += 1
    finally:
        # Also when it is cut short, by Ctrl-C or because the broker has gone.
        click.echo('%s %s' % (verb, _letters(done)))
        for reason, number in staying.items():
            say('%s stay%s: %s' % (_letters(number), 's' if number == 1 else '', reason))
    return not staying


def _confirm(service: str, count: int, ids: tuple[str, ...]) -> None:
    if ids:
        which = 'the dead letters of %s with the ids %s' % (service, ', '.join(ids))
    else:
        which = '%s of %s' % (_letters(count), service)
    if not click.confirm('Drop %s for good?' % plain(which), err=True):
        raise Failure('nothing was dropped', LEFT)


def _check_usage(retry: bool, drop: bool, yes: bool, ids: tuple[str, ...], limit: int | None, listing: bool) -> None:
    if retry and drop:
        raise click.UsageError('--retry and --drop exclude each other')
    if ids and limit is not None:
        raise click.UsageError('--id and --limit exclude each other')
    if listing and (retry or drop):
        raise click.UsageError('--args and --json are for the list, not for --retry and --drop')
    if drop and not yes and not (sys.stdin and sys.stdin.isatty()):
        raise click.UsageError('--drop asks first; where nobody can answer it needs --yes')


@click.command(cls=Command, short_help='List requests that were set aside; retry or drop them.')
@click.argument('service')
@click.option('--retry', is_flag=True, help='Send them back to the queues that they came from.')
@click.option('--drop', is_flag=True, help='Delete them.')
@click.option('--id', 'ids', multiple=True, metavar='ID', help='Only those with this id; may be repeated.')
@click.option(
    '--limit',
    type=click.IntRange(1),
    metavar='N',
    help='Only the first N, the oldest.  [default: %d to list; to retry or drop, all]' % LIST_LIMIT,
)
@click.option('--yes', is_flag=True, help='Drop without asking.')
@click.option('--args', 'with_arguments', is_flag=True, help='List arguments too, shortened. They may hold secrets.')
@click.option('--json', is_flag=True, help='List them as JSON.')
@url_option
def command(
    service: str,
    retry: bool,
    drop: bool,
    ids: tuple[str, ...],
    limit: int | None,
    yes: bool,
    with_arguments: bool,
    json: bool,
    url: str | None,
) -> int:
    """List the dead letters of SERVICE, the oldest first: requests that were set aside because servers ended, or lost
    the broker, each time they got them; or because their function rejected them or, of a cast, raised. The list takes
    nothing away.

    --retry and --drop are for all that are there when the command starts, unless --id or --limit says which. What
    cannot go back, because its queue is gone, stays.

    \b
    Example:
      amphora dead simplemath
      amphora dead simplemath --retry --id 2b0f9e0c-7a52-4f0f-9b39-1d0c3c1ad1a7
      amphora dead simplemath --drop

    Exit codes: 0 done, or there are none, 1 some stay that were to go, or an id is not there, 2 wrong usage, 4 no
    broker, or no access to it.
    """
    _check_usage(retry, drop, yes, ids, limit, with_arguments or json)
    settings = make_settings(amqp_url=url, service=service)
    queue, choice = dead_queue(service), _Choice(ids)
    with connect(settings, _NAME) as connection:
        found = count_letters(connection, queue)
    # Not more than there are now: what dies again while the command runs must not keep it going.
    count = found or 0
    if not (retry or drop or ids):
        limit = limit or LIST_LIMIT
    first = count if limit is None else min(count, limit)
    if first and drop and not yes:
        _confirm(service, first, ids)
    letters: list[DeadLetter] = []
    complete = True
    if first:
        # Another connection, for a question may wait longer for its answer than a broker waits for a sign of life.
        with connect(settings, _NAME) as connection:
            if retry:
                complete = _act(connection, queue, first, choice, 'sent back', Sender(connection).send_back)
            elif drop:
                complete = _act(connection, queue, first, choice, 'dropped', lambda _: None)
            else:
                letters = _look(connection, queue, first, choice, with_arguments)
    if json:
        click.echo(msgspec.json.encode(letters))
    elif letters:
        _show(letters)
    elif not first:
        why = ': there is no queue %s' % plain(queue) if found is None else ''
        click.echo('no dead letters of %s%s' % (plain(service), why))
    if first < count and not (retry or drop):
        say('%d more; --limit %d shows all' % (count - first, count))
    for id in choice.missing:
        say('no dead letter of %s has the id %s' % (service, id))
    return 0 if complete and not choice.missing else LEFT
