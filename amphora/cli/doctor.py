"""``amphora doctor``: what works between here and the broker, and what does not."""

from __future__ import annotations

import sys

import click
from rich.console import Console
from rich.text import Text

from amphora.cli.common import NO_ACCESS, Command, plain, url_option
from amphora.cli.examination import Ailment, examine
from amphora.settings import make_settings


def _mark(good: bool) -> Text:
    ascii_mark, mark, style = ('ok', '✓', 'bold green') if good else ('no', '✗', 'bold red')
    try:
        mark.encode(getattr(sys.stdout, 'encoding', None) or 'ascii')
    except UnicodeEncodeError:
        mark = ascii_mark
    return Text(mark, style)


def _show(console: Console, good: bool, step: str, words: str) -> None:
    # Never broken into lines: that is for the terminal, and for nobody who reads it from a file.
    console.print(_mark(good), '%-10s' % step, plain(words), soft_wrap=True)


@click.command(cls=Command, short_help='Find out why the broker cannot be used.')
@url_option
def command(url: str | None) -> int:
    """Go all the way to the broker, step by step, and say what works: name, port, encryption, login, virtual host,
    rights, a confirmed message, and one that comes back. At the first step that does not, say how to mend it.

    Nothing is left on the broker.

    \b
    Example:
      amphora doctor --url amqp://user:password@broker.example/vhost

    Exit codes: 0 everything works, 2 wrong usage, 4 something does not.
    """
    console = Console(highlight=False, markup=False, emoji=False)
    hosts = make_settings(amqp_url=url).hosts
    status = 0
    for options in hosts:
        if len(hosts) > 1:
            console.print('%s:%s' % (options['host'], options['port']), soft_wrap=True)
        try:
            examine(options, lambda step, words: _show(console, True, step, words))
        except Ailment as ailment:
            _show(console, False, ailment.step, ailment.what)
            console.print('  to mend it:', plain(ailment.mend), soft_wrap=True)
            status = NO_ACCESS
    return status
