"""What lies between this machine and a call that works, looked at one step after the other.

Knows what can be wrong and how it is mended; not how that is shown.
"""

from __future__ import annotations

import re
import socket
import ssl as ssl_module
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any
from uuid import uuid4

import gevent
from gevent.event import Event

from amphora.amqp import Channel, ChannelClosed, Closed, Connection, LoginRefused, Message, NotAllowed, PublishFailed
from amphora.amqp.errors import ConnectionFailed
from amphora.dialects.native import request_exchange, request_queue
from amphora.errors import AmqpError

#: seconds that any one step may take
STEP_TIMEOUT = 5.0

#: gets the name of a step that went well and a few words about it
Tell = Callable[[str, str], None]


class Ailment(Exception):
    """A step did not go well.

    :param step: its name.
    :param what: what happened.
    :param mend: what to do about it.
    """

    def __init__(self, step: str, what: object, mend: str) -> None:
        super().__init__(step, str(what), mend)
        self.step = step
        self.what = str(what)
        self.mend = mend


def examine(options: dict[str, Any], tell: Tell) -> None:
    """Go all the way to a message that was sent, confirmed and received.

    :param options: of `amphora.amqp.Connection`.
    :param tell: called after each step that went well.
    :raises Ailment: at the first that did not.
    """
    context: ssl_module.SSLContext | None = options.get('ssl')
    host = options['host']
    port = options['port'] or (5671 if context else 5672)
    tell('DNS', _resolve(host, port))
    with _reach(host, port) as sock:
        tell('TCP', 'port %d is open' % port)
        if context is None:
            tell('TLS', 'not used: amqp:// does not encrypt, amqps:// does')
        else:
            tell('TLS', _encrypt(sock, context, options.get('server_hostname') or host))
    connection = _log_in(options, tell)
    with connection:
        _use(connection, tell)


def _resolve(host: str, port: int) -> str:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise Ailment(
            'DNS', '%s: %s' % (host, error.strerror or error), 'correct the host name in the URL, or add it to the DNS'
        ) from error
    addresses = dict.fromkeys(str(address[0]) for *_, address in found)
    return '%s is %s' % (host, ', '.join(addresses))


def _reach(host: str, port: int) -> socket.socket:
    try:
        return socket.create_connection((host, port), timeout=STEP_TIMEOUT)
    except TimeoutError as error:
        raise Ailment(
            'TCP',
            'nothing answers at %s:%d within %g s' % (host, port, STEP_TIMEOUT),
            'let port %d through the firewall, or correct the URL' % port,
        ) from error
    except OSError as error:
        raise Ailment(
            'TCP',
            '%s:%d: %s' % (host, port, error.strerror or error),
            'start the broker there, or correct host and port in the URL',
        ) from error


def _encrypt(sock: socket.socket, context: ssl_module.SSLContext, name: str) -> str:
    try:
        with context.wrap_socket(sock, server_hostname=name) as encrypted:
            return '%s, the certificate is %s' % (
                encrypted.version(),
                'not checked' if context.verify_mode == ssl_module.CERT_NONE else 'good for %s' % name,
            )
    except ssl_module.SSLCertVerificationError as error:
        raise Ailment(
            'TLS',
            error.verify_message,
            'name its authority with ?cacertfile=FILE in the URL, or the host it is for with '
            '?server_name_indication=NAME',
        ) from error
    except OSError as error:
        raise Ailment(
            'TLS',
            getattr(error, 'reason', None) or error,
            'give the port where the broker speaks TLS, usually 5671, or begin the URL with amqp://',
        ) from error


def _log_in(options: dict[str, Any], tell: Tell) -> Connection:
    user, vhost = options['user'], options['vhost']
    try:
        connection = Connection(**{'name': 'amphora doctor', **options})
    except LoginRefused as error:
        tell('AMQP', '0-9-1')
        if re.search('no common login mechanism', error.text):
            mend = 'name one that the broker offers with ?auth_mechanism=NAME in the URL, or have the broker offer it'
        else:
            mend = (
                'correct user and password in the URL; RabbitMQ lets guest in from its own machine only, '
                'rabbitmqctl add_user makes another'
            )
        raise Ailment('login', error, mend) from error
    except NotAllowed as error:
        tell('AMQP', '0-9-1')
        tell('login', 'as %s' % user)
        if re.search('not found', error.text):
            mend = "correct it in the URL, or make it: rabbitmqctl add_vhost '%s'" % vhost
        else:
            mend = 'let the user in: ' + _set_permissions(user, vhost)
        raise Ailment('vhost', error, mend) from error
    except AmqpError as error:
        mend = 'give the port where the broker speaks AMQP, usually 5672 (with TLS 5671, and amqps:// in the URL)'
        if re.search(r' within \S+ s$', str(error)):
            mend += '; or more time, in milliseconds, with ?connection_timeout=NUMBER in the URL'
        raise Ailment('AMQP', error, mend) from error
    properties = connection.server_properties
    tell('AMQP', '0-9-1, %s %s' % (properties.get('product', 'broker'), properties.get('version', '')))
    tell('login', 'as %s' % user)
    tell('vhost', vhost)
    return connection


def _set_permissions(user: str, vhost: str) -> str:
    # A server sends to queues by their names what it counts, sets aside or leaves to another one.
    return r"rabbitmqctl set_permissions -p '%s' '%s' '^rpc_' '^(rpc_|amq\.default$)' '^rpc_'" % (vhost, user)


def _use(connection: Connection, tell: Tell) -> None:
    # Named as a service's are: rights are given by name.
    label = 'doctor-%s' % uuid4()
    exchange, queue = request_exchange(label), request_queue(label)
    rights = 'give the user the rights: ' + _set_permissions(connection.user, connection.vhost)
    try:
        with _step(connection, 'declare', rights) as channel:
            channel.exchange.declare(exchange, 'direct', auto_delete=True)
            channel.queue.declare(queue, exclusive=True)
            channel.queue.bind(queue, exchange, '')
        tell('declare', 'exchange, queue and binding')
        with _step(connection, 'publish', rights) as channel:
            channel.confirm.select()
            channel.basic.publish(Message(b'first'), exchange, '', mandatory=True, wait=True)
        tell('publish', 'confirmed')
        with _step(connection, 'round trip', rights) as channel:
            received = Event()

            def on_message(message: Message) -> None:
                if message.body == b'second':
                    received.set()

            channel.basic.consume(queue, on_message, no_ack=True, direct=True)
            began = monotonic()
            channel.basic.publish(Message(b'second'), exchange, '')
            received.wait()
            seconds = monotonic() - began
        tell('round trip', '%.1f ms' % (seconds * 1000))
    finally:
        _tidy(connection, exchange, queue)


@contextmanager
def _step(connection: Connection, step: str, rights: str) -> Iterator[Channel]:
    """A channel for a step; what goes wrong with it becomes an `Ailment`."""
    try:
        with gevent.Timeout(STEP_TIMEOUT):
            # Ends with the connection: a broker that takes no messages would not hear that it is closed.
            yield connection.channel()
    except gevent.Timeout as error:
        if connection.blocked is not None:
            raise Ailment(
                step, 'the broker takes no messages: %s' % connection.blocked, 'free memory or disk where it runs'
            ) from error
        raise Ailment(
            step, 'no answer within %g s' % STEP_TIMEOUT, "look at the broker's load and at its log"
        ) from error
    except ChannelClosed as error:
        raise Ailment(step, error, rights if error.code == 403 else "look at the broker's log") from error
    except (Closed, ConnectionFailed, PublishFailed) as error:
        mend = "look at the broker's log"
        if isinstance(error, ConnectionFailed) and not connection.closed:
            mend = (
                "let a connection have more channels: with ?channel_max=NUMBER in the URL, or in the broker's settings"
            )
        raise Ailment(step, error, mend) from error


def _tidy(connection: Connection, exchange: str, queue: str) -> None:
    if connection.blocked is not None:
        return
    try:
        with gevent.Timeout(STEP_TIMEOUT):
            channel = connection.channel()
            channel.queue.delete(queue)
            channel.exchange.delete(exchange)
    except (AmqpError, gevent.Timeout):
        pass  # both go with this connection, unless the right to bind is what was missing
