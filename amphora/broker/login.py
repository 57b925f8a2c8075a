"""Who may come in: SASL PLAIN and AMQPLAIN against the users the broker was started with.

Pure. Sources: RFC 4616; https://www.rabbitmq.com/docs/access-control (guest may come from this machine only).
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from ipaddress import ip_address

from amphora.amqp.errors import FrameError, LoginRefused
from amphora.amqp.fields import read_field_table

MECHANISMS = ('PLAIN', 'AMQPLAIN')


def check_users(users: Mapping[str, str]) -> dict[str, str]:
    """Users as a broker takes them: name -> password.

    :raises TypeError: they are something else.
    """
    if not isinstance(users, Mapping):
        raise TypeError('users must map names to passwords, and not be a %s' % type(users).__name__)
    for user, password in users.items():
        if not isinstance(user, str):
            raise TypeError('the name of a user must be a str, not %r' % (user,))
        if not isinstance(password, str):
            raise TypeError('the password of user %r must be a str, not of type %s' % (user, type(password).__name__))
    return dict(users)


def log_in(mechanism: str, response: bytes, users: Mapping[str, str], peer: str) -> str:
    """The user's name, when the response is right.

    :param mechanism: one of `MECHANISMS`.
    :param response: as in ``connection.start-ok``.
    :param users: name -> password.
    :param peer: address of the client.
    :raises LoginRefused: it is not.
    """
    read = {'PLAIN': _read_plain, 'AMQPLAIN': _read_amqplain}.get(mechanism)
    if read is None:
        raise LoginRefused("unknown authentication mechanism '%s'" % mechanism)
    user, password = read(response)
    # Compared in constant time, also for a user who does not exist.
    known = hmac.compare_digest(users.get(user, '').encode(), password.encode())
    if not known or user not in users or (user == 'guest' and not _is_loopback(peer)):
        raise LoginRefused(
            'Login was refused using authentication mechanism %s. For details see the broker logfile.' % mechanism
        )
    return user


def _read_plain(response: bytes) -> tuple[str, str]:
    # authorization identity, user, password; the first is ignored, as RabbitMQ does
    parts = response.split(b'\0')
    return (_text(parts[1]), _text(parts[2])) if len(parts) == 3 else ('', '')


def _read_amqplain(response: bytes) -> tuple[str, str]:
    try:
        table, _ = read_field_table(len(response).to_bytes(4, 'big') + response, 0)
    except FrameError:
        return '', ''
    user, password = table.get('LOGIN'), table.get('PASSWORD')
    return (user, password) if isinstance(user, str) and isinstance(password, str) else ('', '')


def _text(raw: bytes) -> str:
    return raw.decode(errors='replace')


def _is_loopback(peer: str) -> bool:
    address = ip_address(peer)
    mapped = getattr(address, 'ipv4_mapped', None)
    return bool((mapped or address).is_loopback)
