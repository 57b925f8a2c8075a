"""``amphora config``: the options of clients and servers, and where each comes from."""

from __future__ import annotations

import os
import re
from typing import Any

import click
import msgspec
from rich.table import Table
from rich.text import Text

from amphora.cli.common import Command, plain, say, url_option
from amphora.cli.tables import table_console
from amphora.configuration import (
    ARGUMENT,
    CONFIG_VARIABLE,
    OPTIONS,
    PREFIX,
    Setting,
    nearest,
    resolve,
    variable_of,
)
from amphora.settings import make_settings

_HIDDEN = '***'
_NOTHING = '-'


class Row(msgspec.Struct):
    """An option as it is shown.

    :ivar source: where the value comes from; of an option that is left aside, what goes before it.
    """

    option: str
    value: Any
    source: str


def _row(option: str, setting: Setting) -> Row:
    value = setting.value
    if option == 'amqp_password' and value is not None:
        value = _HIDDEN
    elif option == 'amqp_url' and value is not None:
        value = [_without_password(each) for each in (value.split(',') if isinstance(value, str) else value)]
    source = '--url' if setting.where == ARGUMENT else setting.where
    return Row(option, value, source + ', unless amqp_url says it' if setting.yields else source)


def _without_password(url: str) -> str:
    """A URL that makes sense, so that its only ``@`` is the one behind the password."""
    return re.sub('(://[^:@]*):[^@]*@', r'\1:%s@' % _HIDDEN, url.strip())


def _text(value: Any) -> str:
    if value is None:
        return _NOTHING
    if isinstance(value, bool):
        return 'true' if value else 'false'
    return ','.join(value) if isinstance(value, list) else str(value)


def _show(rows: list[Row]) -> None:
    console = table_console()
    table = Table(box=None, pad_edge=False)
    for heading in ('option', 'value', 'from'):
        table.add_column(heading, no_wrap=heading == 'option', overflow='fold')
    for row in rows:
        table.add_row(*(Text(plain(text)) for text in (row.option, _text(row.value), row.source)))
    console.print(table)


def _warn_of_mistypings() -> None:
    # Not of each that is unknown: whoever starts programs may set variables of this prefix for a purpose of his own.
    known = [CONFIG_VARIABLE, *map(variable_of, OPTIONS)]
    for variable in sorted(os.environ):
        if variable.startswith(PREFIX) and variable not in known:
            near = nearest(variable.removeprefix(PREFIX), [name.removeprefix(PREFIX) for name in known])
            if near is not None:
                say('%s means nothing; is %s meant?' % (variable, PREFIX + near))


@click.command(cls=Command, short_help='Show each option, and where it comes from.')
@click.option('--service', metavar='NAME', help='As clients and servers of this service have it.')
@click.option('--json', is_flag=True, help='Print it as JSON.')
@url_option
def command(service: str | None, json: bool, url: str | None) -> None:
    """Show the options that clients and servers have unless their program says otherwise, and where each comes from:
    the environment, the file that AMPHORA_CONFIG names, or nowhere, which is the default. Passwords are hidden.

    \b
    Example:
      AMPHORA_CONFIG=/etc/amphora.toml amphora config --service simplemath

    Exit codes: 0 all of it makes sense, 2 wrong usage, or something does not.
    """
    make_settings(amqp_url=url, service=service)  # what makes no sense ends the command here
    rows = [_row(option, setting) for option, setting in resolve({'amqp_url': url}, service).items()]
    if json:
        click.echo(msgspec.json.encode(rows))
    else:
        _show(rows)
    _warn_of_mistypings()
