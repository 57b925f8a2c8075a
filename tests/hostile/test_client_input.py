"""Bad input to a client: replies that are none, are not its own, or name what they should not; and bad routing keys.

After each, the client's next call has its result at once, over the connection it had.
"""

from __future__ import annotations

import gc
import gzip
import logging
import os
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest

import amphora
from amphora import AmqpRpcClient, NoResult, RemoteException, RpcMsgPackSerializer, WrongRequest, WrongResult
from amphora.compression import compress
from tests.hostile.stranger import CORRELATION_ID, HEADERS, MESSAGE_ID, Stranger, long, nested_table, short
from tests.parties import Client
from tests.waiting import eventually

pytestmark = [pytest.mark.row('client input'), pytest.mark.usefixtures('no_connection_lost')]

GOOD = b'{"result": 5}'


def called(calling: AmqpRpcClient, verb: str) -> Any:
    """A call of `add` under way, which `get` ends."""
    return calling.defer.add(2, 3) if verb == 'defer' else gevent.spawn(calling.call.add, 2, 3)


def outcome(result: Any) -> Exception:
    """What a call has raised."""
    with pytest.raises(Exception) as caught:  # noqa: PT011  # which one is looked at by the caller
        result.get(timeout=5)
    return caught.value


VERBS = pytest.mark.parametrize('verb', ['call', 'defer'])

# -- errors ------------------------------------------------------------------------------------------------------------

ERROR_TYPES = [
    *(
        'os.system',
        'builtins.eval',
        '__import__',
        'subprocess.Popen',
        'amphora.WrongResult',
        '',
        ' ',
        '\0',
        'x' * 100_000,
    ),
    *('SystemExit', 'KeyboardInterrupt', 'GreenletExit', 'GeneratorExit', 'Timeout', 'StopIteration', 'MemoryError'),
    *('WrongResult', 'NoResult', 'NotSent', 'Unroutable', 'QueueFull', 'IgnoreRequest', 'RemoteException', 'AmqpError'),
    *('ConnectionClosed', 'wrongrequest', 'WrongRequest ', 'amphora.errors.WrongRequest', 'RemoteException\nTraceback'),
]


@VERBS
def test_an_error_is_a_remote_exception_whatever_it_calls_itself(
    client: Client, stranger: Stranger, verb: str, tmp_path: Any
) -> None:
    calling = client()
    trace = tmp_path / 'trace'

    for error_type in ERROR_TYPES:
        result = called(calling, verb)
        stranger.reply(stranger.take(), {'exception': {'type': error_type, 'args': [f'touch {trace}']}})
        error = outcome(result)
        assert type(error) is RemoteException
        assert error.error_type == error_type
        assert error.args == (f'touch {trace}',)
        assert not isinstance(error, NoResult)
        assert error_type in str(error)
    assert not trace.exists()

    stranger.check_client_well(calling)


@VERBS
@pytest.mark.parametrize('args', [[], [None], ['no such function', {'a': [1]}], [[[]]], ['x' * 100_000]])
def test_a_wrong_request_is_one_with_any_arguments(
    client: Client, stranger: Stranger, verb: str, args: list[Any]
) -> None:
    calling = client()
    result = called(calling, verb)

    stranger.reply(stranger.take(), {'exception': {'type': 'WrongRequest', 'args': args}})

    error = outcome(result)
    assert type(error) is WrongRequest
    assert list(error.args) == args
    stranger.check_client_well(calling)


# -- malformed replies -------------------------------------------------------------------------------------------------

DEEP = 100_000

MALFORMED = {
    'empty': b'',
    'cut off': GOOD[:-1],
    'not UTF-8': b'{"result": "\xff\xfe"}',
    'UTF-16': GOOD.decode().encode('utf-16'),
    'compressed and not labelled': gzip.compress(GOOD),
    'pickled': pickle.dumps({'result': 5}),
    'MessagePack': b'\x81\xa6result\x05',
    '100,000 brackets': b'{"result": ' + b'[' * DEEP + b']' * DEEP + b'}',
    '100,000 brackets in the arguments': b'{"exception": {"type": "E", "args": ' + b'[' * DEEP + b']' * DEEP + b'}}',
    'an integer of 5,000 digits': b'{"result": %s}' % (b'9' * 5000),
    'NaN': b'{"result": NaN}',
    'Infinity': b'{"result": Infinity}',
    '1e400': b'{"result": 1e400}',
    'half of a surrogate pair': b'{"result": "\\ud800"}',
    'a scalar': b'5',
    'null': b'null',
    'a list': b'[5]',
    'nothing in it': b'{}',
    'both a result and an exception': b'{"result": 5, "exception": {"type": "E", "args": []}}',
    'an exception that is null': b'{"exception": null}',
    'an exception that is a text': b'{"exception": "ValueError"}',
    'an exception without a type': b'{"exception": {"args": []}}',
    'a type that is a number': b'{"exception": {"type": 5, "args": []}}',
    'a type that is null': b'{"exception": {"type": null, "args": []}}',
    'arguments that are a text': b'{"exception": {"type": "E", "args": "text"}}',
    'arguments that are a mapping': b'{"exception": {"type": "E", "args": {"a": 1}}}',
    'a request': b'{"func": "add", "args": [2, 3], "kwargs": {}}',
    'two replies': GOOD + GOOD,
}


@VERBS
@pytest.mark.parametrize('body', MALFORMED.values(), ids=MALFORMED.keys())
def test_a_reply_that_is_none_is_a_wrong_result(client: Client, stranger: Stranger, verb: str, body: bytes) -> None:
    calling = client()
    result = called(calling, verb)

    stranger.reply(stranger.take(), body)

    error = outcome(result)
    assert type(error) is WrongResult
    assert 'malformed reply' in str(error)
    assert len(str(error)) < 400
    stranger.check_client_well(calling)


@VERBS
def test_a_reply_that_is_cut_off_anywhere_is_a_wrong_result(client: Client, stranger: Stranger, verb: str) -> None:
    calling = client()
    whole = b'{"exception": {"type": "ValueError", "args": ["x", -5]}}'

    for size in range(len(whole)):
        result = called(calling, verb)
        stranger.reply(stranger.take(), whole[:size])
        assert type(outcome(result)) is WrongResult

    stranger.check_client_well(calling)


@pytest.mark.parametrize(
    'body',
    [b'', GOOD, b'\x81\xa6result', b'\x81\xa6result\xdd\xff\xff\xff\xff', b'\x81\xa6result' + b'\x91' * DEEP, b'\xc1'],
    ids=['empty', 'JSON', 'cut off', '4,294,967,295 items that do not come', '100,000 arrays', 'no such type'],
)
def test_a_reply_that_is_no_message_pack_is_a_wrong_result(client: Client, stranger: Stranger, body: bytes) -> None:
    result = client(serializer=RpcMsgPackSerializer).defer.add(2, 3)

    stranger.reply(stranger.take(), body)

    assert type(outcome(result)) is WrongResult


class Exploding:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> Any:
        return os._exit, (1,)


LABELS = {
    'a pickle': ({'content_type': 'application/python-pickle'}, pickle.dumps(Exploding()), 'content type'),
    'a pickle that is called JSON': ({'content_type': 'application/json'}, pickle.dumps(Exploding()), 'malformed'),
    'MessagePack': ({'content_type': 'application/msgpack'}, b'\x81\xa6result\x05', 'content type'),
    'good JSON that is called something else': ({'content_type': 'text/plain'}, GOOD, 'content type'),
    'a bomb of gzip': ({'content_encoding': 'gzip'}, gzip.compress(bytes(140_000_000), 1), 'more than 134217728 bytes'),
    'a bomb of zstd': ({'content_encoding': 'zstd'}, compress('zstd', bytes(140_000_000)), 'more than 134217728 bytes'),
    'good JSON that is called gzip': ({'content_encoding': 'gzip'}, GOOD, 'no gzip'),
    'good JSON that is called zstd': ({'content_encoding': 'zstd'}, GOOD, 'no zstd'),
    'an encoding that is unknown': ({'content_encoding': 'br'}, GOOD, 'content encoding'),
    'latin-1': ({'content_encoding': 'latin-1'}, b'{"result": "\xe9"}', 'content encoding'),
}


@VERBS
@pytest.mark.parametrize('label', LABELS)
def test_a_reply_that_is_labelled_as_something_else_is_a_wrong_result(
    client: Client, stranger: Stranger, verb: str, label: str
) -> None:
    properties, body, says = LABELS[label]
    calling = client()
    result = called(calling, verb)

    stranger.reply(stranger.take(), body, **properties)

    error = outcome(result)
    assert type(error) is WrongResult
    assert says in str(error)
    stranger.check_client_well(calling)


@pytest.mark.parametrize(
    'properties',
    [
        {},
        {'content_type': 'application/json; charset=utf-8', 'content_encoding': 'utf-8'},
        {'content_type': '', 'content_encoding': ''},
    ],
    ids=['not at all', 'with more words', 'with none'],
)
def test_a_reply_that_is_labelled_rightly_or_not_at_all_is_read(
    client: Client, stranger: Stranger, properties: dict[str, str]
) -> None:
    result = client().defer.add(2, 3)

    stranger.reply(stranger.take(), GOOD, **properties)

    assert result.get(timeout=5) == 5


def test_malformed_replies_leave_nothing_behind(client: Client, stranger: Stranger, without_collector: None) -> None:
    calling = client()
    size, count = 5_000_000, 12
    body = b'{"result": "' + b'x' * size

    for number in range(count):
        if number == 2:
            before = resident()
        result = calling.defer.add(2, 3)
        stranger.reply(stranger.take(), body)
        assert type(outcome(result)) is WrongResult
        del result

    assert resident() - before < 4 * size
    stranger.check_client_well(calling)


@pytest.fixture
def without_collector() -> Iterator[None]:
    """What waits for the garbage collector is in the memory, too."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def resident() -> int:
    """Bytes of memory that this process takes."""
    with open('/proc/self/statm') as statm:
        return int(statm.read().split()[1]) * os.sysconf('SC_PAGE_SIZE')


# -- properties of replies ---------------------------------------------------------------------------------------------

HEADER_TABLES = {
    'nested 1,000 deep': nested_table(1000),
    'nested 10,000 deep': nested_table(10_000),
    'a name that is not UTF-8': long(short(b'\xff') + b'S' + long(b'\xff')),
    'a moment in a time to come': long(short(b'a') + b'T' + b'\xff' * 8),
}


@pytest.mark.parametrize('table', HEADER_TABLES.values(), ids=HEADER_TABLES.keys())
def test_headers_of_a_reply_are_ignored_whatever_their_shape(client: Client, stranger: Stranger, table: bytes) -> None:
    calling = client()
    result = calling.defer.add(2, 3)
    request = stranger.take()

    stranger.reply_raw(request, HEADERS | MESSAGE_ID, table + short(request.properties['message_id'].encode()), GOOD)

    assert result.get(timeout=5) == 5
    stranger.check_client_well(calling)


# What a reply says of the request it is to, beside its own id.
STRAYS: dict[str, tuple[int, Callable[[bytes], bytes]]] = {
    'no id': (0, lambda id: b''),
    'an empty id': (MESSAGE_ID, lambda id: short(b'')),
    'an id that is not UTF-8': (MESSAGE_ID, lambda id: short(b'\xff\xfe' * 127)),
    'an id with more behind it': (MESSAGE_ID, lambda id: short(id + b' ')),
    'an id in capitals': (MESSAGE_ID, lambda id: short(id.upper() if id != id.upper() else id + b'a')),
    'the id of nobody': (MESSAGE_ID, lambda id: short(id[::-1])),
    'two ids of which the second is right': (
        CORRELATION_ID | MESSAGE_ID,
        lambda id: short(id) + short(b'somebody else'),
    ),
}


@pytest.mark.parametrize('stray', STRAYS)
def test_a_reply_to_nobody_is_dropped_and_counted(
    client: Client, stranger: Stranger, caplog: pytest.LogCaptureFixture, stray: str
) -> None:
    caplog.set_level(logging.DEBUG, 'amphora.client')
    flags, properties = STRAYS[stray]
    calling = client()
    result = calling.defer.add(2, 3)
    request = stranger.take()
    id = request.properties['message_id'].encode()

    for body in (b'{"result": "wrong"}', b'no reply'):
        stranger.reply_raw(request, flags, properties(id), body)

    eventually(lambda: calling.ignored_replies == 2)
    assert not result.ready()
    stranger.reply(request, GOOD)
    assert result.get(timeout=5) == 5
    stranger.check_client_well(calling)
    assert calling.ignored_replies == 2
    for record in caplog.records:
        assert '\n' not in record.getMessage()
        record.getMessage().encode()


def test_a_reply_to_the_call_of_somebody_else_is_dropped_and_counted(client: Client, stranger: Stranger) -> None:
    calling, other = client(), client()
    theirs = other.defer.add(1, 1)
    their_request = stranger.take()
    mine = calling.defer.add(2, 3)
    my_request = stranger.take()

    forged = {**their_request.properties, 'reply_to': calling.uuid}
    their_request.properties.update(forged)
    stranger.reply(their_request, {'result': 'wrong'})

    eventually(lambda: calling.ignored_replies == 1)
    assert not theirs.ready()
    assert not mine.ready()
    stranger.reply(my_request, GOOD)
    assert mine.get(timeout=5) == 5
    their_request.properties['reply_to'] = other.uuid
    stranger.reply(their_request, {'result': 2})
    assert theirs.get(timeout=5) == 2
    assert (calling.ignored_replies, other.ignored_replies) == (1, 0)


def test_a_flood_of_replies_to_nobody_is_dropped_and_leaves_nothing_behind(
    client: Client, stranger: Stranger, full: bool
) -> None:
    count = 20_000 if full else 1000
    calling = client()
    result = calling.defer.add(2, 3)
    request = stranger.take()
    before = resident()

    for number in range(count):
        properties = short(b'%d' % number)
        stranger.reply_raw(request, MESSAGE_ID, properties, b'{"result": "%s"}' % (b'x' * 10_000))

    eventually(lambda: calling.ignored_replies == count, 30)
    assert resident() - before < 30_000_000
    stranger.reply(request, GOOD)
    assert result.get(timeout=5) == 5
    stranger.check_client_well(calling)


# -- routing keys ------------------------------------------------------------------------------------------------------

LONG_KEYS = {
    '256 letters': 'x' * 256,
    '256 bytes of UTF-8': '\N{SNOWMAN}' * 85 + 'x',
    'half a surrogate pair': '\ud800',
}
EACH_KEY = pytest.mark.parametrize('key', LONG_KEYS.values(), ids=LONG_KEYS.keys())


@pytest.fixture(params=['connected', 'not yet connected'])
def calling(request: pytest.FixtureRequest, client: Client, stranger: Stranger) -> AmqpRpcClient:
    if request.param == 'connected':
        made = client()
        stranger.check_client_well(made)
        return made
    return client(autostart=False)


def check_nothing_was_sent(calling: AmqpRpcClient, stranger: Stranger) -> None:
    calling.serve()
    result = calling.defer.last()
    request = stranger.take()
    assert b'last' in request.body
    stranger.reply(request, GOOD)
    assert result.get(timeout=5) == 5


@VERBS
@EACH_KEY
def test_a_routing_key_that_cannot_be_one_is_a_value_error_and_nothing_is_sent(
    calling: AmqpRpcClient, stranger: Stranger, verb: str, key: str
) -> None:
    with pytest.raises(ValueError, match='routing key'):
        getattr(calling, verb)(routing_key=key).add(2, 3)

    check_nothing_was_sent(calling, stranger)


@VERBS
@EACH_KEY
def test_a_tuning_that_gives_such_a_routing_key_is_a_value_error_and_nothing_is_sent(
    calling: AmqpRpcClient, stranger: Stranger, verb: str, key: str
) -> None:
    calling.tune_function('add')(lambda args, kwargs: {'routing_key': key})

    with pytest.raises(ValueError, match='routing key'):
        getattr(calling, verb).add(2, 3)

    check_nothing_was_sent(calling, stranger)


@EACH_KEY
@pytest.mark.parametrize('nowait', [False, True])
def test_a_queue_of_such_a_name_or_key_is_a_value_error_and_nothing_is_declared(
    calling: AmqpRpcClient, stranger: Stranger, key: str, nowait: bool
) -> None:
    label = f'{calling.service_name}_more'

    with pytest.raises(ValueError, match='routing key'):
        calling.create_new_request_queue(label, routing_key=key, nowait=nowait)
    with pytest.raises(ValueError, match='the name of a queue'):
        calling.create_new_request_queue(key, routing_key='more', nowait=nowait)
    with pytest.raises(ValueError, match='the name of a queue'):
        calling.remove_request_queue(key, nowait=nowait)

    check_nothing_was_sent(calling, stranger)
    assert not stranger.exists(f'rpc_{label}_request')


def test_the_longest_routing_key_is_one(client: Client, stranger: Stranger) -> None:
    key = '\N{SNOWMAN}' * 85
    calling = client()
    label = f'{calling.service_name}_more'
    calling.create_new_request_queue(label, routing_key=key)

    result = calling.defer(routing_key=key).add(2, 3)
    stranger.reply(stranger.take(f'rpc_{label}_request'), GOOD)

    assert result.get(timeout=5) == 5
    calling.remove_request_queue(label)


def test_all_of_this_is_amphoras_own_error_or_a_value_error() -> None:
    for error in (WrongResult, WrongRequest, RemoteException):
        assert issubclass(error, amphora.AmphoraError)
        assert not issubclass(error, NoResult)
