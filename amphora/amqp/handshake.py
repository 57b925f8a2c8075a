"""What is said and agreed on while a connection opens: who we are, how we log in, which limits hold.

Source: AMQP 0-9-1 section 2.2.4; https://www.rabbitmq.com/docs/connections#capabilities; SASL PLAIN is RFC 4616.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from typing import Any

import gevent

from amphora.amqp.errors import LoginRefused
from amphora.amqp.fields import field_table
from amphora.amqp.version import own_version

# Without them RabbitMQ keeps quiet about the very things we want to know.
_CAPABILITIES = {
    'authentication_failure_close': True,
    'basic.nack': True,
    'connection.blocked': True,
    'consumer_cancel_notify': True,
    'exchange_exchange_bindings': True,
    'publisher_confirms': True,
}


def log_in(accepted: Sequence[str], offered: Sequence[str], user: str, password: str) -> tuple[str, bytes]:
    """The SASL mechanism to use and the response to send.

    :param accepted: mechanisms of this side, the preferred first.
    :param offered: mechanisms of the broker.
    :raises LoginRefused: they have none in common.
    :raises ValueError: user or password are not valid Unicode; the error shows neither.
    """
    name, secret = _utf_8(user), _utf_8(password)
    if name is None or secret is None:
        raise ValueError('the user or the password cannot be encoded as UTF-8')
    for mechanism in accepted:
        if mechanism not in offered:
            continue
        if mechanism == 'PLAIN':
            return mechanism, b'\0' + name + b'\0' + secret
        if mechanism == 'AMQPLAIN':
            table = field_table({'LOGIN': user, 'PASSWORD': password}, 'the login')
            return mechanism, table[4:]  # without the length: the long string around it has one
        if mechanism == 'EXTERNAL':
            return mechanism, b''
    raise LoginRefused(
        'no common login mechanism: the broker offers %s, this side %s'
        % (', '.join(offered) or 'none', ', '.join(accepted))
    )


def describe_client(name: str | None, more: Mapping[str, Any]) -> dict[str, Any]:
    """The client properties: what RabbitMQ's management shows of this connection, and what it may expect of us.

    :param name: the connection's name.
    :param more: beside and above what amphora says of itself.
    """
    properties: dict[str, Any] = {
        'product': 'amphora',
        'version': own_version(),
        'platform': 'Python %s, gevent %s' % (platform.python_version(), gevent.__version__),
        'information': 'gevent-based synchronous RPC over AMQP 0-9-1',
        **more,
    }
    properties['capabilities'] = {**_CAPABILITIES, **properties.get('capabilities', {})}
    if name is not None:
        properties['connection_name'] = name
    return properties


def agree(mine: int, theirs: int) -> int:
    """The limit that holds when each side has one: the smaller; 0 means none."""
    return min(mine, theirs) if mine and theirs else mine or theirs


def agree_heartbeat(mine: float | None, theirs: int) -> float:
    """The heartbeat that holds, in seconds; 0: none.

    :param mine: None: as the broker proposes. Where either side wants none, the other's holds, but not against a 0 of
        ours.
    :param theirs: what the broker proposes.
    """
    if mine is None:
        return theirs
    return mine if mine == 0 or theirs == 0 else min(mine, theirs)


def _utf_8(text: str) -> bytes | None:
    # Not by an exception that becomes another's context: it would hold the text.
    try:
        return text.encode()
    except UnicodeEncodeError:
        return None
