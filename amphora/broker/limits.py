"""What the broker lets clients have.

The numbers that are agreed on with each client are RabbitMQ's own proposals.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """What the broker lets clients have.

    :param connections: how many at the same time.
    :param channel_max: the highest channel number to propose.
    :param frame_max: the largest frame to propose, in bytes.
    :param heartbeat: seconds to propose; 0: none.
    :param max_message_size: bytes of a message's body.
    :param memory: bytes that all messages in queues together may occupy; above, publishers are blocked. Messages on
        their way there, which are not complete or not committed, may occupy as many; above, their channels are closed.
    :param handshake_timeout: seconds until a connection must be open.
    """

    connections: int = 1000
    channel_max: int = 2047
    frame_max: int = 131072
    heartbeat: int = 60
    max_message_size: int = 134217728
    memory: int = 536870912
    handshake_timeout: float = 10.0
