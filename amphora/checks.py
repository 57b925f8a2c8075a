"""Checks of a user's names and numbers, with errors that say which one is wrong and what would be right."""

from __future__ import annotations


def check_name(value: object, what: str) -> str:
    """The value, when it can be a name in AMQP: at most 255 bytes of UTF-8.

    :raises TypeError: it is no text.
    :raises ValueError: it is too long, or is not valid Unicode.
    """
    if not isinstance(value, str):
        raise TypeError('%s must be a str, not a %s' % (what, type(value).__name__))
    try:
        size = len(value.encode())
    except UnicodeEncodeError as error:
        raise ValueError('%s cannot be encoded as UTF-8: %s' % (what, error)) from error
    if size > 255:
        raise ValueError('%s is %d bytes long; AMQP allows 255: %.60r...' % (what, size, value))
    return value


def check_host(value: object, what: str) -> str:
    """The value, when it can be the name or address of a host and is no URL.

    A host is shown in errors, logs and names; a URL in its place would bring its password there.

    :raises TypeError: it is no text.
    :raises ValueError: it is a URL, or has a user in front; the error does not show it.
    """
    if not isinstance(value, str):
        raise TypeError('%s must be a str, not a %s' % (what, type(value).__name__))
    if '/' in value or '@' in value:
        raise ValueError('%s must be the name or the address of a host, and no URL' % what)
    return value


def check_host_parts(host: str, what: str) -> None:
    """Make sure that a host's name can be looked up at all: of others gevent writes a traceback at each attempt.

    :raises ValueError: it cannot.
    """
    parts = host.split('.')
    if '' in parts[:-1] or max(map(len, parts)) > 63:
        raise ValueError('%s must have 1 to 63 characters between the dots of a host' % what)


def check_flag(value: object, what: str) -> bool:
    """The value, when it is True or False, and no text that says so.

    :raises TypeError: it is something else.
    """
    if not isinstance(value, bool):
        raise TypeError('%s must be True or False, not a %s' % (what, type(value).__name__))
    return value


def check_integer(value: object, what: str, low: int, high: int) -> int:
    """The value, when it is an integer within the limits.

    :raises TypeError: it is no integer.
    :raises ValueError: it is out of the limits.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError('%s must be an integer, not %r' % (what, value))
    if not low <= value <= high:
        raise ValueError('%s must be from %d to %d, not %d' % (what, low, high, value))
    return value


def check_seconds(value: object, what: str, high: float) -> float:
    """The value, when it is a number of seconds from 0 to the limit.

    :raises TypeError: it is no number.
    :raises ValueError: it is negative, not a number in the sense of IEEE 754, or above the limit.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError('%s must be a number of seconds, not %r' % (what, value))
    if not 0 <= value <= high:  # NaN compares false to everything
        raise ValueError('%s must be from 0 to %g seconds, not %r' % (what, high, value))
    return value


def check_milliseconds(value: object, what: str, high: float) -> float:
    """The value, when it is a number of seconds up to the limit that is a millisecond or more.

    RabbitMQ counts milliseconds, and drops at 0 what nobody takes at once.

    :raises TypeError: it is no number.
    :raises ValueError: it is less, or above the limit.
    """
    seconds = check_seconds(value, what, high)
    if seconds < 0.001:
        raise ValueError('%s must be at least 0.001 seconds, not %r' % (what, value))
    return seconds
