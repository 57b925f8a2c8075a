"""Where the options of clients and servers come from: arguments, the environment, a TOML file, or nowhere.

Knows the options' names, types and defaults, and which place goes before which. What a value means, and whether it
makes sense, is for `settings`. No error shows a value that was given: a password may have got into the wrong place.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NoReturn

import msgspec
from msgspec import Struct

#: names the environment variable with the path of the file; there is no file where it is not set
CONFIG_VARIABLE = 'AMPHORA_CONFIG'
#: begins the name of each environment variable
PREFIX = 'AMPHORA_'
#: where a value comes from that nobody gave
DEFAULT = 'default'
#: where a value comes from that the program gave
ARGUMENT = 'argument'
#: bytes that a file may have
MAX_FILE_BYTES = 1 << 20

_TABLE = 'amphora'
_SERVICES = 'services'


class Option(Struct, frozen=True):
    """An option that may be given in each place.

    :ivar default: its value where nobody gives it.
    :ivar type: what `msgspec.convert` makes of it.
    :ivar words: what it must be, for an error.
    """

    default: Any
    type: Any
    words: str


_FLAG, _TEXT, _NUMBER = (bool, 'true or false'), (str, 'text'), (int, 'a whole number')
_SECONDS = (int | float, 'a number of seconds')

OPTIONS = {
    'amqp_url': Option(None, str | list[str], 'a URL or a list of URLs'),
    'amqp_host': Option('127.0.0.1', *_TEXT),
    'amqp_port': Option(None, *_NUMBER),
    'amqp_user': Option('guest', *_TEXT),
    'amqp_password': Option('guest', *_TEXT),
    'amqp_vhost': Option('/', *_TEXT),
    'amqp_ssl': Option(None, *_FLAG),
    'heartbeat': Option(None, *_SECONDS),
    'prefetch': Option(250, *_NUMBER),
    'persistent': Option(True, *_FLAG),
    'confirm': Option(True, *_FLAG),
    'queue_type': Option(None, Literal['classic', 'quorum'], 'classic or quorum'),
    'queue_size': Option(None, *_NUMBER),
    'request_ttl': Option(None, *_SECONDS),
    'compression': Option(None, Literal['gzip', 'zstd'], 'gzip or zstd'),
    'compress_threshold': Option(1024, *_NUMBER),
}

# An address is either a URL or made of these.
_PARTS = ('amqp_host', 'amqp_port', 'amqp_user', 'amqp_password', 'amqp_vhost')
# A URL may say these as well.
_OF_URLS = ('amqp_ssl', 'heartbeat')


class Setting(Struct, frozen=True):
    """The value of an option, and who gives it.

    :ivar value: the value; None also for one that is left aside, because the address comes from elsewhere.
    :ivar where: the place: `DEFAULT`, `ARGUMENT`, an environment variable, or a file with its table; of a value that is
        left aside, what goes before it.
    :ivar what: the option as that place has it: how an error calls it.
    :ivar yields: whether a URL from a nearer place goes before it in what the URL says.
    """

    value: Any
    where: str
    what: str
    yields: bool = False

    def __repr__(self) -> str:
        # The value may be a password.
        return '<Setting of %s>' % self.what


def variable_of(option: str) -> str:
    """The environment variable of an option."""
    return PREFIX + option.upper()


def resolve(arguments: Mapping[str, Any], service: str | None = None) -> dict[str, Setting]:
    """Each option of `OPTIONS`, from the nearest place that gives it.

    The places, from near to far: the arguments, the environment, the file's table for the service, its table for all.

    :param arguments: what the program gives; None stands for what it does not.
    :param service: the service's name; None: of no service.
    :raises ValueError: a variable, or the file, cannot be understood; the error names the place.
    :raises TypeError: a value in the file is of the wrong type; the error names the place.
    """
    given = {name: Setting(value, ARGUMENT, name) for name, value in arguments.items() if value is not None}
    places = [given, _from_environment(), *_from_file(service)]
    settings = {name: Setting(option.default, DEFAULT, name) for name, option in OPTIONS.items()}
    for place in reversed(places):
        settings.update(place)
    at = next((at for at, place in enumerate(places) if 'amqp_url' in place), None)
    if at is not None:
        settings.update(_one_address(settings, places[: at + 1]))
    return settings


def _one_address(settings: Mapping[str, Setting], places: list[dict[str, Setting]]) -> dict[str, Setting]:
    """What is left aside, so that the address is one place's and no mixture.

    :param settings: the nearest of each option.
    :param places: those up to the first that gives a URL.
    """
    url = settings['amqp_url']
    nearer: set[str] = set()
    # The URL in the environment goes before what the program gives; the operator's word has always been the last.
    if len(places) > 2:
        nearer.update(name for place in places[:-1] for name in place if name in _PARTS)
    if 'amqp_host' in nearer:
        return {'amqp_url': _aside(url, 'amqp_host')}
    if nearer:
        part = settings[min(nearer)]
        raise ValueError(
            '%s is a part of an address, and %s is a whole one: give amqp_host in the place of the former as well, '
            'or put the part into the URL' % (part.what, url.what)
        )
    aside = {name: _aside(settings[name], 'amqp_url') for name in _PARTS}
    for name in _OF_URLS:
        setting = settings[name]
        if setting.where != DEFAULT and not any(name in place for place in places):
            aside[name] = Setting(setting.value, setting.where, setting.what, yields=True)
    return aside


def _aside(setting: Setting, winner: str) -> Setting:
    where = winner if setting.where == DEFAULT else '%s, not %s' % (winner, setting.where)
    return Setting(None, where, setting.what)


def _from_environment() -> dict[str, Setting]:
    settings = {}
    for name in OPTIONS:
        variable = variable_of(name)
        text = os.environ.get(variable)
        # Empty is how many tools that start programs say that a variable is not set.
        if text:
            settings[name] = Setting(_converted(text, name, variable, strict=False), variable, variable)
    return settings


# -- the file ----------------------------------------------------------------------------------------------------------


def _from_file(service: str | None) -> list[dict[str, Setting]]:
    """The file's tables that are about a service, the nearer one first."""
    path = os.environ.get(CONFIG_VARIABLE)
    if not path:
        return []
    if '://' in path:
        raise ValueError('%s must be the path of a file, and no URL' % CONFIG_VARIABLE)
    path = os.path.abspath(path)
    tables = _tables_of(_parsed(_content_of(path), path), path)
    # All of them, so that a mistake is found before the day on which its service is started.
    found = {name: _from_table(table, _where(path, name)) for name, table in tables.items()}
    own = [found[service]] if service is not None and service in found else []
    return [*own, found[None]]


def _where(path: str, service: str | None) -> str:
    if service is None:
        return '%s [%s]' % (path, _TABLE)
    key = service if re.fullmatch('[A-Za-z0-9_-]+', service) else '"%s"' % service
    return '%s [%s.%s.%s]' % (path, _TABLE, _SERVICES, key)


def _content_of(path: str) -> bytes:
    try:
        # Anything else than a file might never end, or never begin.
        regular = stat.S_ISREG(os.stat(path).st_mode)
        if regular:
            with open(path, 'rb') as file:
                content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ValueError('%s: cannot read %s: %s' % (CONFIG_VARIABLE, path, error.strerror or error)) from error
    if not regular:
        raise ValueError('%s: %s is no regular file' % (CONFIG_VARIABLE, path))
    if len(content) > MAX_FILE_BYTES:
        raise ValueError('%s: %s is longer than %d bytes' % (CONFIG_VARIABLE, path, MAX_FILE_BYTES))
    return content


def _parsed(content: bytes, path: str) -> dict[str, Any]:
    # The errors of decoding and parsing hold all of the text: they must not become the context of ours.
    try:
        # Imports Python's own parser of TOML only now.
        parsed: dict[str, Any] = msgspec.toml.decode(content)
    except UnicodeDecodeError as error:
        problem = 'not UTF-8 (at line %d)' % (content.count(b'\n', 0, error.start) + 1)
    except RecursionError:
        problem = 'nested too deep'
    except (msgspec.DecodeError, ValueError) as error:  # in an old msgspec the former is none of the latter
        problem = 'not TOML: %s' % error
    else:
        return parsed
    raise ValueError('%s is %s' % (path, problem))


def _tables_of(parsed: dict[str, Any], path: str) -> dict[str | None, dict[str, Any]]:
    """The file's tables by the service that each is for, None being all."""
    if _TABLE not in parsed:
        # Other tables may be there: the file may be that of an application.
        raise ValueError('%s has no table [%s]' % (path, _TABLE))
    table = _checked_table(parsed[_TABLE], _where(path, None))
    where = '%s [%s.%s]' % (path, _TABLE, _SERVICES)
    services = _checked_table(table.get(_SERVICES, {}), where)
    main = {name: value for name, value in table.items() if name != _SERVICES}
    tables: dict[str | None, dict[str, Any]] = {None: main}
    for name, value in services.items():
        tables[name] = _checked_table(value, _where(path, name))
    return tables


def _checked_table(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError('%s must be a table' % where)
    return value


def _from_table(table: dict[str, Any], where: str) -> dict[str, Setting]:
    settings = {}
    for name, value in table.items():
        if name not in OPTIONS:
            _refuse(name, where)
        what = '%s in %s' % (name, where)
        settings[name] = Setting(_converted(value, name, what, strict=True), where, what)
    return settings


def _refuse(name: str, where: str) -> NoReturn:
    # Only what can be nothing but a name is shown.
    shown = ' %s' % name if re.fullmatch('[A-Za-z0-9_-]{1,40}', name) else ''
    near = nearest(name, OPTIONS)
    hint = 'is %s meant?' % near if near is not None else 'the options are %s' % ', '.join(OPTIONS)
    raise ValueError('unknown option%s in %s; %s' % (shown, where, hint))


# -- both --------------------------------------------------------------------------------------------------------------


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that is most like a wrong one; None: none is like it."""
    # Here: only who has mistyped something needs it.
    from difflib import get_close_matches

    return next(iter(get_close_matches(name, known, 1, 0.7)), None)


def _converted(value: Any, name: str, what: str, strict: bool) -> Any:
    # What a conversion that fails may hold of the value must not become the context of our error.
    try:
        return msgspec.convert(value, OPTIONS[name].type, strict=strict)
    except (msgspec.ValidationError, UnicodeError):
        pass
    # In the environment everything is text: of the right type, and of a value that makes no sense.
    kind = TypeError if strict else ValueError
    raise kind('%s must be %s' % (what, OPTIONS[name].words))
