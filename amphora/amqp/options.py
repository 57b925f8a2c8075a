"""An AMQP URI as the options of `amphora.amqp.Connection`."""

from __future__ import annotations

from typing import Any

from amphora.amqp.url import AmqpUrl


def connection_options(url: str | AmqpUrl) -> dict[str, Any]:
    """The constructor's options that an AMQP URI stands for.

    :raises ValueError: the URL cannot be understood, or a file that it names holds no certificate or key.
    :raises OSError: a file that it names cannot be read.
    """
    parsed = AmqpUrl.parse(url) if isinstance(url, str) else url
    options: dict[str, Any] = {
        'host': parsed.host,
        'port': parsed.port,
        'user': parsed.user,
        'password': parsed.password,
        'vhost': parsed.vhost,
    }
    for name in (
        'heartbeat',
        'connect_timeout',
        'channel_max',
        'frame_max',
        'name',
        'auth_mechanisms',
        'server_hostname',
    ):
        value = getattr(parsed, name)
        if value not in (None, ()):
            options[name] = value
    for limit in ('channel_max', 'frame_max'):
        if options.get(limit) == 0:  # "no limit of mine": that is this side's default
            del options[limit]
    if parsed.tls:
        # Here: it takes OpenSSL, which is slow to import.
        from amphora.amqp.tls import context_of

        options['ssl'] = context_of(parsed)
    return options
