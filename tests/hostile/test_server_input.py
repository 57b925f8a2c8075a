"""Bad input to a server: everything that somebody who may publish to its exchange could think of.

After each, the server answers a good request at once over the connection it had, and nothing is left in its queue.
"""

from __future__ import annotations

import gzip
import json
import logging
import os
import pickle
import re
import secrets
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import msgspec
import pytest
from gevent import subprocess

from amphora import AmqpRpcServer, IgnoreRequest, RpcMsgPackSerializer
from amphora.amqp import Connection
from amphora.compression import compress
from amphora.dead_letters import DELIVERIES, bury, revive
from amphora.redelivery import count_deliveries
from tests.hostile import victim as victim_module
from tests.hostile.stranger import (
    ADD,
    EXPIRATION,
    HEADERS,
    MESSAGE_ID,
    REPLY_TO,
    Stranger,
    add,
    long,
    nested_table,
    publish_raw,
    short,
)
from tests.parties import Gate, Server
from tests.rabbitmq import RabbitNode
from tests.rpc.peer import as_bytes, body_of
from tests.waiting import eventually

pytestmark = [pytest.mark.row('server input'), pytest.mark.usefixtures('no_connection_lost')]

GOOD = as_bytes(ADD)
MEGABYTE = 1_000_000
# Of the server whose memory is looked at.
PREFETCH = 10
# Bytes of replies that a server remembers at most.
REMEMBERED = 67_108_864


def call(args: bytes = b'[2, 3]', kwargs: bytes = b'{}', func: bytes = b'"add"') -> bytes:
    """A request's body, of parts that may be no JSON."""
    return b'{"func": %s, "args": %s, "kwargs": %s}' % (func, args, kwargs)


# -- bodies ------------------------------------------------------------------------------------------------------------

DEEP = 100_000

NO_REQUEST = {
    'empty': b'',
    'blank': b' \n',
    'not UTF-8': b'\xff\xfe\x00',
    'text that is not UTF-8': call(args=b'["\xff\xfe", 3]'),
    'UTF-16': GOOD.decode().encode('utf-16'),
    'UTF-16, big endian, without its mark': GOOD.decode().encode('utf-16-be'),
    'UTF-32': GOOD.decode().encode('utf-32'),
    'UTF-8 with a mark': b'\xef\xbb\xbf' + GOOD,
    'two requests': GOOD + GOOD,
    'compressed and not labelled': gzip.compress(GOOD),
    'pickled': pickle.dumps(ADD),
    'MessagePack': msgspec.msgpack.encode(ADD),
    '100,000 brackets': b'[' * DEEP,
    '100,000 brackets, closed': b'[' * DEEP + b']' * DEEP,
    '100,000 brackets in the arguments': call(args=b'[' * DEEP + b']' * DEEP),
    '100,000 objects in the keywords': call(kwargs=b'{"a":' * DEEP + b'1' + b'}' * DEEP),
    '100,000 brackets in what is ignored': GOOD[:-1] + b', "more": ' + b'[' * DEEP + b']' * DEEP + b'}',
    'an integer of 5,000 digits': call(args=b'[%s, 3]' % (b'9' * 5000)),
    'NaN': call(args=b'[NaN, 3]'),
    'Infinity': call(args=b'[Infinity, 3]'),
    '-Infinity': call(args=b'[-Infinity, 3]'),
    '1e400': call(args=b'[1e400, 3]'),
    'half of a surrogate pair': call(args=b'["\\ud800", 3]'),
    'half of a surrogate pair in a keyword': call(kwargs=b'{"\\udc00": 3}'),
    'half of a surrogate pair in the name': call(func=b'"\\ud800"'),
    'null': b'null',
    'true': b'true',
    'a number': b'5',
    'a text': b'"add"',
    'a list': b'["add", [2, 3], {}]',
    'nothing in it': b'{}',
    'no name': b'{"args": [2, 3], "kwargs": {}}',
    'no arguments': b'{"func": "add", "kwargs": {}}',
    'no keywords': b'{"func": "add", "args": [2, 3]}',
    'a name that is a number': call(func=b'5'),
    'a name that is a list': call(func=b'["add"]'),
    'a name that is null': call(func=b'null'),
    'arguments that are a mapping': call(args=b'{"x": 2, "y": 3}'),
    'arguments that are a text': call(args=b'"23"'),
    'arguments that are null': call(args=b'null'),
    'keywords that are a list': call(kwargs=b'[]'),
    'keywords that are pairs': call(kwargs=b'[["x", 2], ["y", 3]]'),
    'keywords that are null': call(kwargs=b'null'),
    'a reply': b'{"result": 5}',
    'an error': b'{"exception": {"type": "WrongRequest", "args": []}}',
}


@pytest.mark.parametrize('body', NO_REQUEST.values(), ids=NO_REQUEST.keys())
def test_a_body_that_is_no_request_is_refused(visitor: Stranger, body: bytes) -> None:
    assert 'malformed request' in visitor.refusal(body)

    visitor.check_server_well()


def test_a_request_that_is_cut_off_anywhere_is_refused(visitor: Stranger) -> None:
    for size in range(len(GOOD)):
        visitor.refusal(GOOD[:size])

    visitor.check_server_well()


# What is no MessagePack, or is none that holds a request.
NO_MSGPACK = {
    'empty': b'',
    'JSON': GOOD,
    'an array of 4,294,967,295 items that does not come': b'\x83\xa4func\xa3add\xa4args\xdd\xff\xff\xff\xff',
    'a text of 4,294,967,295 bytes that does not come': b'\x83\xa4func\xdb\xff\xff\xff\xffadd',
    'a mapping of 4,294,967,295 items that does not come': b'\xdf\xff\xff\xff\xff',
    '100,000 arrays': b'\x83\xa4func\xa3add\xa4args' + b'\x91' * DEEP + b'\xc0\xa6kwargs\x80',
    'text that is not UTF-8': b'\x83\xa4func\xa3\xff\xfe\xfd\xa4args\x90\xa6kwargs\x80',
    'a keyword that is a number': b'\x83\xa4func\xa3add\xa4args\x92\x02\x03\xa6kwargs\x81\x01\x02',
    'a type that does not exist': b'\xc1',
    'cut off': msgspec.msgpack.encode(ADD)[:-1],
}


@pytest.mark.parametrize('body', NO_MSGPACK.values(), ids=NO_MSGPACK.keys())
def test_a_body_that_is_no_message_pack_is_refused(server: Server, stranger: Stranger, body: bytes) -> None:
    server(add, serializer=RpcMsgPackSerializer)

    refused = msgspec.msgpack.decode(stranger.ask(body).body)
    well = msgspec.msgpack.decode(stranger.ask(msgspec.msgpack.encode(ADD)).body)

    assert refused['exception']['type'] == 'WrongRequest'
    assert well == {'result': 5}


def test_of_a_key_that_is_there_twice_the_last_counts(server: Server, stranger: Stranger) -> None:
    # RFC 8259 leaves it open; this is what most do, and what matters is that the request is one request.
    server(add, named={'keywords': lambda **kwargs: kwargs})

    twice = b'{"func": "missing", "func": "add", "args": [1], "args": [2, 3], "kwargs": {"x": 1}, "kwargs": {}}'
    assert body_of(stranger.ask(twice)) == {'result': 5}
    twice = call(func=b'"keywords"', args=b'[]', kwargs=b'{"x": 1, "x": 2}')
    assert body_of(stranger.ask(twice)) == {'result': {'x': 2}}

    assert stranger.channel.basic.get(stranger.replies) is None
    stranger.check_server_well()


# -- names of functions, and keywords ----------------------------------------------------------------------------------

NO_FUNCTION = {
    'a class': '__class__',
    'an attribute of the server': 'add_function',
    'a private attribute of the server': '_functions',
    'private': '_private',
    'globals': 'add.__globals__',
    'a call': 'add()',
    'a path': 'amphora.server.AmqpRpcServer',
    'a module': 'os.system',
    'a built-in': 'eval',
    'introspection': 'describe',
    'empty': '',
    'a blank': 'add ',
    'a NUL': 'add\0',
    'another letter that looks the same': '\N{CYRILLIC SMALL LETTER A}dd',
    '1 MB long': 'x' * MEGABYTE,
    '1 MB of what takes six times as much to show': '\0' * MEGABYTE,
    'lines': 'add\nERROR root: all is lost',
}


@pytest.mark.parametrize('name', NO_FUNCTION.values(), ids=NO_FUNCTION.keys())
def test_only_what_was_added_can_be_called_by_exactly_that_name(
    visitor: Stranger, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    text = visitor.refusal({'func': name, 'args': [], 'kwargs': {}})

    assert text.startswith('no function ')
    said = [record.getMessage() for record in caplog.records if record.name == 'amphora.dispatch']
    assert [len(line) < 200 and '\n' not in line for line in said] == [True]
    visitor.check_server_well()


KEYWORDS = [
    *('self', 'cls', '__class__', '__init__', 'func', 'function', 'name', 'args', 'kwargs', 'request', 'id'),
    *('reply_to', 'timeout', 'routing_key', '', ' ', 'a b', 'class', '\0', '\N{SNOWMAN}', 'x' * 10_000),
]


def test_keywords_of_any_name_reach_the_function_and_nobody_else(server: Server, stranger: Stranger) -> None:
    server(add, named={'keywords': lambda **kwargs: kwargs})

    for name in KEYWORDS:
        assert stranger.answer('keywords', kwargs={name: name}) == {'result': {name: name}}
    every = dict.fromkeys(KEYWORDS, 1)
    assert stranger.answer('keywords', kwargs=every) == {'result': every}

    stranger.check_server_well()


@pytest.mark.parametrize('name', ['self', '__class__', 'args', 'function'])
def test_a_keyword_that_the_function_does_not_take_is_its_type_error(
    server: Server, stranger: Stranger, name: str
) -> None:
    class Adder:
        def plus(self, x: int, y: int) -> int:
            return x + y

    server(add, Adder().plus)

    for function in ('add', 'plus'):
        fault = stranger.answer(function, [2, 3], {name: 1})['exception']
        assert fault['type'] == 'TypeError'
        assert function in fault['args'][0]

    stranger.check_server_well()


# -- content types and encodings ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    'content_type',
    [
        *('application/python-pickle', 'application/x-python-serialize', 'application/x-pickle', 'text/plain'),
        *('application/msgpack', 'application/octet-stream', 'application/jsonp', 'json', ';', 'x' * 255),
    ],
)
def test_a_body_of_another_content_type_is_refused_whatever_is_in_it(visitor: Stranger, content_type: str) -> None:
    text = visitor.refusal(ADD, content_type=content_type)

    assert 'content type' in text
    assert content_type[:50] in text
    assert 'application/json' in text
    visitor.check_server_well()


class Exploding:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> Any:
        return os._exit, (1,)


@pytest.mark.parametrize('content_type', [None, 'application/json', 'application/python-pickle'])
def test_a_pickle_is_never_loaded(visitor: Stranger, content_type: str | None) -> None:
    visitor.refusal(pickle.dumps(Exploding()), content_type=content_type)

    visitor.check_server_well()


def test_json_to_a_server_of_message_pack_is_refused(server: Server, stranger: Stranger) -> None:
    server(add, serializer=RpcMsgPackSerializer)

    body = msgspec.msgpack.encode(ADD)
    refused = msgspec.msgpack.decode(stranger.ask(body, content_type='application/json').body)['exception']

    assert refused['type'] == 'WrongRequest'
    assert "'application/json'" in refused['args'][0]
    for content_type in (None, 'application/msgpack'):
        assert msgspec.msgpack.decode(stranger.ask(body, content_type=content_type).body) == {'result': 5}


@pytest.mark.parametrize('content_type', [None, '', 'application/json', 'Application/JSON; charset=utf-8'])
@pytest.mark.parametrize('encoding', [None, '', 'identity', 'utf-8', 'UTF-8', 'binary'])
def test_a_body_that_is_labelled_rightly_or_not_at_all_is_read(
    visitor: Stranger, content_type: str | None, encoding: str | None
) -> None:
    reply = visitor.ask(ADD, content_type=content_type, content_encoding=encoding)

    assert body_of(reply) == {'result': 5}


def bomb(megabytes: int) -> bytes:
    """A request that takes as much once it is decompressed."""
    return call(args=b'[%s, 3]' % (b' ' * megabytes * MEGABYTE))


COMPRESSED = {'deflate': lambda: zlib.compress(bomb(100)), 'br': lambda: bytes(1000), 'latin-1': lambda: GOOD}


@pytest.mark.parametrize('encoding', COMPRESSED)
def test_a_body_of_an_unknown_encoding_is_refused_and_never_decompressed(
    victim: Victim, robber: Stranger, encoding: str
) -> None:
    body = COMPRESSED[encoding]()
    robber.check_server_well()

    with victim.memory() as memory:
        text = robber.refusal(body, content_encoding=encoding)

    assert 'content encoding' in text
    assert encoding in text
    assert memory.growth < 20 * MEGABYTE
    robber.check_server_well()


@pytest.mark.parametrize('encoding', ['gzip', 'zstd'])
def test_a_compressed_body_is_decompressed_up_to_the_size_of_a_message(
    victim: Victim, robber: Stranger, encoding: str
) -> None:
    limit = 134_217_728
    body = compress(encoding, bomb(400))
    robber.check_server_well()

    with victim.memory() as memory:
        text = robber.refusal(body, content_encoding=encoding)

    assert f'more than {limit} bytes' in text
    assert memory.growth < 2.5 * limit
    assert body_of(robber.ask(compress(encoding, GOOD), content_encoding=encoding)) == {'result': 5}
    robber.check_server_well()


@pytest.mark.parametrize('encoding', ['gzip', 'zstd'])
def test_a_compressed_body_that_is_none_is_refused(visitor: Stranger, encoding: str) -> None:
    packed = compress(encoding, GOOD)

    for body in (b'', GOOD, packed[:-3], packed + b'x', packed[:4] + bytes(1000), packed[::-1]):
        assert f'no {encoding}' in visitor.refusal(body, content_encoding=encoding)

    visitor.check_server_well()


# -- properties --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('kind', ['known function', 'unknown function', 'no request'])
@pytest.mark.parametrize(
    'properties',
    [{}, {'message_id': '1'}, {'reply_to': Stranger.me}, {'correlation_id': '1', 'reply_to': Stranger.me}],
    ids=['nothing', 'no reply_to', 'no id', 'no id that is one'],
)
def test_a_request_whose_sender_cannot_be_told_is_dropped_without_running(
    server: Server, stranger: Stranger, caplog: pytest.LogCaptureFixture, kind: str, properties: dict[str, str]
) -> None:
    run: list[int] = []
    server(add, named={'run': lambda: run.append(1)})
    body = {'known function': call(b'[]', func=b'"run"'), 'unknown function': call(func=b'"no"'), 'no request': b'no'}

    stranger.request(body[kind], **properties)

    stranger.check_server_well()
    assert not run
    assert [record for record in caplog.records if 'dropped' in record.getMessage()]


def test_a_reply_address_that_is_not_utf_8_is_none(server: Server, stranger: Stranger) -> None:
    run: list[int] = []
    server(add, named={'run': lambda: run.append(1)})

    stranger.request_raw(REPLY_TO | MESSAGE_ID, short(b'\xff\xfe') + short(b'1'), call(b'[]', func=b'"run"'))

    stranger.check_server_well()
    assert not run


@pytest.mark.parametrize('raw', [b'\xff\xfe' * 127 + b'\x80', b'\x00' * 255, b'\r\n' * 127, b'', b'\xed\xa0\x80'])
def test_an_id_of_any_bytes_comes_back_as_it_is(
    server: Server, stranger: Stranger, caplog: pytest.LogCaptureFixture, raw: bytes
) -> None:
    caplog.set_level(logging.DEBUG)
    serving = server(add, named={'give': object})

    for body in (ADD, ADD, b'no request', {'func': 'give', 'args': [], 'kwargs': {}}):
        # A request of the same id that comes before the reply is confirmed has that reply for its answer.
        eventually(lambda: not serving._native._in_hand)
        stranger.request_raw(REPLY_TO | MESSAGE_ID, short(Stranger.me.encode()) + short(raw), body)
        reply = stranger.take(stranger.replies)
        assert reply.properties['message_id'].encode('utf-8', 'surrogateescape') == raw

    stranger.check_server_well()
    for record in caplog.records:
        if record.name.startswith('amphora'):
            record.getMessage().encode()  # what any log file takes, on one line
            assert '\n' not in record.getMessage()


# What a request bears that has come to grief three times; it runs alone then.
THREE_DELIVERIES = short(b'x-amphora-deliveries') + b'b\x03'

TABLES = {
    'nested 1,000 deep': nested_table(1000),
    'nested 10,000 deep': nested_table(10_000),
    'a name that is not UTF-8': long(short(b'\xff') + b'S' + long(b'\xff')),
    'a name of 255 bytes': long(short(b'\xff' * 255) + b'V'),
    'the same name twice': long(short(b'a') + b'V' + short(b'a') + b't\x01'),
    'an array of arrays': long(short(b'a') + b'A' + long((b'A' + long(b'')) * 10_000)),
    'a moment in a time to come': long(short(b'a') + b'T' + b'\xff' * 8),
    'a decimal of 255 places': long(short(b'a') + b'D\xff' + b'\x80\0\0\0'),
    'a count of deliveries that is none': long(short(b'x-amphora-deliveries') + b'S' + long(b'many')),
    'a count of deliveries below 0': long(short(b'x-amphora-deliveries') + b'l\x80' + bytes(7)),
    'a count of deliveries, and what cannot be sent again': long(THREE_DELIVERIES + short(b'\xff' * 255) + b'V'),
    'a count of deliveries, and 100 levels': long(THREE_DELIVERIES + short(b'a') + b'F' + nested_table(98)),
    'a time to come to live until': long(short(b'x-amphora-deadline') + b'l\x7f' + b'\xff' * 7),
}


@pytest.mark.parametrize('table', TABLES.values(), ids=TABLES.keys())
def test_headers_of_any_shape_are_ignored(visitor: Stranger, table: bytes) -> None:
    visitor.request_raw(
        HEADERS | REPLY_TO | MESSAGE_ID, table + short(Stranger.me.encode()) + short(secrets.token_bytes(8))
    )

    assert body_of(visitor.take(visitor.replies)) == {'result': 5}
    visitor.check_server_well()


def test_headers_that_leave_no_room_for_another_cost_their_own_request_only(
    server: Server, stranger: Stranger, caplog: pytest.LogCaptureFixture
) -> None:
    server(add)
    # The copy of it that is to run alone says when it expires.
    table = long(THREE_DELIVERIES + short(b'a') + b'S' + long(b'x' * 130_990))
    properties = table + short(Stranger.me.encode()) + short(b'60000') + short(b'1')

    stranger.request_raw(HEADERS | REPLY_TO | EXPIRATION | MESSAGE_ID, properties)

    eventually(lambda: [record for record in caplog.records if 'is dropped' in record.getMessage()])
    stranger.check_server_well()


def test_a_request_that_is_passed_on_is_copied_to_nobody_else(server: Server, stranger: Stranger) -> None:
    # Whoever names queues in the header CC has RabbitMQ send each publish to them, too.
    copies = f'{stranger.request_queue}_copies'
    stranger.channel.queue.declare(copies, exclusive=True)
    stranger.channel.queue.bind(copies, stranger.request_exchange, copies)
    run: list[int] = []

    def run_third() -> int:
        run.append(1)
        if len(run) < 3:
            raise IgnoreRequest
        return len(run)

    server(add, run_third)

    request = {'func': 'run_third', 'args': [], 'kwargs': {}}
    answer = stranger.ask(request, headers={'CC': [copies], 'trace': 'kept'})

    assert body_of(answer) == {'result': 3}
    assert stranger.ready(copies) == 1
    stranger.check_server_well()


def test_a_count_of_deliveries_in_what_is_no_headers_is_none() -> None:
    for headers in (None, b'bytes', {}, {DELIVERIES: -1}, {DELIVERIES: 'many'}, {DELIVERIES: 1.5}):
        assert count_deliveries({'headers': headers}) == 0
        assert revive({'headers': headers}) == (None, {})
        assert bury({'headers': headers}, 'queue', 5, 'reason')['headers'][DELIVERIES] == 5


def test_a_request_with_every_property_at_its_limit_is_a_request(visitor: Stranger) -> None:
    longest = 'x' * 255

    reply = visitor.ask(
        ADD,
        priority=255,
        correlation_id=longest,
        timestamp=2**64 - 1,
        type=longest,
        app_id=longest,
        cluster_id=longest,
        expiration='4294967295',
    )

    assert body_of(reply) == {'result': 5}
    visitor.check_server_well()


def test_a_routing_key_of_any_bytes_brings_a_fanout_server_its_request(
    fanout_server: Server, rabbit: RabbitNode, service: str
) -> None:
    serving = fanout_server(add)
    assert serving.wait_ready(10)
    with Connection.from_url(rabbit.url) as connection, connection.channel() as channel:
        replies = channel.queue.declare(exclusive=True).queue
        channel.queue.bind(replies, f'rpc_{service}_response', Stranger.me)
        for body in (GOOD, b'no request', GOOD):
            properties = short(Stranger.me.encode()) + short(b'%d' % id(body))
            publish_raw(channel, f'rpc_{service}_request', b'\xff\xfe', REPLY_TO | MESSAGE_ID, properties, body)
            answer = body_of(eventually(lambda: channel.basic.get(replies, no_ack=True)))
            assert ('exception' in answer) == (body is not GOOD)


# -- where the answer goes ---------------------------------------------------------------------------------------------


def test_an_answer_that_comes_into_a_request_queue_ends_there(
    server: Server, stranger: Stranger, caplog: pytest.LogCaptureFixture
) -> None:
    run: list[int] = []
    server(add, named={'run': lambda: run.append(1)})
    # Whoever may bind can make of the response exchange's keys what he likes.
    stranger.channel.queue.bind(stranger.request_queue, stranger.response_exchange, stranger.request_queue)

    for id in '123':
        stranger.request(call(b'[]', func=b'"run"'), reply_to=stranger.request_queue, message_id=id)

    eventually(lambda: len(dropped(caplog)) == 3)
    stranger.check_server_well()
    assert len(run) == 3
    assert len(dropped(caplog)) == 3


def dropped(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if 'is dropped' in record.getMessage()]


@pytest.mark.parametrize('address', ['its own queue', 'its own exchange', 'another service', 'nothing', 'nobody'])
def test_an_answer_to_where_no_client_is_goes_nowhere(
    server: Server, stranger: Stranger, caplog: pytest.LogCaptureFixture, address: str
) -> None:
    run: list[int] = []
    server(add, named={'run': lambda: run.append(1)})
    addresses = {
        'its own queue': stranger.request_queue,
        'its own exchange': stranger.request_exchange,
        'another service': 'rpc_amphora_request',
        'nothing': '',
        'nobody': 'nobody\nERROR root: all is lost',
    }

    stranger.request(call(b'[]', func=b'"run"'), reply_to=addresses[address], message_id='1')

    eventually(lambda: [record for record in caplog.records if 'is gone' in record.getMessage()])
    stranger.check_server_well()
    assert run == [1]
    assert not [record for record in caplog.records if '\n' in record.getMessage()]


# -- too much ----------------------------------------------------------------------------------------------------------


def test_a_flood_waits_in_the_queue_and_not_in_the_server(
    server: Server, stranger: Stranger, gate: Gate, full: bool
) -> None:
    count = 10_000 if full else 500
    server(add, gate.function(), prefetch=10)
    for number in range(count):
        stranger.request(call(b'[%d]' % number, func=b'"wait"'), reply_to=Stranger.me, message_id=str(number))

    eventually(lambda: stranger.ready() == count - 10, 30)
    assert len(gate.entered) == 10

    gate.open()
    answered = [body_of(stranger.take(stranger.replies))['result'] for _ in range(count)]
    assert sorted(answered) == list(range(count))
    stranger.check_server_well()


@pytest.mark.limit(60, full=120)
def test_the_memory_that_a_flood_takes_is_that_of_the_prefetch(victim: Victim, robber: Stranger, full: bool) -> None:
    size, count = MEGABYTE, 1000 if full else 200
    body = call(b'["%s"]' % (b'x' * size), func=b'"size"')
    robber.check_server_well()

    with victim.memory() as memory:
        for number in range(count):
            robber.request(body, reply_to=Stranger.me, message_id=str(number))
        answers = [body_of(robber.take(robber.replies)) for _ in range(count)]

    assert answers == [{'result': size}] * count
    # Of each: what comes in pieces, the whole, and the text in it.
    assert memory.growth < (3 * PREFETCH + 20) * size
    robber.check_server_well()


QUOTED = 'a keyword of 1 MB'
LARGE = {
    '100,000 brackets': call(args=b'[' * DEEP + b']' * DEEP),
    'a name of 1 MB': call(func=b'"%s"' % (b'x' * MEGABYTE)),
    QUOTED: call(kwargs=b'{"%s": 1}' % (b'x' * MEGABYTE)),
    'an integer of 1 MB': call(args=b'[%s, 3]' % (b'9' * MEGABYTE)),
    '1 MB of what is ignored': GOOD[:-1] + b', "more": [%s0]}' % (b'0,' * (MEGABYTE // 2)),
    '1 MB that is no JSON': bytes(MEGABYTE),
}


@pytest.mark.parametrize('large', LARGE)
def test_what_is_large_leaves_nothing_behind(victim: Victim, robber: Stranger, full: bool, large: str) -> None:
    body = LARGE[large]
    for _ in range(5):
        robber.ask(body)

    with victim.memory() as memory:
        for _ in range(200 if full else 50):
            robber.ask(body)

    # An error that quotes what was sent is remembered with the rest of its reply, for a repeat of the request; and what
    # comes and goes in such sizes leaves gaps.
    assert memory.growth < 20 * MEGABYTE + (2.5 * REMEMBERED if large == QUOTED else 0)
    robber.check_server_well()


def test_a_result_above_the_limit_is_an_error_and_its_memory_is_given_back(
    victim: Victim, robber: Stranger, full: bool
) -> None:
    robber.check_server_well()
    size = 200 * MEGABYTE

    with victim.memory() as memory:
        for _ in range(5 if full else 2):
            kind, args = robber.error('give', size)
            assert kind == 'ValueError'
            assert re.search(r'the result takes 200\d{6} bytes; a message holds at most 134217728', args[0])

    # The result, and the bytes it is encoded to: those grow by halves.
    assert memory.growth < 5 * size
    assert memory.left < 20 * MEGABYTE
    robber.check_server_well()


# -- functions that go wrong -------------------------------------------------------------------------------------------


class HostileError(Exception):
    """Nothing about it works."""

    def __str__(self) -> str:
        raise RuntimeError('no text')

    __repr__ = __str__


class WithoutArgs(Exception):
    @property
    def args(self) -> Any:  # type: ignore[override]
        raise RuntimeError('no arguments')


class QuietlyWithoutArgs(BaseException):
    @property
    def args(self) -> Any:  # type: ignore[override]
        raise RuntimeError('no arguments')


def recurse() -> Any:
    return recurse()


def raising(error: Any) -> Callable[[], None]:
    def function() -> None:
        raise error

    return function


CYCLE: list[Any] = []
CYCLE.append(CYCLE)

DEEP_LIST: list[Any] = []
for _ in range(DEEP):
    DEEP_LIST = [DEEP_LIST]

# A function, and the class of the error that its caller gets.
GOING_WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    'returns an object': (object, 'TypeError'),
    'returns a function': (lambda: add, 'TypeError'),
    'returns NaN': (lambda: float('nan'), 'ValueError'),
    'returns Infinity in a list': (lambda: [1, {'a': float('inf')}], 'ValueError'),
    'returns half of a surrogate pair': (lambda: '\ud800', 'ValueError'),
    'returns what refers to itself': (lambda: CYCLE, 'ValueError'),
    'returns 100,000 nested lists': (lambda: DEEP_LIST, 'ValueError'),
    'raises a class': (raising(KeyError), 'KeyError'),
    'raises an object': (raising(ValueError(object())), 'ValueError'),
    'raises NaN': (raising(ValueError(float('nan'))), 'ValueError'),
    'raises what refers to itself': (raising(ValueError(CYCLE)), 'ValueError'),
    'raises 100,000 nested lists': (raising(ValueError(DEEP_LIST)), 'ValueError'),
    'raises what has no text': (raising(HostileError(HostileError())), 'HostileError'),
    'raises what has no arguments': (raising(WithoutArgs('a')), 'WithoutArgs'),
    'raises quietly what has no arguments': (raising(QuietlyWithoutArgs('a')), 'QuietlyWithoutArgs'),
    'raises what has a name of 10,000 letters': (raising(type('E' * 10_000, (Exception,), {})()), 'E' * 10_000),
    'raises what has half of a surrogate pair in it': (raising(ValueError('\ud800')), 'ValueError'),
    'raises no exception': (raising(5), 'TypeError'),
    'calls itself without end': (recurse, 'RecursionError'),
    'runs out of memory': (raising(MemoryError()), 'MemoryError'),
    'raises StopIteration': (raising(StopIteration(1)), 'StopIteration'),
    'raises GeneratorExit': (raising(GeneratorExit()), 'GeneratorExit'),
    'raises SystemExit': (raising(SystemExit(1)), 'SystemExit'),
    'exits': (sys.exit, 'SystemExit'),
    'raises GreenletExit': (raising(gevent.GreenletExit()), 'GreenletExit'),
    'raises gevent.Timeout': (raising(gevent.Timeout(5)), 'Timeout'),
    'raises a gevent.Timeout of its own': (lambda: gevent.with_timeout(0.01, gevent.sleep, 10), 'Timeout'),
}


@pytest.mark.parametrize('going_wrong', GOING_WRONG)
def test_a_function_that_goes_wrong_costs_its_own_call_only(
    server: Server, stranger: Stranger, going_wrong: str
) -> None:
    function, expected = GOING_WRONG[going_wrong]
    server(add, named={'go': function})

    kind, args = stranger.error('go')

    assert kind == expected
    assert 'Traceback' not in json.dumps(args)
    stranger.check_server_well()


@pytest.mark.parametrize('shown', [False, True])
def test_a_timeout_that_a_function_leaves_behind_ends_no_other_call(
    server: Server, stranger: Stranger, shown: bool
) -> None:
    left: list[gevent.Timeout] = []

    def leave() -> None:
        left.append(gevent.Timeout.start_new(0.05))

    server(add, leave, fresh_greenlets=shown)

    for _ in range(20):
        assert stranger.answer('leave') == {'result': None}
    eventually(lambda: not any(timeout.pending for timeout in left))

    stranger.check_server_well()


def test_an_interrupt_reaches_the_program_and_the_request_is_given_back(server: Server, stranger: Stranger) -> None:
    runs: list[int] = []

    def interrupt() -> int:
        runs.append(1)
        if len(runs) == 1:
            raise KeyboardInterrupt
        return len(runs)

    server(add, interrupt)
    stranger.request({'func': 'interrupt', 'args': [], 'kwargs': {}}, reply_to=Stranger.me, message_id='1')

    with pytest.raises(KeyboardInterrupt):
        eventually(lambda: False)

    assert body_of(stranger.take(stranger.replies)) == {'result': 2}
    stranger.check_server_well()


def test_deep_arguments_of_a_call_that_raises_are_logged_as_far_as_they_go(
    server: Server, stranger: Stranger, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server(add, named={'fail': raising_anything})

    for depth in range(800, 1100, 3):
        body = call(args=b'[' * depth + b']' * depth, func=b'"fail"')
        assert 'exception' in body_of(stranger.ask(body))

    stranger.check_server_well()


def raising_anything(*args: Any) -> None:
    raise ValueError('no')


# -- servers that stand as long as the tests of this file --------------------------------------------------------------


@pytest.fixture(scope='module')
def standing(rabbit: RabbitNode) -> Iterator[str]:
    """The service of a server of `add`."""
    server = AmqpRpcServer(f'standing-{secrets.token_hex(3)}', amqp_url=rabbit.url)
    server.add_function(add)
    server.serve()
    yield server.service_name
    server.stop()


@pytest.fixture
def visitor(rabbit: RabbitNode, standing: str) -> Iterator[Stranger]:
    """A stranger to that server."""
    with Connection.from_url(rabbit.url) as connection:
        yield Stranger(connection, standing)


class Memory:
    """What a process takes while something happens.

    :ivar growth: bytes by which it grew in between, at most.
    :ivar left: bytes by which it has grown in the end.
    """

    growth = left = 0

    def __init__(self, pid: int) -> None:
        self._status = Path(f'/proc/{pid}/status')
        self._peak_reset = Path(f'/proc/{pid}/clear_refs')

    def __enter__(self) -> Memory:
        self._peak_reset.write_text('5')
        self._before = self._read('VmRSS')
        return self

    def __exit__(self, *_: object) -> None:
        self.growth = self._read('VmHWM') - self._before
        self.left = self._read('VmRSS') - self._before

    def _read(self, name: str) -> int:
        found = re.search(rf'^{name}:\s+(\d+) kB', self._status.read_text(), re.MULTILINE)
        assert found is not None
        return int(found[1]) * 1024


class Victim:
    """A `victim` process."""

    def __init__(self, url: str) -> None:
        self.service = f'victim-{secrets.token_hex(3)}'
        command = [sys.executable, '-m', victim_module.__name__, self.service, str(PREFETCH)]
        environ = {**os.environ, 'AMPHORA_AMQP_URL': url}
        # What it logs is of the size of what it is sent.
        self._process = subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert self._process.stdout.readline() == b'up\n'

    def memory(self) -> Memory:
        return Memory(self._process.pid)

    def end(self) -> None:
        self._process.terminate()
        self._process.wait(timeout=10)


@pytest.fixture(scope='module')
def victim(rabbit: RabbitNode) -> Iterator[Victim]:
    made = Victim(rabbit.url)
    yield made
    made.end()


@pytest.fixture
def robber(rabbit: RabbitNode, victim: Victim) -> Iterator[Stranger]:
    """A stranger at the victim's door."""
    with Connection.from_url(rabbit.url) as connection:
        yield Stranger(connection, victim.service)
