"""The arguments of a queue: what each means, which values it may have, and whether a redeclaration is the same.

Source: https://www.rabbitmq.com/docs/queues#optional-arguments; the texts are RabbitMQ 3.10's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from amphora.amqp.errors import PreconditionFailed

Arguments = Mapping[str, Any]

#: what a queue's length limit does: drop the oldest, refuse the newest, refuse it and dead-letter it
OVERFLOWS = ('drop-head', 'reject-publish', 'reject-publish-dlx')

#: milliseconds of a time, of which RabbitMQ takes no more: ten years
MAX_MILLISECONDS = 315_360_000_000
# Bytes of a name or a routing key.
_SHORT_STRING = 255


@dataclass(frozen=True)
class QueueOptions:
    """What a queue's arguments say. Times are in seconds; None: no such limit."""

    expires: float | None = None
    message_ttl: float | None = None
    max_length: int | None = None
    max_bytes: int | None = None
    overflow: str = 'drop-head'
    dead_letter_exchange: str | None = None
    dead_letter_routing_key: str | None = None
    max_priority: int = 0
    single_active: bool = False
    quorum: bool = False
    delivery_limit: int | None = None

    @classmethod
    def parse(cls, arguments: Arguments, queue: str, vhost: str) -> QueueOptions:
        """From the arguments of a declaration.

        :raises PreconditionFailed: one has a value it cannot have; the error names it.
        """
        kind = 'quorum' if arguments.get('x-queue-type') == 'quorum' else 'classic'
        where = "queue '%s' in vhost '%s'" % (queue, vhost)
        for name, value in arguments.items():
            if name in _NOT_FOR[kind]:
                raise PreconditionFailed("invalid arg '%s' for %s of queue type rabbit_%s_queue" % (name, where, kind))
            if name in _DEAD_LETTER and not isinstance(value, str):
                raise PreconditionFailed("invalid type '%s' for arg '%s' in %s" % (amqp_type(value), name, where))
            if name in _DEAD_LETTER and len(value.encode()) > _SHORT_STRING:
                # RabbitMQ takes it, and fails when the first letter dies.
                raise PreconditionFailed("invalid arg '%s' for %s: longer than %d bytes" % (name, where, _SHORT_STRING))
            check = _CHECKS.get(name)
            wrong = check(value) if check is not None else None
            if wrong is not None:
                raise PreconditionFailed("invalid arg '%s' for %s: %s" % (name, where, wrong))
        if 'x-dead-letter-routing-key' in arguments and 'x-dead-letter-exchange' not in arguments:
            raise PreconditionFailed(
                "invalid arg 'x-dead-letter-routing-key' for %s: routing_key_but_no_dlx_defined" % where
            )
        return cls(
            expires=_seconds(arguments.get('x-expires')),
            message_ttl=_seconds(arguments.get('x-message-ttl')),
            max_length=arguments.get('x-max-length'),
            max_bytes=arguments.get('x-max-length-bytes'),
            overflow=arguments.get('x-overflow', 'drop-head'),
            dead_letter_exchange=arguments.get('x-dead-letter-exchange'),
            dead_letter_routing_key=arguments.get('x-dead-letter-routing-key'),
            max_priority=arguments.get('x-max-priority', 0),
            single_active=arguments.get('x-single-active-consumer', False),
            quorum=kind == 'quorum',
            delivery_limit=_limit(arguments.get('x-delivery-limit')),
        )


def check_equivalent(current: Arguments, received: Arguments, names: tuple[str, ...], what: str, vhost: str) -> None:
    """Compare the arguments of a redeclaration with those that hold. Arguments of other names may differ.

    :param what: such as ``queue 'letters'``.
    :raises PreconditionFailed: one differs; the error names it.
    """
    for name in names:
        old, new = current.get(name), received.get(name)
        # RabbitMQ takes classic for granted where a queue's type is not named.
        if name == 'x-queue-type':
            if (old or 'classic') == (new or 'classic'):
                continue
        elif old == new and isinstance(old, bool) == isinstance(new, bool):
            continue
        if old is None or new is None:
            told = 'received %s but current is %s' % (_told(new), _told(old))
        else:
            told = "received '%s' but current is '%s'" % (_text(new), _text(old))
        raise PreconditionFailed("inequivalent arg '%s' for %s in vhost '%s': %s" % (name, what, vhost, told))


def check_property(name: str, current: object, received: object, what: str, vhost: str) -> None:
    """Compare a property of a redeclaration, such as ``durable``, with the one that holds.

    :raises PreconditionFailed: they differ.
    """
    if current != received:
        raise PreconditionFailed(
            "inequivalent arg '%s' for %s in vhost '%s': received '%s' but current is '%s'"
            % (name, what, vhost, _text(received), _text(current))
        )


def integer_fault(value: Any) -> str | None:
    """What RabbitMQ says of an argument that must be an integer; None when it is one."""
    if isinstance(value, int) and not isinstance(value, bool):
        return None
    return '"expected integer, got %s"' % amqp_type(value)


def amqp_type(value: Any) -> str:
    """RabbitMQ's name for the type of a field table's value. The width of an integer is lost in decoding."""
    for kind, name in _TYPE_NAMES:
        if isinstance(value, kind):
            return name
    return 'void'


_TYPE_NAMES: tuple[tuple[type, str], ...] = (
    (bool, 'bool'),
    (int, 'signedint'),
    (float, 'float'),
    (str, 'longstr'),
    (Decimal, 'decimal'),
    (dict, 'table'),
    (list, 'array'),
    (bytes, 'binary'),
    (bytearray, 'binary'),
)


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _told(value: object) -> str:
    return 'none' if value is None else "the value '%s' of type '%s'" % (_text(value), amqp_type(value))


def _seconds(milliseconds: int | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000


def _limit(value: Any) -> int | None:
    # RabbitMQ accepts any value here, and goes without a limit where it makes no sense.
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _natural(value: Any) -> str | None:
    if (fault := integer_fault(value)) is not None:
        return fault
    return '{value_negative,%d}' % value if value < 0 else None


def _milliseconds(value: Any) -> str | None:
    if (fault := _natural(value)) is not None:
        return fault
    return '{value_too_large,%d}' % value if value > MAX_MILLISECONDS else None


def _positive_milliseconds(value: Any) -> str | None:
    return '{value_zero,0}' if value == 0 and integer_fault(value) is None else _milliseconds(value)


def _priority(value: Any) -> str | None:
    if (fault := _natural(value)) is not None:
        return fault
    return '{max_value_exceeded,%d}' % value if value > 255 else None


def _overflow(value: Any) -> str | None:
    if not isinstance(value, str):
        return '{unacceptable_type,%s}' % amqp_type(value)
    return None if value in OVERFLOWS else 'invalid_overflow'


def _queue_type(value: Any) -> str | None:
    if not isinstance(value, str):
        return '{unacceptable_type,%s}' % amqp_type(value)
    return None if value in ('classic', 'quorum') else '"unsupported queue type \'%s\'"' % value


def _queue_mode(value: Any) -> str | None:
    if not isinstance(value, str):
        return '{unacceptable_type,%s}' % amqp_type(value)
    return None if value in ('default', 'lazy') else '"unsupported queue mode \'%s\'"' % value


def _queue_version(value: Any) -> str | None:
    if (fault := integer_fault(value)) is not None:
        return fault
    return None if value in (1, 2) else '"unsupported queue version \'%d\'"' % value


def _flag(value: Any) -> str | None:
    return None if isinstance(value, bool) else '{unacceptable_type,%s}' % amqp_type(value)


_CHECKS: dict[str, Callable[[Any], str | None]] = {
    'x-expires': _positive_milliseconds,
    'x-message-ttl': _milliseconds,
    'x-max-length': _natural,
    'x-max-length-bytes': _natural,
    'x-overflow': _overflow,
    'x-max-priority': _priority,
    'x-single-active-consumer': _flag,
    'x-queue-type': _queue_type,
    'x-queue-mode': _queue_mode,
    'x-queue-version': _queue_version,
}
_DEAD_LETTER = ('x-dead-letter-exchange', 'x-dead-letter-routing-key')
_NOT_FOR = {
    'classic': (
        'x-delivery-limit',
        'x-max-age',
        'x-max-in-memory-length',
        'x-max-in-memory-bytes',
        'x-quorum-initial-group-size',
        'x-queue-leader-locator',
        'x-stream-max-segment-size-bytes',
        'x-initial-cluster-size',
        'x-dead-letter-strategy',
    ),
    'quorum': (
        'x-max-priority',
        'x-queue-mode',
        'x-queue-version',
        'x-queue-master-locator',
        'x-max-age',
        'x-stream-max-segment-size-bytes',
        'x-initial-cluster-size',
    ),
}
#: arguments of a queue that a redeclaration must repeat
QUEUE_ARGUMENTS = (*_DEAD_LETTER, *_CHECKS, 'x-delivery-limit')
