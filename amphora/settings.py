"""A user's options for the way to the broker, checked and in one place."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from amphora.amqp.options import connection_options
from amphora.checks import check_host, check_integer, check_name, check_seconds

if TYPE_CHECKING:
    from ssl import SSLContext

#: names the environment variable that holds a URL, or several with commas between, for whoever gives none
URL_VARIABLE = 'AMPHORA_AMQP_URL'
QUEUE_TYPES = ('classic', 'quorum')
#: seconds: a quorum queue whose leader is gone refuses messages until it has another, which takes less than that
ELECTION_PATIENCE = 5.0


class Settings(Struct, frozen=True):
    """Where the broker is and how to treat it; `make_settings` makes it from a user's keyword arguments.

    :ivar hosts: for each broker address the options of `amphora.amqp.Connection`, in the order in which they are tried.
    :ivar prefetch: unacked requests that a server takes from a queue at once.
    :ivar persistent: whether messages are written to disk by the broker.
    :ivar confirm: whether the broker confirms each publish, and acks wait for it.
    :ivar queue_type: ``classic``, ``quorum`` or None for the broker's default, of request and reply queues.
    """

    hosts: tuple[dict[str, Any], ...]
    prefetch: int
    persistent: bool
    confirm: bool
    queue_type: str | None

    def __repr__(self) -> str:
        # The hosts' options hold passwords.
        return '<Settings of %d hosts>' % len(self.hosts)

    @property
    def delivery_mode(self) -> int:
        """AMQP's delivery mode for messages: 2 persistent, 1 not."""
        return 2 if self.persistent else 1

    @property
    def request_queue_arguments(self) -> tuple[tuple[str, Any], ...]:
        """Arguments that every request queue is declared with."""
        return () if self.queue_type is None else (('x-queue-type', self.queue_type),)

    @property
    def patience(self) -> float:
        """Seconds for which a message that the broker refuses is tried again."""
        return ELECTION_PATIENCE if self.queue_type == 'quorum' else 0


def make_settings(
    amqp_url: str | Sequence[str] | None = None,
    amqp_host: str = '127.0.0.1',
    amqp_port: int | None = None,
    amqp_user: str = 'guest',
    amqp_password: str = 'guest',
    amqp_vhost: str = '/',
    amqp_ssl: bool | SSLContext | None = None,
    heartbeat: float | None = None,
    prefetch: int = 100,
    persistent: bool = True,
    confirm: bool = True,
    queue_type: str | None = None,
) -> Settings:
    """Settings from what a user gave to a client or server.

    :param amqp_url: one AMQP URI or a list of them, tried in order; None: the environment variable ``AMPHORA_AMQP_URL``
        (commas between several), and where that is not set the other ``amqp_`` parameters.
    :param amqp_host: name or address of the broker.
    :param amqp_port: its TCP port; None: 5672, with TLS 5671.
    :param amqp_user: user name.
    :param amqp_password: its password.
    :param amqp_vhost: virtual host.
    :param amqp_ssl: True: TLS that verifies; an `ssl.SSLContext`: TLS as it says.
    :param heartbeat: seconds; 0: none; None: 10, or what the URL says.
    :param prefetch: number of requests, 1 to 65535, that a server takes from a queue at once.
    :param persistent: have the broker write messages to disk.
    :param confirm: have the broker confirm each publish; a request is acked when its reply is confirmed.
    :param queue_type: ``classic`` or ``quorum`` for the queues of requests and replies; None: the broker's default.
        Clients and servers of a service must agree.
    :raises ValueError: when one of them makes no sense; the error names it.
    :raises TypeError: when one is of the wrong type.
    """
    check_integer(prefetch, 'prefetch', 1, 65535)
    if queue_type is not None and queue_type not in QUEUE_TYPES:
        raise ValueError('queue_type must be one of %s, not %r' % (', '.join(QUEUE_TYPES), queue_type))
    if heartbeat is not None:
        check_seconds(heartbeat, 'heartbeat', 65535)
    if amqp_url is None:
        amqp_url = os.environ.get(URL_VARIABLE) or None
    if amqp_url is not None:
        urls = amqp_url.split(',') if isinstance(amqp_url, str) else amqp_url
        if not isinstance(urls, (list, tuple)):
            raise TypeError('amqp_url must be a URL or a list of URLs, not a %s' % type(urls).__name__)
        if not urls:
            raise ValueError('amqp_url is an empty list: give at least one URL')
        hosts = [connection_options(url.strip()) for url in urls]
    else:
        if amqp_port is not None:
            check_integer(amqp_port, 'amqp_port', 1, 65535)
        check_host(amqp_host, 'amqp_host')
        check_name(amqp_user, 'amqp_user')
        check_name(amqp_vhost, 'amqp_vhost')
        if not isinstance(amqp_password, str):
            raise TypeError('amqp_password must be a str, not a %s' % type(amqp_password).__name__)
        hosts = [
            {'host': amqp_host, 'port': amqp_port, 'user': amqp_user, 'password': amqp_password, 'vhost': amqp_vhost}
        ]
    for options in hosts:
        if amqp_ssl is False and 'ssl' in options:
            raise ValueError('amqp_ssl=False contradicts an amqps URL')
        if amqp_ssl and not (amqp_ssl is True and 'ssl' in options):  # the URL may say more than that TLS is wanted
            options['ssl'] = amqp_ssl
        if heartbeat is not None:
            options['heartbeat'] = heartbeat
    return Settings(tuple(hosts), prefetch, persistent, confirm, queue_type)
