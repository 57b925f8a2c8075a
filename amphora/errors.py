"""Every exception that amphora's RPC side raises.

::

    Exception
     +- AmphoraError                    catch this for "anything amphora says"
     |   +- NoResult                    no answer in time; `executed` says whether the call may have run
     |   |   +- NotSent                 it never left this process; safe to retry
     |   |   +- Unroutable              the broker returned it: no queue is bound to the routing key
     |   |   +- QueueFull               the broker refused it: the queue is full, or has too few nodes left
     |   +- WrongRequest                the server cannot make sense of the request
     |   +- WrongResult                 the client cannot make sense of the reply
     |   +- RemoteException             the remote function raised; error_type, args
     |   +- BufferFull                  too much is waiting to be sent; nothing was accepted
     |   +- WrongThread                 used from a thread that does not own the client or server
     |   +- AmqpError                   the AMQP side: see amphora.amqp.errors
     +- IgnoreRequest                   raised *by* a remote function: not an error, a refusal
     +- RejectRequest                   raised *by* a remote function: set the request aside

This module imports nothing.
"""

from __future__ import annotations

__all__ = (
    'AmphoraError',
    'AmqpError',
    'BufferFull',
    'IgnoreRequest',
    'NoResult',
    'NotSent',
    'QueueFull',
    'RejectRequest',
    'RemoteException',
    'Unroutable',
    'WrongRequest',
    'WrongResult',
    'WrongThread',
)


class AmphoraError(Exception):
    """The base of everything amphora raises on its own account."""


class AmqpError(AmphoraError):
    """The base of what the AMQP side raises; `amphora.amqp.errors` holds the rest of that branch."""


class NoResult(AmphoraError):
    """No answer came before the call's timeout.

    :param executed: what is known of the remote function: ``False`` when it certainly did not run (retrying is safe),
        ``None`` when it may have run.
    """

    def __init__(self, message: str = '', executed: bool | None = None) -> None:
        super().__init__(message)
        self.executed = executed


class _NotExecuted(NoResult):
    """A `NoResult` of which it is certain that the remote function did not run, unless told otherwise."""

    def __init__(self, message: str = '', executed: bool | None = False) -> None:
        super().__init__(message, executed)


class NotSent(_NotExecuted):
    """The request never left this process: the broker was away or blocked until the timeout. Safe to retry.

    Its text says what was in the way, such as ``there is no connection: cannot connect to 10.0.0.7:5672: ...`` or
    ``the broker takes no messages: low on memory``.
    """


class Unroutable(_NotExecuted):
    """The broker returned the request: no queue is bound to its routing key.

    RabbitMQ does so for a mandatory message that it cannot route (https://www.rabbitmq.com/docs/publishers#unroutable).
    """


class QueueFull(_NotExecuted):
    """The broker refused the request with ``basic.nack``.

    RabbitMQ does so when a queue with ``x-overflow: reject-publish`` has reached its length limit
    (https://www.rabbitmq.com/docs/maxlength); and when a quorum queue has lost the majority of its nodes. A request to
    a quorum queue is tried for a few seconds before: it refuses while it elects a leader, too. Of a broadcast
    ``executed`` is None: other queues may have taken it.
    """


class WrongRequest(AmphoraError):
    """The server could not make sense of the request: no function of that name is registered, for example; or the
    arguments do not fit one that is offered with ``validate=True``.

    :ivar unknown_function: at the server: that name, when this is the reason.
    """

    unknown_function: str | None = None


class WrongResult(AmphoraError):
    """The client could not make sense of the reply. Between two amphora peers this does not happen."""


class RemoteException(AmphoraError):
    """The remote function raised.

    :param error_type: class name of the remote exception, such as ``'ValueError'``. Only ever a name: nothing is
        imported or instantiated because of it.
    :param args: the arguments of the remote exception, as far as they serialise.
    """

    def __init__(self, error_type: str, args: tuple[object, ...] | list[object] = ()) -> None:
        super().__init__(*args)
        self.error_type = error_type

    def __str__(self) -> str:
        return '%s(%s)' % (self.error_type, ', '.join(map(repr, self.args)))

    def __repr__(self) -> str:
        return 'RemoteException(%r, %r)' % (self.error_type, self.args)

    def __reduce__(self) -> tuple[type[RemoteException], tuple[str, tuple[object, ...]]]:
        # BaseException's own would call the class with `args` alone and lose the type.
        return type(self), (self.error_type, self.args)


def remote_error(error_type: str, args: tuple[object, ...] | list[object]) -> WrongRequest | RemoteException:
    """What a reply raises that tells of an error of such a class name, with such arguments."""
    return WrongRequest(*args) if error_type == WrongRequest.__name__ else RemoteException(error_type, args)


class BufferFull(AmphoraError):
    """Too many requests, or too many bytes of them, are already waiting for the broker; this one was not accepted."""


class WrongThread(AmphoraError):
    """A client, server or connection was used from a thread other than the one it works in.

    A gevent hub belongs to one thread; sockets and waiters of one hub cannot be used from another.
    """


class IgnoreRequest(Exception):
    """Raised by a remote function that does not want this request.

    `AmqpRpcServer` gives the request back to the queue, for another server; `AmqpRpcFanoutServer` drops it and sends
    no answer.
    """


class RejectRequest(Exception):
    """Raised by a remote function for a request that nobody should run again: it becomes a dead letter.

    It is kept in ``rpc_{service}_dead``, where ``amphora dead`` shows it; a request in another system's dialect is
    rejected, for its queue to dead-letter (https://www.rabbitmq.com/docs/dlx). Whoever waits for an answer gets
    ``RemoteException('RejectRequest')`` with the same arguments.
    """
