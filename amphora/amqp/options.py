"""An AMQP URI as the options of `amphora.amqp.Connection`; reads the certificates it names."""

from __future__ import annotations

import ssl
from typing import Any

from amphora.amqp.url import AmqpUrl


def connection_options(url: str | AmqpUrl) -> dict[str, Any]:
    """The constructor's options that an AMQP URI stands for.

    :raises ValueError: the URL cannot be understood.
    :raises OSError: a certificate or key file in it cannot be read.
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
        options['ssl'] = _tls_context(parsed)
    return options


def _tls_context(url: AmqpUrl) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=url.cacertfile)
    if url.verify is False:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if url.certfile:
        context.load_cert_chain(url.certfile, url.keyfile)
    return context
