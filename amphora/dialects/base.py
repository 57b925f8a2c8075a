"""What a dialect must say: the bytes, properties, addresses and queues of requests and replies.

Knows no broker and no connection: a dialect is a translator between `amphora.envelope` and messages. The object that a
user makes of a `Dialect` holds options; a server and a client get one side of it each, for their service.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sized
from typing import Any

from msgspec import Struct

from amphora.amqp.message import PERSISTENT
from amphora.dialects.encoded import Encoded
from amphora.dialects.ids import CountedUuids
from amphora.envelope import Reply, Request
from amphora.errors import RemoteException
from amphora.functions import FunctionOptions
from amphora.queue_arguments import QueueArguments
from amphora.serializer import AbstractRpcSerializer
from amphora.topology import Queue, Record

#: milliseconds that a reply queue outlives its client's connection: time to come back after a fault
REPLY_QUEUE_EXPIRES = 600_000

Properties = Mapping[str, Any]


class Party(Struct, frozen=True):
    """Who speaks a dialect: a server or a client.

    :ivar service: name of the service.
    :ivar uuid: its own name.
    :ivar serializer: what it was given to make and read bodies with; dialects with formats of their own ignore it.
    :ivar delivery_mode: AMQP's, of its messages, where the dialect leaves it open.
    :ivar queue_arguments: what its queues are declared with, where the dialect leaves it open.
    :ivar request_queue_arguments: the same of its request queues.
    :ivar compression: how bodies of more than `compress_threshold` bytes are compressed; None: they are not.
    :ivar fanout: whether each request goes to every server.
    """

    service: str
    uuid: str
    serializer: type[AbstractRpcSerializer] | AbstractRpcSerializer
    delivery_mode: int = PERSISTENT
    queue_arguments: QueueArguments = ()
    request_queue_arguments: QueueArguments = ()
    compression: str | None = None
    compress_threshold: int = 0
    fanout: bool = False


class Source(Struct, frozen=True):
    """A queue that a server takes requests from.

    :ivar queue: its name.
    :ivar records: what must be on the broker for it, in this order.
    :ivar function: the function that all requests in it are for; None: each says so itself.
    :ivar prefetch: how many unacked requests to have at once; None: as many as the server takes.
    """

    queue: str
    records: tuple[Record, ...]
    function: str | None = None
    prefetch: int | None = None


class ServerSide(ABC):
    """A dialect as a server of one service speaks it.

    :ivar functions: names of the functions that are offered by `function_sources`; None: all.
    :ivar unique_ids: whether nobody but the sender of a request ever uses its id again, so that a second request of the
        same id and reply_to is a repeat of the first.
    :ivar shared: whether other servers take requests from the same queues.
    :ivar keeps_dead_letters: whether what is rejected is kept in the service's queue of dead letters. Otherwise it is
        the broker's to drop, or to dead-letter where the queue says so.
    """

    functions: frozenset[str] | None = None
    unique_ids = False
    shared = True
    keeps_dead_letters = False

    def sources(self) -> list[Source]:
        """The queues that requests for the service come from, whatever function they are for."""
        return []

    def function_sources(self, function: str, options: FunctionOptions) -> list[Source]:
        """The queues that requests for one function come from."""
        return []

    def is_task(self, properties: Properties) -> bool:
        """Whether a request without a reply_to is one that wants no answer."""
        return False

    def return_address(self, properties: Properties) -> tuple[str | None, str | None]:
        """Id and reply_to of a message, even of one that holds no request: so that its sender can be told."""
        return properties.get('correlation_id'), properties.get('reply_to')

    @abstractmethod
    def decode_request(self, properties: Properties, body: bytes, function: str | None = None) -> Request:
        """The request in a message.

        :param function: of the message's `Source`.
        :raises WrongRequest: there is none in it.
        """

    @abstractmethod
    def encode_reply(self, reply: Reply, request: Properties) -> Encoded:
        """The message for a reply.

        :param request: the properties of the request.
        :raises TypeError: the value cannot be serialised.
        """

    def shorten(self, reply: Encoded) -> Sized:
        """What to remember of a reply, of a length in bytes. A server remembers thousands: the smaller the better."""
        return reply

    def restore(self, shortened: Any, request: Properties) -> Encoded:
        """The reply that was shortened.

        :param request: the properties of a repeat of the request.
        """
        reply: Encoded = shortened
        return reply


class ClientSide(ABC):
    """A dialect as a client of one service speaks it.

    :ivar reply_queue: where replies to this client go.
    :ivar request_exchange: the exchange that queues of one's own are bound to; None: there are none in this dialect.
    """

    reply_queue: Queue
    request_exchange: str | None = None

    @abstractmethod
    def records(self) -> list[Record]:
        """What must be on the broker before a request is sent, in this order."""

    def new_ids(self) -> Callable[[], str]:
        """Makes an id for each request; each such maker has ids of its own."""
        return CountedUuids().next

    @abstractmethod
    def encode_request(self, request: Request, routing_key: str | None) -> Encoded:
        """The message for a request, whose answer is awaited.

        :param routing_key: None: where requests for that function go.
        :raises TypeError: an argument cannot be serialised; the error names it. Or the dialect cannot say such a call.
        """

    def encode_task(self, request: Request, routing_key: str | None) -> Encoded:
        """The message for a request that wants no answer.

        :raises TypeError: as of `encode_request`; or the dialect has no such requests.
        """
        raise TypeError('%s has no requests without an answer: use call' % type(self).__name__)

    def request_id(self, properties: Properties) -> str | None:
        """The id of a request of this client's own."""
        id: str | None = properties.get('correlation_id')
        return id

    def reply_id(self, properties: Properties) -> str | None:
        """The id of the request that a message replies to; None when it says none."""
        return self.request_id(properties)

    @abstractmethod
    def decode_reply(self, properties: Properties, body: bytes) -> Any:
        """The value in a reply.

        :raises RemoteException: the function raised.
        :raises WrongRequest: the server could not make sense of the request.
        :raises NoResult: the request came back, unanswered.
        :raises WrongResult: there is no reply in it.
        """


class Dialect(ABC):
    """One way of doing RPC over AMQP, with its options."""

    @abstractmethod
    def server_side(self, party: Party) -> ServerSide:
        """As a server of a service speaks it.

        :raises ValueError: it does not go with that server.
        """

    @abstractmethod
    def client_side(self, party: Party) -> ClientSide:
        """As a client of a service speaks it.

        :raises ValueError: it does not go with that client.
        """


def check_functions(functions: Collection[str] | None) -> frozenset[str] | None:
    """The names of the functions that a server offers in a dialect; None: all.

    :raises TypeError: it is one name, and no collection of names.
    """
    if isinstance(functions, str):
        raise TypeError('functions must be a collection of names, such as [%r], not one' % functions)
    return None if functions is None else frozenset(functions)


def text_of(value: object, to_text: Callable[[object], str] = str) -> str:
    """The text of an error or of an argument of one, whatever its class does, as UTF-8 can carry it."""
    try:
        text = to_text(value)
    except KeyboardInterrupt:
        raise
    except BaseException:  # the class, or that of an argument, is the user's; and gevent.Timeout is no Exception
        text = '<%s>' % type(value).__name__
    return text.encode(errors='backslashreplace').decode()


def class_name_of(error: Exception) -> str:
    """The class name of an error, which may have come from elsewhere itself."""
    return error.error_type if isinstance(error, RemoteException) else type(error).__name__


def private_reply_queue(party: Party) -> Queue:
    """A reply queue of a client's own, which outlives its connection for a while."""
    # On several nodes when requests are: the results of calls would be gone with its one node.
    name = 'rpc_%s_%s_response' % (party.service, party.uuid)
    return Queue(name, (*party.queue_arguments, ('x-expires', REPLY_QUEUE_EXPIRES)))
