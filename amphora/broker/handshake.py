"""How a client's connection opens: start, tune, open; who comes in, where to, and within which limits.

Pure: knows no socket, only a function that sends methods. The protocol header, which comes first, is the connection's.

Source: AMQP 0-9-1 section 2.2.4 ("The connection class"); the texts are RabbitMQ 3.10's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from pamqp import base, commands

from amphora.amqp.errors import CommandInvalid, LoginRefused, NotAllowed
from amphora.amqp.frames import FRAME_MIN_SIZE
from amphora.broker.limits import Limits
from amphora.broker.login import MECHANISMS, log_in
from amphora.broker.vhost import VirtualHost


class Host(Protocol):
    """What a handshake has to know of the broker."""

    limits: Limits
    users: dict[str, str]
    vhosts: dict[str, VirtualHost]
    server_properties: dict[str, Any]

    @property
    def running_connections(self) -> int:
        """Connections whose handshake is over."""


class Handshake:
    """The methods from ``connection.start`` to ``connection.open-ok``.

    :param host: the broker.
    :param peer: the client's address.
    :param say: sends a method on channel 0.

    :ivar user: whom the client logged in as; empty until then.
    :ivar client_properties: what the client says of itself.
    :ivar channel_max: the most channels it may open.
    :ivar frame_max: the largest frame either side may send, in bytes.
    :ivar heartbeat: seconds; 0: none.
    :ivar vhost: the virtual host it has entered; None until the handshake is over.
    """

    def __init__(self, host: Host, peer: str, say: Callable[..., None]) -> None:
        self.user = ''
        self.client_properties: Mapping[str, Any] = {}
        self.channel_max = host.limits.channel_max
        self.frame_max = host.limits.frame_max
        self.heartbeat = host.limits.heartbeat
        self.vhost: VirtualHost | None = None
        self._host = host
        self._peer = peer
        self._say = say
        self._expected: type[base.Frame] = commands.Connection.StartOk

    def begin(self) -> None:
        """The protocol header was right: say who is here."""
        self._say(
            commands.Connection.Start,
            version_major=0,
            version_minor=9,
            server_properties=self._host.server_properties,
            mechanisms=' '.join(MECHANISMS),
            locales='en_US',
        )

    def client_can(self, capability: str) -> bool:
        """Whether the client says that it knows one of RabbitMQ's extensions."""
        capabilities = self.client_properties.get('capabilities')
        return isinstance(capabilities, dict) and capabilities.get(capability) is True

    def handle(self, method: Any) -> None:
        """Take the client's next method; `vhost` is set once it was the last.

        :raises Closed: it is not the one expected now, or the client may not come in.
        """
        if type(method) is not self._expected:
            raise CommandInvalid('%s; expected %s' % (method.name, self._expected.name))
        self._expected = _STEPS[self._expected](self, method)

    def _on_start_ok(self, method: Any) -> type[base.Frame]:
        self.client_properties = method.client_properties
        self.user = log_in(method.mechanism, method.response, self._host.users, self._peer)
        limits = self._host.limits
        self._say(
            commands.Connection.Tune,
            channel_max=limits.channel_max,
            frame_max=limits.frame_max,
            heartbeat=limits.heartbeat,
        )
        return commands.Connection.TuneOk

    def _on_tune_ok(self, method: Any) -> type[base.Frame]:
        for name, told, ours, least in (
            ('channel_max', method.channel_max, self.channel_max, 1),
            ('frame_max', method.frame_max, self.frame_max, FRAME_MIN_SIZE),
        ):
            if told == 0 or told > ours:
                raise NotAllowed(
                    'negotiated %s = %d%s is higher than the maximum allowed value (%d)'
                    % (name, told, '' if told else ' (no limit)', ours)
                )
            if told < least:
                raise NotAllowed(
                    'negotiated %s = %d is lower than the minimum allowed value (%d)' % (name, told, least)
                )
        self.channel_max = method.channel_max
        self.frame_max = method.frame_max
        self.heartbeat = method.heartbeat
        return commands.Connection.Open

    def _on_open(self, method: Any) -> type[base.Frame]:
        name = method.virtual_host
        vhost = self._host.vhosts.get(name)
        if vhost is None:
            raise NotAllowed('vhost %s not found' % name)
        most = self._host.limits.connections
        if self._host.running_connections >= most:
            raise NotAllowed(
                "access to vhost '%s' refused for user '%s': connection limit (%d) is reached" % (name, self.user, most)
            )
        self.vhost = vhost
        self._say(commands.Connection.OpenOk)
        return commands.Connection.Open

    def is_silent_about(self, error: Exception) -> bool:
        """Whether a client takes a close for a broken connection: one that does not know of refused logins
        (https://www.rabbitmq.com/docs/auth-notification)."""
        return isinstance(error, LoginRefused) and not self.client_can('authentication_failure_close')


# What has come -> what is done; that gives what is expected next.
_STEPS: dict[type[base.Frame], Callable[[Handshake, Any], type[base.Frame]]] = {
    commands.Connection.StartOk: Handshake._on_start_ok,
    commands.Connection.TuneOk: Handshake._on_tune_ok,
    commands.Connection.Open: Handshake._on_open,
}
