"""What a request that was delivered before says of itself, and what it says when it is sent to its queue again.

RabbitMQ says of a message no more than that it was delivered before, whatever became of it. So a server that gets one
sends a copy, in whose headers the deliveries are counted, and acks the one it got: each delivery that has come to grief
leaves a trace then.

Knows properties (AMQP's) and time; sends nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from amphora.amqp.message import headers_of
from amphora.dead_letters import DELIVERIES, headers_to_copy

#: header: the function did not want this request the last time it was delivered
IGNORED = 'x-amphora-ignored'
#: header: when the request expires, in milliseconds since 1970 by the clock of the server that sent it again
DEADLINE = 'x-amphora-deadline'

# Seconds: whoever waits gives up up to a quarter of one after the request has expired, and must not be told otherwise.
_GRACE = 0.5

Properties = Mapping[str, Any]


def count_deliveries(properties: Properties) -> int:
    """How many deliveries have come to grief, as far as the request itself knows."""
    if 'headers' not in properties:
        return 0
    count = headers_of(properties).get(DELIVERIES)
    # Whoever sends a request may say anything of it, also that it has never been delivered and never will have been.
    return count if isinstance(count, int) and count > 0 else 0


def is_fresh(properties: Properties, now: float) -> bool:
    """Whether a request has only just been sent, and by its client: it has neither been counted nor expired.

    :param now: seconds since 1970.
    """
    sent = properties.get('timestamp', now)
    return 'headers' not in properties and now < sent + 1


def was_ignored(properties: Properties) -> bool:
    """Whether the function did not want this request the last time."""
    return IGNORED in headers_of(properties)


def seems_expired(properties: Properties, now: float) -> bool:
    """Whether a request has expired, as far as the clocks of this machine and the sender's agree.

    :param now: seconds since 1970.
    """
    if is_fresh(properties, now):
        return False
    deadline = _deadline(properties)
    return deadline is not None and now * 1000 > deadline


def time_left(properties: Properties, now: float) -> float | None:
    """Seconds after which nobody waits for the answer to a request any more; None: it does not say.

    :param now: seconds since 1970.
    """
    left = _left(properties, int(now * 1000))
    return None if left is None else left / 1000 + _GRACE


def send_again(properties: Properties, deliveries: int, now: float, ignored: bool = False) -> dict[str, Any]:
    """The properties of a copy that is sent to the same queue.

    The broker counts the copy's expiration from when it gets it.

    :param deliveries: how many deliveries have ended without an answer.
    :param now: seconds since 1970.
    :param ignored: the function did not want it.
    """
    headers = headers_to_copy(properties)
    if deliveries:
        headers[DELIVERIES] = deliveries
    if ignored:
        headers[IGNORED] = True
    # The broker takes a user_id from that user only.
    again = {name: value for name, value in properties.items() if name != 'user_id'}
    now_ms = int(now * 1000)
    left = _left(properties, now_ms)
    if left is not None:
        headers[DEADLINE] = now_ms + left
        again['expiration'] = '%d' % left
    again['headers'] = headers
    return again


def _left(properties: Properties, now_ms: int) -> int | None:
    """Milliseconds until a request expires; None when it does not say.

    They are known from the clocks; where those disagree, so that nothing seems to be left of a request that the broker
    has just delivered, its time starts afresh.
    """
    lifetime = _milliseconds(properties.get('expiration'))
    if lifetime is None:
        return None
    deadline = _deadline(properties)
    return lifetime if deadline is None or not now_ms < deadline < now_ms + lifetime else deadline - now_ms


def _deadline(properties: Properties) -> int | None:
    """When a request expires, in milliseconds since 1970; None when it does not say."""
    if 'headers' in properties:
        deadline = headers_of(properties).get(DEADLINE)
        if isinstance(deadline, int):
            return deadline
    sent, lifetime = properties.get('timestamp'), _milliseconds(properties.get('expiration'))
    if sent is None or lifetime is None:
        return None
    # A timestamp is in whole seconds: the message was sent up to one second later.
    return (int(sent) + 1) * 1000 + lifetime


def _milliseconds(expiration: str | None) -> int | None:
    # Other brokers than RabbitMQ may let anything pass.
    return int(expiration) if expiration is not None and expiration.isdecimal() and len(expiration) < 20 else None
