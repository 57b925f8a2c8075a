from collections.abc import Mapping
from typing import Any

from amphora.amqp.deliveries import Delivery

def encode_message(
    channel: int,
    exchange: str,
    routing_key: str,
    mandatory: bool,
    properties: Mapping[str, Any],
    body: bytes,
    frame_max: int,
    max_message_size: int,
) -> bytes | None: ...
def decode_header(payload: bytes) -> tuple[int, dict[str, Any]] | None: ...
def read_delivery(data: bytes, at: int, frame_max: int) -> Delivery | None: ...
def decode_deliver(payload: bytes) -> tuple[bytes, int, bool, int]: ...
def decode_ack(payload: bytes) -> tuple[int, int]: ...
