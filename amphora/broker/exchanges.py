"""Exchanges: which destinations a message is for, by its routing key and its headers.

Pure: knows nothing of queues beyond that a destination can be put into a dict, and nothing of the network. What an
exchange does when it matches nothing (its alternate exchange) is `amphora.broker.routing`'s business.

Source: AMQP 0-9-1 section 3.1.3 ("Exchange types"), https://www.rabbitmq.com/docs/exchanges.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Any, ClassVar

Arguments = dict[str, Any]
# Destination -> by how many bindings; a dict keeps the order in which they were made.
_Tally = dict[Hashable, int]


class Exchange:
    """An exchange and the bindings that start from it.

    :param name: unique in its virtual host; empty for the default exchange.
    :param durable: told back on redeclaration; this broker keeps nothing on disk.
    :param auto_delete: to be deleted when its last binding is gone.
    :param internal: clients may not publish to it, other exchanges may.
    :param arguments: such as ``alternate-exchange``.
    """

    type: ClassVar[str]

    def __init__(
        self,
        name: str,
        durable: bool = False,
        auto_delete: bool = False,
        internal: bool = False,
        arguments: Arguments | None = None,
    ) -> None:
        self.name = name
        self.durable = durable
        self.auto_delete = auto_delete
        self.internal = internal
        self.arguments = arguments or {}
        alternate = self.arguments.get('alternate-exchange')
        #: name of the exchange that gets what this one cannot route; the default exchange would route nothing of it
        self.alternate: str | None = alternate if isinstance(alternate, str) and alternate else None
        # Destination -> its bindings, each by routing key and frozen arguments.
        self._bindings: dict[Hashable, dict[tuple[str, Hashable], Arguments]] = {}

    def __repr__(self) -> str:
        return '<%s %r>' % (type(self).__name__, self.name)

    @property
    def in_use(self) -> bool:
        """Whether any binding starts here."""
        return bool(self._bindings)

    def destinations(self) -> list[Hashable]:
        """Everything that is bound to this exchange, each once."""
        return list(self._bindings)

    def bind(self, destination: Hashable, routing_key: str, arguments: Arguments | None = None) -> bool:
        """Add a binding; False when there is the same already."""
        arguments = arguments or {}
        bindings = self._bindings.setdefault(destination, {})
        identity = (routing_key, freeze(arguments))
        if identity in bindings:
            return False
        bindings[identity] = arguments
        self._added(destination, routing_key, arguments)
        return True

    def has(self, destination: Hashable, routing_key: str, arguments: Arguments) -> bool:
        """Whether there is such a binding."""
        return (routing_key, freeze(arguments)) in self._bindings.get(destination, {})

    def unbind(self, destination: Hashable, routing_key: str, arguments: Arguments | None = None) -> bool:
        """Remove a binding; False when there is none like it."""
        bindings = self._bindings.get(destination, {})
        removed = bindings.pop((routing_key, freeze(arguments or {})), None)
        if removed is None:
            return False
        if not bindings:
            del self._bindings[destination]
        self._removed(destination, routing_key, removed)
        return True

    def unbind_all(self, destination: Hashable) -> bool:
        """Remove every binding to a destination; False when there is none."""
        bindings = self._bindings.pop(destination, None)
        if bindings is None:
            return False
        for (routing_key, _), arguments in bindings.items():
            self._removed(destination, routing_key, arguments)
        return True

    def match(self, routing_key: str, headers: Mapping[str, Any]) -> Iterable[Hashable]:
        """The destinations a message is for, each once.

        :param headers: the message's headers, empty when it has none.
        """
        raise NotImplementedError

    def _added(self, destination: Hashable, routing_key: str, arguments: Arguments) -> None:
        """Index a binding that was not there before."""

    def _removed(self, destination: Hashable, routing_key: str, arguments: Arguments) -> None:
        """Undo `_added`."""


class DefaultExchange(Exchange):
    """The nameless exchange: a routing key names the queue.

    :param queues: the virtual host's queues by name; looked at anew for each message.
    """

    type = 'direct'

    def __init__(self, queues: Mapping[str, Hashable]) -> None:
        super().__init__('', durable=True)
        self._queues = queues

    def match(self, routing_key: str, headers: Mapping[str, Any]) -> Iterable[Hashable]:
        """See `Exchange`."""
        queue = self._queues.get(routing_key)
        return () if queue is None else (queue,)


class DirectExchange(Exchange):
    """To whatever is bound with exactly the message's routing key."""

    type = 'direct'

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._by_key: dict[str, _Tally] = {}

    def match(self, routing_key: str, headers: Mapping[str, Any]) -> Iterable[Hashable]:
        """See `Exchange`."""
        return self._by_key.get(routing_key, ())

    def _added(self, destination: Hashable, routing_key: str, arguments: Arguments) -> None:
        _count(self._by_key.setdefault(routing_key, {}), destination)

    def _removed(self, destination: Hashable, routing_key: str, arguments: Arguments) -> None:
        tally = self._by_key[routing_key]
        _discount(tally, destination)
        if not tally:
            del self._by_key[routing_key]


class FanoutExchange(Exchange):
    """To whatever is bound."""

    type = 'fanout'

    def match(self, routing_key: str, headers: Mapping[str, Any]) -> Iterable[Hashable]:
        """See `Exchange`."""
        return self._bindings


class TopicExchange(Exchange):
    """To what is bound with a pattern of words: ``*`` stands for one word, ``#`` for any number, also none."""

    type = 'topic'

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._root = _Word()

    def match(self, routing_key: str, headers: Mapping[str, Any]) -> Iterable[Hashable]:
        """See `Exchange`.

        Walks the patterns' common tree with all states at once, so that a pattern of many ``#`` costs no more than its
        length for each word.
        """
        states = _with_hashes({self._root: None})
        for word in routing_key.split('.') if routing_key else ():
            following: dict[_Word, None] = {}
            for state in states:
                if state.is_hash:
                    following[state] = None
                for text in (word, '*'):
                    child = state.children.get(text)
                    # A word of the key that reads '#' or '*' is a word, not a wildcard.
                    if child is not None and (text != '#' or not child.is_hash):
                        following[child] = None
            states = _with_hashes(following)
        return {destination: None for state in states for destination in state.destinations}

    def _added(self, destination: Hashable, routing_key: str, arguments: Arguments) -> None:
        state = self._root
        for word in routing_key.split('.') if routing_key else ():
            state = state.children.setdefault(word, _Word(is_hash=word == '#'))
        _count(state.destinations, destination)

    def _removed(self, destination: Hashable, routing_key: str, arguments: Arguments) -> None:
        path, state = [], self._root
        for word in routing_key.split('.') if routing_key else ():
            path.append((state, word))
            state = state.children[word]
        _discount(state.destinations, destination)
        for parent, word in reversed(path):
            child = parent.children[word]
            if child.destinations or child.children:
                break
            del parent.children[word]


class _Word:
    """A state of a topic exchange's tree: the words of a pattern up to here."""

    __slots__ = ('children', 'destinations', 'is_hash')

    def __init__(self, is_hash: bool = False) -> None:
        self.is_hash = is_hash
        self.children: dict[str, _Word] = {}
        self.destinations: _Tally = {}


def _with_hashes(states: dict[_Word, None]) -> dict[_Word, None]:
    """The states and those that are reached from them without a word."""
    pending = list(states)
    while pending:
        child = pending.pop().children.get('#')
        if child is not None and child not in states:
            states[child] = None
            pending.append(child)
    return states


class HeadersExchange(Exchange):
    """To what is bound with arguments that the message's headers fulfil.

    ``x-match`` says how: ``all`` of them (the default) or ``any``; neither looks at arguments that begin with ``x-``,
    unless it ends in ``-with-x``. An argument without a value is fulfilled by any value.
    """

    type = 'headers'

    def match(self, routing_key: str, headers: Mapping[str, Any]) -> Iterable[Hashable]:
        """See `Exchange`."""
        return [
            destination
            for destination, bindings in self._bindings.items()
            if any(headers_match(arguments, headers) for arguments in bindings.values())
        ]


X_MATCH = ('all', 'any', 'all-with-x', 'any-with-x')


def headers_match(arguments: Mapping[str, Any], headers: Mapping[str, Any]) -> bool:
    """Whether a message's headers fulfil a binding's arguments."""
    how = arguments.get('x-match', 'all')
    wanted = (
        (name, value)
        for name, value in arguments.items()
        if name != 'x-match' and (how.endswith('-with-x') or not name.startswith('x-'))
    )
    fulfilled = (
        name in headers and (value is None or (headers[name] == value and _kind(headers[name]) == _kind(value)))
        for name, value in wanted
    )
    return any(fulfilled) if how.startswith('any') else all(fulfilled)


def _kind(value: Any) -> bool:
    # Python's True equals 1; AMQP's does not.
    return isinstance(value, bool)


def freeze(value: Any) -> Hashable:
    """A field table's value as something that can be compared and put into a dict; order of a table does not count."""
    if isinstance(value, dict):
        return frozenset((name, freeze(each)) for name, each in value.items())
    if isinstance(value, list):
        return tuple(freeze(each) for each in value)
    if isinstance(value, bytearray):
        return bytes(value)
    return type(value), value


def _count(tally: _Tally, destination: Hashable) -> None:
    tally[destination] = tally.get(destination, 0) + 1


def _discount(tally: _Tally, destination: Hashable) -> None:
    tally[destination] -= 1
    if not tally[destination]:
        del tally[destination]


#: exchange type -> its class
TYPES: dict[str, type[Exchange]] = {
    kind.type: kind for kind in (DirectExchange, FanoutExchange, TopicExchange, HeadersExchange)
}
