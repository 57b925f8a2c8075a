"""AMQP's reply codes as exceptions.

::

    AmqpError                       amphora.errors
     +- ConnectionFailed            no connection could be made: name, socket, TLS, or no sensible AMQP answer in time
     |   +- CertificateRefused      the broker's certificate is not to be trusted
     +- ConnectionClosed            the connection is gone; code and text say why, 0 when the peer just went away
     |   +- ConnectionForced 320, InvalidPath 402, FrameError 501, SyntaxError_ 502, CommandInvalid 503,
     |      ChannelNumberError 504, UnexpectedFrame 505, NotAllowed 530, NotImplemented_ 540, InternalError 541,
     |      LoginRefused 403
     +- ChannelClosed               the channel is gone; everything else on the connection goes on
     |   +- ContentTooLarge 311, NoConsumers 313, AccessRefused 403, NotFound 404, ResourceLocked 405,
     |      PreconditionFailed 406
     +- PublishFailed               a publish that was waited for did not reach a queue
         +- PublishNacked, PublishReturned

Codes and their meaning: AMQP 0-9-1 specification, section 1.4.2 of the generated reference ("Constants").
"""

from __future__ import annotations

from amphora.errors import AmqpError


class ConnectionFailed(AmqpError):
    """No connection: the name did not resolve, nobody listened, TLS failed, or the peer did not speak AMQP in time.

    Also when a connection that goes on has no room for one more channel.
    """


class CertificateRefused(ConnectionFailed):
    """No connection: the broker's certificate is not to be trusted, is not for this host name, or has expired."""


class Closed(AmqpError):
    """What a ``connection.close`` or ``channel.close`` said.

    :param code: AMQP reply code; 0 when the peer gave none (the socket was lost, or this side closed).
    :param text: the broker's words, or ours where the code is 0.
    :param class_id: AMQP class of the method that failed; 0 when none did.
    :param method_id: AMQP method of that class; 0 when none did.
    """

    #: the reply code a subclass stands for
    code = 0

    def __init__(self, text: str = '', code: int | None = None, class_id: int = 0, method_id: int = 0) -> None:
        super().__init__(text)
        if code is not None:
            self.code = code
        self.text = text
        self.class_id = class_id
        self.method_id = method_id

    def __str__(self) -> str:
        said = '%d %s' % (self.code, self.text) if self.code else self.text
        return '%s (method %d.%d)' % (said, self.class_id, self.method_id) if self.class_id else said

    def __reduce__(self) -> tuple[type[Closed], tuple[str, int, int, int]]:
        return type(self), (self.text, self.code, self.class_id, self.method_id)


class ConnectionClosed(Closed):
    """The connection is gone, and every channel with it."""


class ConnectionForced(ConnectionClosed):
    """320: an operator closed the connection, or the broker is shutting down."""

    code = 320


class InvalidPath(ConnectionClosed):
    """402: the client tried to work with an unknown virtual host."""

    code = 402


class LoginRefused(ConnectionClosed):
    """403 during the handshake: user name, password or mechanism were refused."""

    code = 403


class FrameError(ConnectionClosed):
    """501: a frame that cannot be decoded, or that breaks a limit."""

    code = 501


class SyntaxError_(ConnectionClosed):
    """502: a frame with illegal values in one of its fields."""

    code = 502


class CommandInvalid(ConnectionClosed):
    """503: a method that is out of sequence."""

    code = 503


class ChannelNumberError(ConnectionClosed):
    """504: a channel that is not open, or is open already."""

    code = 504


class UnexpectedFrame(ConnectionClosed):
    """505: a frame of the wrong type at this point, such as a body without its header."""

    code = 505


class NotAllowed(ConnectionClosed):
    """530: not allowed, most often: the virtual host does not exist or the user may not enter it."""

    code = 530


class NotImplemented_(ConnectionClosed):
    """540: the broker does not implement this."""

    code = 540


class InternalError(ConnectionClosed):
    """541: the broker failed."""

    code = 541


class ChannelClosed(Closed):
    """The channel is gone; the connection and its other channels go on."""


class ContentTooLarge(ChannelClosed):
    """311: the message is larger than the broker takes."""

    code = 311


class NoConsumers(ChannelClosed):
    """313: immediate delivery was asked for and nobody consumes."""

    code = 313


class AccessRefused(ChannelClosed):
    """403: the user has no right to do this."""

    code = 403


class NotFound(ChannelClosed):
    """404: no such queue or exchange."""

    code = 404


class ResourceLocked(ChannelClosed):
    """405: another connection holds the queue exclusively."""

    code = 405


class PreconditionFailed(ChannelClosed):
    """406: most often: it exists with other arguments, or an unknown delivery tag was acked."""

    code = 406


class PublishFailed(AmqpError):
    """A publish that was waited for did not reach a queue."""


class PublishNacked(PublishFailed):
    """The broker answered ``basic.nack``: it refused the message or could not take responsibility for it."""


class PublishReturned(PublishFailed):
    """The broker returned the mandatory message.

    :param code: reply code, 312 (NO_ROUTE) or 313 (NO_CONSUMERS).
    :param text: the broker's words.
    """

    def __init__(self, code: int, text: str) -> None:
        super().__init__(code, text)
        self.code = code
        self.text = text

    def __str__(self) -> str:
        return '%d %s' % (self.code, self.text)


def _by_code(base: type[Closed]) -> dict[int, type[Closed]]:
    return {kind.code: kind for kind in base.__subclasses__()}


_CONNECTION_ERRORS = _by_code(ConnectionClosed)
_CHANNEL_ERRORS = _by_code(ChannelClosed)
# What stands in the place of words that the broker did not say.
_NO_WORDS = 'the broker gave no reason'


def connection_error(code: int, text: str, class_id: int = 0, method_id: int = 0) -> Closed:
    """The exception for a ``connection.close`` with this reply code."""
    return _CONNECTION_ERRORS.get(code, ConnectionClosed)(text or _NO_WORDS, code, class_id, method_id)


def channel_error(code: int, text: str, class_id: int = 0, method_id: int = 0) -> Closed:
    """The exception for a ``channel.close`` with this reply code."""
    return _CHANNEL_ERRORS.get(code, ChannelClosed)(text or _NO_WORDS, code, class_id, method_id)
