"""What a dialect is told of a client or server, from what that was given."""

from __future__ import annotations

from amphora.dialects.base import Party
from amphora.serializer import AbstractRpcSerializer
from amphora.settings import Settings


def party_of(
    service: str,
    uuid: str,
    serializer: type[AbstractRpcSerializer] | AbstractRpcSerializer,
    settings: Settings,
    fanout: bool,
) -> Party:
    """The party that a client or server with such settings is."""
    return Party(
        service,
        uuid,
        serializer,
        settings.delivery_mode,
        settings.queue_arguments,
        settings.request_queue_arguments,
        settings.compression,
        settings.compress_threshold,
        fanout,
    )
