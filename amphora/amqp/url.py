"""AMQP URIs: from ``amqp://user:password@host:port/vhost?heartbeat=30`` to the values that a connection is made of.

Knows nothing of connections, TLS contexts or files: it names the files and reads none. Whatever it says about a URI, in
an error or in a `repr`, is without the password.

Sources: RabbitMQ's URI specification (https://www.rabbitmq.com/docs/uri-spec), its page on query parameters
(https://www.rabbitmq.com/docs/uri-query-parameters), RFC 3986.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import IPv6Address
from typing import Any
from urllib.parse import quote, unquote

from msgspec import Struct

__all__ = ('AmqpUrl',)

_SCHEMES = {'amqp': 5672, 'amqps': 5671}
_AUTH_MECHANISMS = frozenset(('PLAIN', 'AMQPLAIN', 'EXTERNAL'))
_VERIFY = {'verify_peer': True, 'verify_none': False}

# The virtual host travels as a short string (AMQP 0-9-1, section 4.2.5.3).
_VHOST_BYTES = 255
# The least frame size that every peer accepts (AMQP 0-9-1, section 4.2.3, frame-min-size).
_FRAME_MIN_SIZE = 4096


class AmqpUrl(Struct, frozen=True):
    """What an AMQP URI says: where the broker is, who connects, and with which options.

    :param host: host name or address; an IPv6 address without its brackets.
    :param port: TCP port; in a URI it is by default 5672 for ``amqp``, 5671 for ``amqps``.
    :param user: user name of the SASL exchange.
    :param password: password of the SASL exchange. Neither `repr` nor `str` shows it.
    :param vhost: virtual host.
    :param tls: whether the scheme is ``amqps``.
    :param heartbeat: heartbeat timeout in seconds, 0 for none.
    :param connect_timeout: limit of connecting in seconds; ``connection_timeout`` in the URI, there in milliseconds.
    :param channel_max: the most channels of the connection; 0: amphora's own limit, 2047.
    :param frame_max: the largest frame in bytes; 0: amphora's own, 131,072. RabbitMQ's page no longer lists it, but its
        client still takes it.
    :param auth_mechanisms: SASL mechanisms to consider, in upper case; each ``auth_mechanism`` in the URI.
    :param name: connection name for the broker's listings; of no specification, but handy in a URI.
    :param verify: whether to check the broker's certificate; ``verify_peer`` and ``verify_none`` in the URI.
    :param server_hostname: the name that the broker's certificate must be for, if not that of the host;
        ``server_name_indication`` in the URI.
    :param cacertfile: path of the file with the certificates to trust, if not the system's.
    :param certfile: path of the client's own certificate.
    :param keyfile: path of the key of ``certfile``, if that file does not hold it too.

    From ``heartbeat`` on, None or an empty tuple says that the URI does not say.
    """

    host: str = 'localhost'
    port: int = 5672
    user: str = 'guest'
    password: str = 'guest'
    vhost: str = '/'
    tls: bool = False
    heartbeat: int | None = None
    connect_timeout: float | None = None
    channel_max: int | None = None
    frame_max: int | None = None
    auth_mechanisms: tuple[str, ...] = ()
    name: str | None = None
    verify: bool | None = None
    server_hostname: str | None = None
    cacertfile: str | None = None
    certfile: str | None = None
    keyfile: str | None = None

    @classmethod
    def parse(cls, url: str) -> AmqpUrl:
        """Read an AMQP URI.

        Absent parts get this class's defaults. A bare trailing slash means the virtual host ``/``, as an absent path
        does: pika and aio-pika read it so, and it is what people write. By the letter of the specification it
        would be the virtual host with an empty name, which a URI therefore cannot name here. Other virtual hosts are
        one segment; a ``/`` in a name is written ``%2F``.

        Stricter than RFC 3986 in one point: the only bare ``@`` is the one before the host, anywhere else it is written
        ``%40``. A password with a bare ``/``, ``?`` or ``#`` would otherwise end up in other parts and be shown.

        :param url: such as ``amqps://user:password@host:5671/vhost?heartbeat=30``; all parts are percent-encoded, and
            all but the scheme are optional.
        :raises ValueError: the URI cannot be understood; the error says what is wrong where, never with the password.
        :raises TypeError: `url` is not a `str`.
        """
        if not isinstance(url, str):
            raise TypeError(f'an AMQP URI must be a str, not {type(url).__name__}')
        scheme, separator, rest = url.partition('://')
        if not separator:
            raise ValueError('an AMQP URI must begin with amqp:// or amqps://')
        scheme = scheme.lower()
        if scheme not in _SCHEMES:
            # Shown only when it can be nothing but a scheme.
            shown = f' {scheme!r}' if re.fullmatch('[a-z][a-z0-9+.-]*', scheme) else ''
            raise ValueError(f'unknown scheme{shown} in an AMQP URI; schemes are amqp, amqps')
        authority, path, query = _split(rest)
        userinfo, _, host_port = authority.rpartition('@')
        values: dict[str, Any] = {'tls': scheme == 'amqps'}
        if '@' in authority:
            user, colon, password = userinfo.partition(':')
            values['user'] = _decoded(user, 'user')
            if colon:
                values['password'] = _decoded(password, 'password')
        host, values['port'] = _host_and_port(host_port, _SCHEMES[scheme])
        if host:
            values['host'] = host
        if len(path) > 1:
            values['vhost'] = _vhost(path[1:])
        values.update(_options(query, tls=values['tls']))
        return cls(**values)

    def __str__(self) -> str:
        host = f'[{self.host}]' if ':' in self.host else self.host
        vhost = '' if self.vhost == '/' else quote(self.vhost, safe='')
        scheme = 'amqps' if self.tls else 'amqp'
        return f'{scheme}://{quote(self.user, safe="")}:***@{host}:{self.port}/{vhost}'

    def __repr__(self) -> str:
        return f'<AmqpUrl {self}>'


def _split(rest: str) -> tuple[str, str, str]:
    """Authority, path with its slash, and query of what follows the scheme."""
    if any(character <= ' ' or character == '\x7f' for character in rest):
        raise ValueError('a space or control character in an AMQP URI; it must be percent-encoded, a space as %20')
    if '#' in rest:
        raise ValueError("a '#' in an AMQP URI; in a password or name it must be written %23")
    if rest.count('@') > 1:
        raise ValueError("more than one '@' in an AMQP URI; but for the one before the host, it must be written %40")
    before_query, _, query = rest.partition('?')
    authority, slash, path = before_query.partition('/')
    if '@' in path or '@' in query:
        raise ValueError(
            "an '@' after the host in an AMQP URI; there it must be written %40, "
            "and a '/' or '?' in the user or password as %2F or %3F"
        )
    return authority, slash + path, query


def _decoded(text: str, what: str) -> str:
    if re.search('%(?![0-9A-Fa-f]{2})', text):
        raise ValueError(f"a '%' in the {what} of an AMQP URI that is not followed by two hex digits; write it as %25")
    decoded = _percent_decoded(text)
    if decoded is None:
        raise ValueError(f'the {what} of an AMQP URI is not UTF-8 once it is percent-decoded')
    if '\0' in decoded:
        # It separates user and password in SASL PLAIN (RFC 4616).
        raise ValueError(f'the {what} of an AMQP URI must not contain a NUL')
    return decoded


def _percent_decoded(text: str) -> str | None:
    # Not by an exception that becomes another's context: it would hold the text.
    try:
        decoded = unquote(text, errors='strict')
        decoded.encode()
    except UnicodeError:
        return None
    return decoded


def _host_and_port(text: str, default_port: int) -> tuple[str, int]:
    # None of the text is shown in errors: of a URI that lacks its '@', this is the user and the password.
    if text.startswith('['):
        host, bracket, port = text[1:].partition(']')
        host = _decoded(host, 'host')
        try:
            IPv6Address(host)
        except ValueError:
            raise ValueError('what is in the brackets of an AMQP URI is not an IPv6 address') from None
        if not bracket or port[:1] not in ('', ':'):
            raise ValueError("the host of an AMQP URI must end with ']' or ']:' and the port, as in [::1]:5672")
        port = port[1:]
    else:
        host, _, port = text.partition(':')
        if ':' in port:
            raise ValueError("more than one ':' in the host of an AMQP URI; an IPv6 address goes in brackets: [::1]")
        host = _decoded(host, 'host')
        if '@' in host or '/' in host:
            # Most likely all of the URI was encoded. A host is shown everywhere.
            raise ValueError("the host of an AMQP URI has an encoded '@' or '/' in it")
    if not port:
        return host, default_port
    if not (port.isascii() and port.isdecimal()):
        raise ValueError("the port of an AMQP URI is not a number; or is the '@host' after user and password missing?")
    if not (len(port) <= 5 and 1 <= int(port) <= 65535):
        raise ValueError('the port of an AMQP URI must be 1 to 65535')
    return host, int(port)


def _vhost(segment: str) -> str:
    if '/' in segment:
        raise ValueError("the virtual host of an AMQP URI must be one segment; a '/' in its name is written %2F")
    vhost = _decoded(segment, 'virtual host')
    if len(vhost.encode()) > _VHOST_BYTES:
        raise ValueError(f'the virtual host of an AMQP URI is longer than {_VHOST_BYTES} bytes')
    return vhost


def _options(query: str, tls: bool) -> dict[str, Any]:
    options: dict[str, Any] = {}
    mechanisms: list[str] = []
    for item in query.split('&'):
        if not item:
            continue
        raw_name, equals, raw_value = item.partition('=')
        parameter = _decoded(raw_name, 'query')
        if parameter not in _PARAMETERS:
            known = ', '.join(sorted(_PARAMETERS))
            raise ValueError(f'unknown query parameter {parameter!r} in an AMQP URI; parameters are {known}')
        if not equals or not raw_value:
            raise ValueError(f'the query parameter {parameter} of an AMQP URI has no value')
        attribute, convert, only_tls = _PARAMETERS[parameter]
        if only_tls and not tls:
            # Ignoring it would leave somebody who asked for verification with no encryption at all.
            raise ValueError(f'the query parameter {parameter} of an AMQP URI is for the amqps scheme only')
        try:
            value = convert(_decoded(raw_value, f'query parameter {parameter}'))
        except _BadValue as error:
            raise ValueError(f'the query parameter {parameter} of an AMQP URI must be {error}') from None
        if parameter == 'auth_mechanism':
            mechanisms.append(value)
        elif attribute in options:
            raise ValueError(f'the query parameter {parameter} of an AMQP URI is there more than once')
        else:
            options[attribute] = value
    if 'keyfile' in options and 'certfile' not in options:
        raise ValueError('the query parameter keyfile of an AMQP URI needs a certfile')
    if mechanisms:
        options['auth_mechanisms'] = tuple(dict.fromkeys(mechanisms))
    return options


class _BadValue(Exception):
    """A value does not convert; its text says what the value must be."""


def _integer(least: int, most: int, unit: str, zero: bool = False) -> Callable[[str], int]:
    def convert(value: str) -> int:
        if value.isascii() and value.isdecimal() and len(value) <= 10:
            number = int(value)
            if least <= number <= most or (zero and number == 0):
                return number
        raise _BadValue(f'{"0 or " if zero else ""}a whole number {unit} from {least} to {most}, not {value!r}')

    return convert


_milliseconds = _integer(1, 2**31 - 1, 'of milliseconds')


def _seconds(value: str) -> float:
    return _milliseconds(value) / 1000


def _mechanism(value: str) -> str:
    mechanism = value.upper()
    if mechanism not in _AUTH_MECHANISMS:
        raise _BadValue(f'one of {", ".join(sorted(_AUTH_MECHANISMS)).lower()}, not {value!r}')
    return mechanism


def _verify(value: str) -> bool:
    if value not in _VERIFY:
        raise _BadValue(f'verify_peer or verify_none, not {value!r}')
    return _VERIFY[value]


def _server_hostname(value: str) -> str:
    if value == 'disable':
        # For RabbitMQ's own client the word means no SNI; taken as a name, it would fail every certificate.
        raise _BadValue("a host name; to connect without checking the broker's name, set verify=verify_none")
    return value


# Query parameter -> attribute of AmqpUrl, conversion of its value, whether it is of use with TLS only.
_PARAMETERS: dict[str, tuple[str, Callable[[str], Any], bool]] = {
    'heartbeat': ('heartbeat', _integer(0, 65535, 'of seconds'), False),
    'connection_timeout': ('connect_timeout', _seconds, False),
    'channel_max': ('channel_max', _integer(0, 65535, 'of channels'), False),
    'frame_max': ('frame_max', _integer(_FRAME_MIN_SIZE, 2**32 - 1, 'of bytes', zero=True), False),
    'auth_mechanism': ('auth_mechanisms', _mechanism, False),
    'name': ('name', str, False),
    'verify': ('verify', _verify, True),
    'server_name_indication': ('server_hostname', _server_hostname, True),
    'cacertfile': ('cacertfile', str, True),
    'certfile': ('certfile', str, True),
    'keyfile': ('keyfile', str, True),
}
