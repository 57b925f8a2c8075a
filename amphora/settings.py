"""A user's options for the way to the broker, checked and in one place; `configuration` knows where each comes from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from amphora.amqp.content import MAX_MESSAGE_SIZE
from amphora.amqp.message import PERSISTENT, TRANSIENT
from amphora.amqp.options import connection_options
from amphora.checks import (
    check_flag,
    check_host,
    check_host_parts,
    check_integer,
    check_milliseconds,
    check_name,
    check_seconds,
)
from amphora.compression import check_algorithm
from amphora.configuration import ARGUMENT, OPTIONS, Setting, nearest, resolve
from amphora.queue_arguments import MAX_QUEUE_SIZE, QueueArguments, limits

if TYPE_CHECKING:
    from ssl import SSLContext

QUEUE_TYPES = ('classic', 'quorum')
#: seconds: a quorum queue whose leader is gone refuses messages until it has another, which takes less than that
ELECTION_PATIENCE = 5.0
#: the longest that a message may live, in seconds: old releases of RabbitMQ take an expiration of 32 bits of
#: milliseconds, and no more
MAX_TTL = 4_294_967


class Settings(Struct, frozen=True):
    """Where the broker is and how to treat it; `make_settings` makes it from a user's keyword arguments.

    :ivar hosts: for each broker address the options of `amphora.amqp.Connection`, in the order in which they are tried.
    :ivar prefetch: unacked requests that a server takes from a queue at once.
    :ivar persistent: whether messages are written to disk by the broker.
    :ivar confirm: whether the broker confirms each publish, and acks wait for it.
    :ivar queue_type: ``classic``, ``quorum`` or None for the broker's default, of request and reply queues.
    :ivar queue_size: how many requests may wait in a request queue; None: no limit.
    :ivar request_ttl: seconds that a request may wait there; None: no limit.
    :ivar compression: how large bodies are compressed; None: they are not.
    :ivar compress_threshold: bodies of more bytes are large.
    """

    hosts: tuple[dict[str, Any], ...]
    prefetch: int
    persistent: bool
    confirm: bool
    queue_type: str | None
    queue_size: int | None = None
    request_ttl: float | None = None
    compression: str | None = None
    compress_threshold: int = 0

    def __repr__(self) -> str:
        # The hosts' options hold passwords.
        return '<Settings of %d hosts>' % len(self.hosts)

    @property
    def delivery_mode(self) -> int:
        """AMQP's delivery mode for messages: 2 persistent, 1 not."""
        return PERSISTENT if self.persistent else TRANSIENT

    @property
    def queue_arguments(self) -> QueueArguments:
        """Arguments that every queue is declared with."""
        return () if self.queue_type is None else (('x-queue-type', self.queue_type),)

    @property
    def request_queue_arguments(self) -> QueueArguments:
        """Arguments that every request queue is declared with."""
        return self.queue_arguments + limits(self.queue_size, self.request_ttl)

    @property
    def patience(self) -> float:
        """Seconds for which a message that the broker refuses is tried again."""
        return ELECTION_PATIENCE if self.queue_type == 'quorum' else 0


def make_settings(
    amqp_url: str | Sequence[str] | None = None,
    amqp_host: str | None = None,
    amqp_port: int | None = None,
    amqp_user: str | None = None,
    amqp_password: str | None = None,
    amqp_vhost: str | None = None,
    amqp_ssl: bool | SSLContext | None = None,
    heartbeat: float | None = None,
    prefetch: int | None = None,
    persistent: bool | None = None,
    confirm: bool | None = None,
    queue_type: str | None = None,
    queue_size: int | None = None,
    request_ttl: float | None = None,
    compression: str | None = None,
    compress_threshold: int | None = None,
    *,
    service: str | None = None,
    **unknown: Any,
) -> Settings:
    """Settings from what a user gave to a client or server, in the environment, and in a configuration file.

    None, which is the default of all, stands for "not given here". Then the environment variable of the option's name
    counts, ``AMPHORA_PREFETCH`` for `prefetch`; then the file that ``AMPHORA_CONFIG`` names, in it the table
    ``[amphora.services.NAME]`` and then ``[amphora]``; then the default that is stated below.

    The address is either a URL or parts, those from `amqp_host` to `amqp_vhost`: the URL if there is one, unless a
    nearer place gives `amqp_host`. ``AMPHORA_AMQP_URL`` goes before parts that are given here, too.

    :param amqp_url: one AMQP URI or a list of them, tried in order; as text, with commas between several. By default
        there is none.
    :param amqp_host: name or address of the broker; by default 127.0.0.1.
    :param amqp_port: its TCP port; by default 5672, with TLS 5671.
    :param amqp_user: user name; by default ``guest``.
    :param amqp_password: its password; by default ``guest``.
    :param amqp_vhost: virtual host; by default ``/``.
    :param amqp_ssl: True: TLS that verifies; an `ssl.SSLContext`: TLS as it says; by default what the URL says.
    :param heartbeat: seconds; 0: none; by default 10, or what the URL says.
    :param prefetch: number of requests, 1 to 65535, that a server takes from a queue at once; by default 250, which
        is in the range that RabbitMQ advises (https://www.rabbitmq.com/docs/confirms#channel-qos-prefetch).
    :param persistent: have the broker write messages to disk; by default True.
    :param confirm: have the broker confirm each publish; a request is acked when its reply is confirmed. By default
        True.
    :param queue_type: ``classic`` or ``quorum`` for the queues of requests and replies; by default the broker's own
        default. Clients and servers of a service must agree on this and the next two.
    :param queue_size: how many requests may wait in the service's queue, and in those that clients create; a call that
        would be one more raises `QueueFull` at once (https://www.rabbitmq.com/docs/maxlength). By default there is no
        limit.
    :param request_ttl: seconds that a request may wait in such a queue, whatever its caller's timeout; then the broker
        drops it (https://www.rabbitmq.com/docs/ttl). By default there is no limit.
    :param compression: ``gzip`` or ``zstd``, which needs ``amphora[zstd]``: compress large bodies. The other side reads
        them without being told, unless it is amphora 0.1.3. By default they are not compressed.
    :param compress_threshold: bodies of more bytes are large; by default 1,024.
    :param service: the service whose table in the file counts.
    :raises ValueError: when one of them makes no sense, or the file cannot be read; the error says which one, and where
        it was given.
    :raises TypeError: when one is of the wrong type, or unknown.
    :raises OSError: a file that the URL names cannot be read.
    :raises ImportError: the package that the compression needs is not installed.
    """
    for name in unknown:
        near = nearest(name, OPTIONS)
        raise TypeError('there is no option %s%s' % (name, '' if near is None else '; is %s meant?' % near))
    options = resolve(
        {
            'amqp_url': amqp_url,
            'amqp_host': amqp_host,
            'amqp_port': amqp_port,
            'amqp_user': amqp_user,
            'amqp_password': amqp_password,
            'amqp_vhost': amqp_vhost,
            'amqp_ssl': amqp_ssl,
            'heartbeat': heartbeat,
            'prefetch': prefetch,
            'persistent': persistent,
            'confirm': confirm,
            'queue_type': queue_type,
            'queue_size': queue_size,
            'request_ttl': request_ttl,
            'compression': compression,
            'compress_threshold': compress_threshold,
        },
        service,
    )
    _check(options)
    return Settings(
        tuple(_hosts(options)),
        options['prefetch'].value,
        options['persistent'].value,
        options['confirm'].value,
        options['queue_type'].value,
        options['queue_size'].value,
        options['request_ttl'].value,
        options['compression'].value,
        options['compress_threshold'].value,
    )


def _check(options: dict[str, Setting]) -> None:
    """Check those that no address says."""
    taken = options['prefetch']
    check_integer(taken.value, taken.what, 1, 65535)
    for name in ('persistent', 'confirm'):
        check_flag(options[name].value, options[name].what)
    kind = options['queue_type']
    if kind.value is not None and kind.value not in QUEUE_TYPES:
        raise ValueError('%s must be one of %s, not %r' % (kind.what, ', '.join(QUEUE_TYPES), kind.value))
    size = options['queue_size']
    if size.value is not None:
        check_integer(size.value, size.what, 1, MAX_QUEUE_SIZE)
    lifetime = options['request_ttl']
    if lifetime.value is not None:
        check_milliseconds(lifetime.value, lifetime.what, MAX_TTL)
    packing = options['compression']
    if packing.value is not None:
        check_algorithm(packing.value, packing.what)
    threshold = options['compress_threshold']
    check_integer(threshold.value, threshold.what, 0, MAX_MESSAGE_SIZE)


def _hosts(options: dict[str, Setting]) -> list[dict[str, Any]]:
    """For each broker address the options of a connection."""
    hosts = _addresses(options)
    place = options['amqp_host' if options['amqp_url'].value is None else 'amqp_url']
    for host in hosts:
        check_host_parts(host['host'], place.what)
        _encrypt(host, options['amqp_ssl'])
    beat = options['heartbeat']
    if beat.value is not None:
        check_seconds(beat.value, beat.what, 65535)
        for host in hosts:
            if not (beat.yields and 'heartbeat' in host):
                host['heartbeat'] = beat.value
    return hosts


def _addresses(options: dict[str, Setting]) -> list[dict[str, Any]]:
    """For each broker address the options of a connection, as far as the address says them."""
    url = options['amqp_url']
    if url.value is None:
        return [_host_of_parts(options)]
    urls = url.value.split(',') if isinstance(url.value, str) else url.value
    if not isinstance(urls, (list, tuple)):
        raise TypeError('%s must be a URL or a list of URLs, not a %s' % (url.what, type(urls).__name__))
    if not all(isinstance(each, str) for each in urls):
        raise TypeError('%s must be a URL or a list of URLs, and holds something else' % url.what)
    if not urls:
        raise ValueError('%s is an empty list: give at least one URL' % url.what)
    try:
        return [connection_options(each.strip()) for each in urls]
    except ValueError as error:
        if url.where == ARGUMENT:
            raise
        raise ValueError('%s: %s' % (url.what, error)) from error


def _host_of_parts(options: dict[str, Setting]) -> dict[str, Any]:
    host, port, user, password, vhost = (
        options[name] for name in ('amqp_host', 'amqp_port', 'amqp_user', 'amqp_password', 'amqp_vhost')
    )
    if port.value is not None:
        check_integer(port.value, port.what, 1, 65535)
    if not isinstance(password.value, str):
        raise TypeError('%s must be a str, not a %s' % (password.what, type(password.value).__name__))
    return {
        'host': check_host(host.value, host.what),
        'port': port.value,
        'user': check_name(user.value, user.what),
        'password': password.value,
        'vhost': check_name(vhost.value, vhost.what),
    }


def _encrypt(host: dict[str, Any], tls: Setting) -> None:
    if tls.yields:  # the scheme of a nearer URL says it
        return
    if tls.value is not None and not isinstance(tls.value, bool) and not hasattr(tls.value, 'wrap_bio'):
        raise TypeError('%s must be True, False or an ssl.SSLContext, not a %s' % (tls.what, type(tls.value).__name__))
    if tls.value is False and 'ssl' in host:
        raise ValueError('%s=False contradicts an amqps URL' % tls.what)
    if tls.value and not (tls.value is True and 'ssl' in host):  # the URL may say more than that TLS is wanted
        host['ssl'] = tls.value
