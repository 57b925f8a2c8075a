"""A channel of a client's connection: its life, what is published on it, confirms and transactions.

Consumers and acks are in `amphora.broker.consuming`, exchanges and queues are declared in
`amphora.broker.declarations`; where messages go and wait is `amphora.broker.vhost`'s business.

Source: AMQP 0-9-1, classes channel, basic, confirm and tx; https://www.rabbitmq.com/docs/specification for the
extensions.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from time import monotonic
from typing import TYPE_CHECKING, Any

from pamqp import base, commands

from amphora.amqp import frames
from amphora.amqp.errors import (
    ChannelClosed,
    ChannelNumberError,
    CommandInvalid,
    NotFound,
    NotImplemented_,
    PreconditionFailed,
    UnexpectedFrame,
)
from amphora.broker.assembly import Assembly
from amphora.broker.consuming import HANDLERS as CONSUMING
from amphora.broker.consuming import Consuming
from amphora.broker.declarations import HANDLERS as DECLARATIONS
from amphora.broker.routing import REPLY_TO
from amphora.broker.stored import StoredMessage
from amphora.broker.wire import decode_publish, encode_return, reply_text

if TYPE_CHECKING:
    from amphora.broker.connection import Connection

# Old clients ask for access before anything else; RabbitMQ says yes to all of them. pamqp does not know the class.
_ACCESS_REQUEST, _ACCESS_REQUEST_OK = b'\x00\x1e\x00\x0a', b'\x00\x1e\x00\x0b\x00\x01'

_NO_ROUTE = 312


class Mode(Enum):
    """What publishing and acking mean on a channel; once it is not plain it stays as it is."""

    PLAIN = 'plain'
    CONFIRM = 'confirm'
    TX = 'tx'


class Channel:
    """A channel, from ``channel.open`` until it is closed by either side.

    :param connection: its connection.
    :param number: its number there.
    """

    def __init__(self, connection: Connection, number: int) -> None:
        self.connection = connection
        self.vhost = connection.vhost
        self.id = number
        #: the queue declared last: an empty name stands for it
        self.last_queue = ''
        # Closed by this side: until the client has said so too, what it sends is ignored.
        self._closing = False
        self._assembly = Assembly(connection.limits.max_message_size, connection.broker.allowance)
        self.consuming = Consuming(self)
        self._mode = Mode.PLAIN
        # Confirms: publishes seen, and up to which one the client knows.
        self._published = self._confirmed = 0
        # Transactions: messages that wait for the commit.
        self._held: list[tuple[StoredMessage, bool]] = []

    # -- frames in -----------------------------------------------------------------------------------------------------

    def handle(self, kind: int, payload: bytes) -> None:
        """Take a frame of this channel.

        :raises Closed: what the client did wrong; a `ChannelClosed` is for this channel only.
        """
        if self._closing:
            self._handle_closing(kind, payload)
        elif kind == frames.METHOD:
            name = payload[:4]
            if name == frames.BASIC_PUBLISH:
                self._assembly.begin(payload)
            else:
                self._assembly.check_method()
                if name == frames.BASIC_ACK:
                    tag, bits = frames.decode_ack(payload)
                    self.consuming.on_ack(tag, bits & 1 == 1)
                elif name == _ACCESS_REQUEST:
                    self.connection.write(frames.frame(frames.METHOD, self.id, _ACCESS_REQUEST_OK))
                else:
                    self._on_method(frames.decode_method(payload))
        elif kind == frames.HEADER:
            if self._assembly.header(payload):
                self._on_message()
        elif kind == frames.BODY:
            if self._assembly.body(payload):
                self._on_message()
        elif kind == frames.PART:
            self._assembly.part(payload)
        else:
            raise UnexpectedFrame('a frame of type %d on channel %d' % (kind, self.id))

    def _handle_closing(self, kind: int, payload: bytes) -> None:
        if kind == frames.METHOD and payload[:4] in (_CLOSE, _CLOSE_OK):
            if payload[:4] == _CLOSE:  # both sides closed at the same time
                self.say(commands.Channel.CloseOk)
            else:
                self.connection.forget(self)

    def _on_method(self, method: Any) -> None:
        handler = _HANDLERS.get(type(method))
        if handler is not None:
            handler(self, method)
            return
        consume = CONSUMING.get(type(method))
        if consume is not None:
            consume(self.consuming, method)
            return
        declare = DECLARATIONS.get(type(method))
        if declare is None:
            raise CommandInvalid('unimplemented method %s' % method.name)
        declare(self, method)

    def say(self, method: type[base.Frame], **fields: Any) -> None:
        """Send a method to the client."""
        self.connection.write(frames.encode_method(self.id, method, **fields))

    def answer(self, asked: Any, method: type[base.Frame], **fields: Any) -> None:
        """Send the answer to a method, unless it asked for none."""
        if not getattr(asked, 'nowait', False):
            self.say(method, **fields)

    def queue_name(self, name: str) -> str:
        """The name, or that of the queue declared last.

        :raises NotFound: it is empty and none was.
        """
        if not name and not self.last_queue:
            raise NotFound('no previously declared queue')
        return name or self.last_queue

    # -- publishing ----------------------------------------------------------------------------------------------------

    def _on_message(self) -> None:
        method, header, body = self._assembly.take()
        exchange, routing_key, mandatory, immediate, address = decode_publish(method)
        if immediate:
            raise NotImplemented_('immediate=true')
        connection = self.connection
        connection.has_published()
        message = StoredMessage(exchange, routing_key, header, body, address)
        message.check(connection.user)
        if message.is_answered_at(REPLY_TO):
            if not self.consuming.reply_name:
                raise PreconditionFailed('fast reply consumer does not exist')
            message = message.changed(reply_to=self.consuming.reply_name)
        if self._mode is Mode.TX:
            self.vhost.exchange(exchange)
            connection.broker.allowance.take(message.size)
            message.forget_properties()
            self._held.append((message, mandatory))
            return
        # Counted when it is routed: what ends the channel is not confirmed.
        taken = self._route(message, mandatory)
        if self._mode is Mode.CONFIRM:
            self._published += 1
        self._confirm(taken)

    def _route(self, message: StoredMessage, mandatory: bool) -> bool:
        routed, taken = self.vhost.publish(message, monotonic())
        if mandatory and not routed:
            self.connection.write(encode_return(self.id, _NO_ROUTE, message, self.connection.frame_max))
        return taken

    def _confirm(self, taken: bool) -> None:
        if self._mode is not Mode.CONFIRM:
            return
        if taken:
            # Acked together with those that come in the same piece of the stream.
            self.connection.flush_later(self)
        else:
            self._published -= 1
            self.flush_confirms()
            self._published = self._confirmed = self._published + 1
            self.say(commands.Basic.Nack, delivery_tag=self._published)

    def flush_confirms(self) -> None:
        """Tell the client of the publishes that nobody has told it of yet."""
        count = self._published - self._confirmed
        if count > 0 and not self._closing:
            self._confirmed = self._published
            self.connection.write(frames.encode_ack(self.id, self._published, multiple=count > 1))

    # -- confirms and transactions -------------------------------------------------------------------------------------

    def _on_confirm(self, asked: Any) -> None:
        self._enter(Mode.CONFIRM)
        self.answer(asked, commands.Confirm.SelectOk)

    def _on_tx_select(self, asked: Any) -> None:
        self._enter(Mode.TX)
        self.consuming.transactional = True
        self.say(commands.Tx.SelectOk)

    def _enter(self, mode: Mode) -> None:
        if self._mode not in (Mode.PLAIN, mode):
            raise PreconditionFailed('cannot switch from %s to %s mode' % (self._mode.value, mode.value))
        self._mode = mode

    def _on_commit(self, asked: Any) -> None:
        self._check_tx()
        taken = [self._route(message, mandatory) for message, mandatory in self._take_held()]
        self.consuming.commit()
        if not all(taken):
            raise PreconditionFailed('partial tx completion')
        self.say(commands.Tx.CommitOk)

    def _on_rollback(self, asked: Any) -> None:
        self._check_tx()
        self._take_held()
        self.consuming.rollback()
        self.say(commands.Tx.RollbackOk)

    def _take_held(self) -> list[tuple[StoredMessage, bool]]:
        held, self._held = self._held, []
        self.connection.broker.allowance.give_back(sum(message.size for message, _ in held))
        return held

    def _check_tx(self) -> None:
        if self._mode is not Mode.TX:
            raise PreconditionFailed('channel is not transactional')

    # -- the end -------------------------------------------------------------------------------------------------------

    def _on_open(self, asked: Any) -> None:
        raise ChannelNumberError("second 'channel.open' seen")

    def _on_flow(self, asked: Any) -> None:
        if not asked.active:
            raise NotImplemented_('active=false')
        self.say(commands.Channel.FlowOk, active=True)

    def _on_close(self, asked: Any) -> None:
        self.end()
        self.say(commands.Channel.CloseOk)
        self.connection.forget(self)

    def refuse(self, error: ChannelClosed, class_id: int, method_id: int) -> None:
        """Close the channel because of what the client did; it is gone when the client has said close-ok."""
        self.end()
        self._closing = True
        self.say(
            commands.Channel.Close,
            reply_code=error.code,
            reply_text=reply_text(error),
            class_id=class_id,
            method_id=method_id,
        )

    def end(self) -> None:
        """Cancel the consumers, and give back what was not acked."""
        self.flush_confirms()
        self._assembly.drop()
        self._take_held()
        self.consuming.end()


_CLOSE, _CLOSE_OK = b'\x00\x14\x00\x28', b'\x00\x14\x00\x29'

_HANDLERS: dict[type[base.Frame], Callable[[Channel, Any], None]] = {
    commands.Channel.Open: Channel._on_open,
    commands.Channel.Close: Channel._on_close,
    commands.Channel.Flow: Channel._on_flow,
    commands.Basic.CancelOk: lambda channel, method: None,
    commands.Confirm.Select: Channel._on_confirm,
    commands.Tx.Select: Channel._on_tx_select,
    commands.Tx.Commit: Channel._on_commit,
    commands.Tx.Rollback: Channel._on_rollback,
    commands.Channel.FlowOk: lambda channel, method: None,
}
