"""An AMQP URI as the options of `amphora.amqp.Connection`; reads the certificates it names."""

from __future__ import annotations

import ssl
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
        options['ssl'] = _tls_context(parsed)
    return options


def _tls_context(url: AmqpUrl) -> ssl.SSLContext:
    # OpenSSL says neither which file it could not read nor why one is of no use.
    for parameter in ('cacertfile', 'certfile', 'keyfile'):
        path = getattr(url, parameter)
        if path is not None:
            _check_readable(parameter, path)
    try:
        context = ssl.create_default_context(cafile=url.cacertfile)
    except ssl.SSLError as error:
        raise ValueError(
            'the query parameter cacertfile of an AMQP URI must name a file with certificates, not %r: %s'
            % (url.cacertfile, error)
        ) from error
    if url.verify is False:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if url.certfile:
        try:
            context.load_cert_chain(url.certfile, url.keyfile)
        except ssl.SSLError as error:
            key = '' if url.keyfile is None else ' (keyfile: %r)' % url.keyfile
            raise ValueError(
                'the query parameter certfile of an AMQP URI must name a certificate and its key, not %r%s: %s'
                % (url.certfile, key, error)
            ) from error
    return context


def _check_readable(parameter: str, path: str) -> None:
    try:
        with open(path, 'rb'):
            pass
    except OSError as error:
        # Of the class that the number stands for, with the file's name.
        words = 'the query parameter %s of an AMQP URI names a file that cannot be read: %s' % (
            parameter,
            error.strerror,
        )
        raise OSError(error.errno, words, path) from None
