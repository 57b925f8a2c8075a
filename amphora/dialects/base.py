"""What a dialect must say: the bytes, properties and addresses of requests and replies.

Knows no broker and no connection: a dialect is a translator between `amphora.envelope` and messages.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, NamedTuple

from amphora.envelope import Address, Reply, Request


class Encoded(NamedTuple):
    """A message that is ready to be published: where to, its AMQP properties and its body."""

    address: Address
    properties: dict[str, Any]
    body: bytes


class Dialect(ABC):
    """One way of doing RPC over AMQP."""

    @abstractmethod
    def encode_request(self, request: Request, routing_key: str) -> Encoded:
        """The message for a request.

        :raises TypeError: an argument cannot be serialised; the error names it.
        """

    @abstractmethod
    def decode_request(self, properties: Mapping[str, Any], body: bytes) -> Request:
        """The request in a message.

        :raises WrongRequest: there is none in it.
        """

    @abstractmethod
    def return_address(self, properties: Mapping[str, Any]) -> tuple[str | None, str | None]:
        """Id and reply_to of a message, even of one that holds no request: so that its sender can be told."""

    @abstractmethod
    def encode_reply(self, reply: Reply, reply_to: str) -> Encoded:
        """The message for a reply.

        :raises TypeError: the value cannot be serialised.
        """

    @abstractmethod
    def reply_id(self, properties: Mapping[str, Any]) -> str | None:
        """The id of the request that a message replies to; None when it says none."""

    @abstractmethod
    def decode_reply(self, properties: Mapping[str, Any], body: bytes) -> Any:
        """The value in a reply.

        :raises RemoteException: the function raised.
        :raises WrongRequest: the server could not make sense of the request.
        :raises WrongResult: there is no reply in it.
        """
