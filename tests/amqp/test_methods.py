"""channel.exchange, .queue, .basic, .confirm and .tx: that each method, and each of its flags, does what it says."""

from __future__ import annotations

from datetime import datetime, timezone
from decimal import Decimal
from typing import Any

import pytest
from gevent.event import AsyncResult
from gevent.queue import SimpleQueue

from amphora.amqp import Channel, Connection, Message, NotFound, PreconditionFailed, ResourceLocked
from amphora.amqp.errors import AccessRefused, NotImplemented_
from tests.waiting import eventually


def send(channel: Channel, queue: str, *bodies: str) -> None:
    for body in bodies:
        channel.basic.publish(Message(body), routing_key=queue)


def take(channel: Channel, queue: str) -> str | None:
    message = channel.basic.get(queue, no_ack=True)
    return None if message is None else message.body.decode()


# -- exchange ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('type_', 'key', 'arguments', 'reached'),
    [
        ('direct', 'red.box', None, True),
        ('direct', 'red.bag', None, False),
        ('fanout', 'anything', None, True),
        ('topic', 'red.bag', None, True),
        ('topic', 'blue.box', None, False),
        ('headers', '', {'colour': 'red'}, True),
        ('headers', '', {'colour': 'blue'}, False),
    ],
)
def test_an_exchange_routes_as_its_type_says(
    channel: Channel, queue: str, type_: str, key: str, arguments: dict[str, Any] | None, reached: bool
) -> None:
    channel.exchange.declare(queue, type_, auto_delete=True)
    bound = {'direct': 'red.box', 'topic': 'red.*'}.get(type_, '')
    channel.queue.bind(queue, queue, bound, arguments={'x-match': 'all', 'colour': 'red'})

    channel.basic.publish(Message('hello', headers=arguments), queue, key)

    assert take(channel, queue) == ('hello' if reached else None)


@pytest.mark.parametrize(
    'flags',
    [
        {'durable': True},
        {'auto_delete': True},
        {'internal': True},
        {'type': 'topic'},
        {'arguments': {'alternate-exchange': 'amq.fanout'}},
    ],
    ids=lambda flags: next(iter(flags)),
)
def test_each_property_of_an_exchange_reaches_the_broker(
    connection: Connection, channel: Channel, service: str, flags: dict[str, Any]
) -> None:
    channel.exchange.declare(service, **flags)
    channel.exchange.declare(service, **flags)

    with pytest.raises(PreconditionFailed, match='inequivalent arg'):
        connection.channel().exchange.declare(service)
    channel.exchange.delete(service)


def test_a_passive_declaration_makes_no_exchange(connection: Connection, channel: Channel, service: str) -> None:
    with pytest.raises(NotFound, match='no exchange'):
        connection.channel().exchange.declare(service, passive=True)

    channel.exchange.declare(service, auto_delete=True)

    channel.exchange.declare(service, passive=True)


def test_a_deleted_exchange_is_gone_and_deleting_it_again_is_no_error(channel: Channel, service: str) -> None:
    channel.exchange.declare(service)
    channel.exchange.delete(service)
    channel.exchange.delete(service)

    with pytest.raises(NotFound):
        channel.exchange.declare(service, passive=True)


def test_an_exchange_in_use_is_not_deleted_if_unused(connection: Connection, channel: Channel, queue: str) -> None:
    channel.exchange.declare(queue)
    channel.queue.bind(queue, queue)

    with pytest.raises(PreconditionFailed, match='in use'):
        connection.channel().exchange.delete(queue, if_unused=True)

    channel.queue.unbind(queue, queue)
    channel.exchange.delete(queue, if_unused=True)


def test_exchanges_can_be_bound_to_each_other_and_unbound(channel: Channel, queue: str) -> None:
    source = queue + '.source'
    channel.exchange.declare(source, auto_delete=True)
    channel.exchange.declare(queue, 'fanout', auto_delete=True)
    channel.queue.bind(queue, queue)

    channel.exchange.bind(destination=queue, source=source, routing_key='a')
    channel.exchange.bind(destination=queue, source=source, routing_key='b')
    channel.exchange.unbind(destination=queue, source=source, routing_key='a')
    channel.basic.publish(Message('unbound'), source, 'a')
    channel.basic.publish(Message('bound'), source, 'b')

    assert [take(channel, queue), take(channel, queue)] == ['bound', None]


def test_exchange_bindings_carry_arguments(channel: Channel, queue: str) -> None:
    source = queue + '.source'
    channel.exchange.declare(source, 'headers', auto_delete=True)
    channel.exchange.declare(queue, 'fanout', auto_delete=True)
    channel.queue.bind(queue, queue)
    red = {'colour': 'red'}
    blue = {'colour': 'blue'}
    for arguments in (red, blue):
        channel.exchange.bind(queue, source, arguments=arguments)
    channel.exchange.unbind(queue, source, arguments=red)

    channel.basic.publish(Message('red', headers=red), source)
    channel.basic.publish(Message('blue', headers=blue), source)

    assert [take(channel, queue), take(channel, queue)] == ['blue', None]


def test_methods_of_exchange_with_nowait_work_and_wait_for_nothing(channel: Channel, queue: str) -> None:
    source = queue + '.source'
    channel.exchange.declare(source, auto_delete=True, nowait=True)
    channel.exchange.declare(queue, auto_delete=True, nowait=True)
    channel.exchange.bind(queue, source, 'a', nowait=True)
    channel.exchange.bind(queue, source, 'b', nowait=True)
    channel.exchange.unbind(queue, source, 'b', nowait=True)
    channel.queue.bind(queue, queue, 'a', nowait=True)
    channel.queue.bind(queue, queue, 'b', nowait=True)
    for key in 'ba':
        channel.basic.publish(Message(key), source, key)
    assert [take(channel, queue), take(channel, queue)] == ['a', None]

    channel.exchange.delete(source, nowait=True)

    with pytest.raises(NotFound):
        channel.exchange.declare(source, passive=True)


# -- queue -------------------------------------------------------------------------------------------------------------


def test_a_declared_queue_says_its_name_its_messages_and_its_consumers(channel: Channel, queue: str) -> None:
    send(channel, queue, 'one', 'two')
    eventually(lambda: channel.queue.declare(queue, passive=True) == (queue, 2, 0))
    other = channel.queue.declare(queue + '.other', exclusive=True)
    assert other == (queue + '.other', 0, 0)

    channel.basic.consume(queue + '.other', lambda message: None)

    assert channel.queue.declare(queue + '.other', passive=True) == (queue + '.other', 0, 1)


def test_the_broker_names_a_queue_that_was_given_no_name(channel: Channel) -> None:
    first = channel.queue.declare(exclusive=True)
    second = channel.queue.declare(exclusive=True)
    assert first is not None
    assert second is not None
    assert first.queue.startswith('amq.gen-')
    assert first.queue != second.queue

    send(channel, first.queue, 'hello')

    assert take(channel, first.queue) == 'hello'


@pytest.mark.parametrize(
    'flags',
    [{'durable': True}, {'auto_delete': True}, {'exclusive': True}, {'arguments': {'x-max-length': 5}}],
    ids=lambda flags: next(iter(flags)),
)
def test_each_property_of_a_queue_reaches_the_broker(
    connection: Connection, channel: Channel, service: str, flags: dict[str, Any]
) -> None:
    channel.queue.declare(service, **flags)
    channel.queue.declare(service, **flags)

    with pytest.raises((PreconditionFailed, ResourceLocked), match=r'inequivalent arg|exclusive'):
        connection.channel().queue.declare(service)
    channel.queue.delete(service)


def test_a_passive_declaration_makes_no_queue(channel: Channel, service: str) -> None:
    with pytest.raises(NotFound, match='no queue'):
        channel.queue.declare(service, passive=True)


def test_queue_bindings_carry_arguments_and_can_be_undone(channel: Channel, queue: str) -> None:
    channel.exchange.declare(queue, 'headers', auto_delete=True)
    red, blue = {'colour': 'red'}, {'colour': 'blue'}
    for arguments in (red, blue):
        channel.queue.bind(queue, queue, arguments=arguments)
    channel.queue.unbind(queue, queue, arguments=red)

    channel.basic.publish(Message('red', headers=red), queue)
    channel.basic.publish(Message('blue', headers=blue), queue)

    assert [take(channel, queue), take(channel, queue)] == ['blue', None]


def test_a_binding_is_undone_by_its_routing_key(channel: Channel, queue: str) -> None:
    for key in 'ab':
        channel.queue.bind(queue, 'amq.direct', queue + key)
    channel.queue.unbind(queue, 'amq.direct', queue + 'a')

    for key in 'ab':
        channel.basic.publish(Message(key), 'amq.direct', queue + key)

    assert [take(channel, queue), take(channel, queue)] == ['b', None]


def test_binding_to_what_is_not_there_says_so(channel: Channel, queue: str) -> None:
    with pytest.raises(NotFound, match='no exchange'):
        channel.queue.bind(queue, 'no.such.exchange')


def test_purge_and_delete_say_how_many_messages_went(channel: Channel, queue: str) -> None:
    send(channel, queue, 'one', 'two', 'three')
    assert channel.queue.purge(queue) == 3
    assert take(channel, queue) is None

    send(channel, queue, 'four')

    assert channel.queue.delete(queue) == 1
    assert channel.queue.delete(queue) == 0


def test_a_queue_in_use_or_with_messages_is_spared_when_asked(
    connection: Connection, channel: Channel, queue: str
) -> None:
    send(channel, queue, 'one')
    with pytest.raises(PreconditionFailed, match='not empty'):
        connection.channel().queue.delete(queue, if_empty=True)
    tag = channel.basic.consume(queue, lambda message: None, no_ack=True)
    with pytest.raises(PreconditionFailed, match='in use'):
        connection.channel().queue.delete(queue, if_unused=True)

    channel.basic.cancel(tag)

    assert channel.queue.delete(queue, if_unused=True, if_empty=True) == 0


def test_methods_of_queue_with_nowait_work_and_give_none(channel: Channel, service: str) -> None:
    assert channel.queue.declare(service, auto_delete=True, nowait=True) is None
    send(channel, service, 'one')
    eventually(lambda: channel.queue.declare(service, passive=True) == (service, 1, 0))
    assert channel.queue.purge(service, nowait=True) is None
    assert channel.queue.declare(service, passive=True) == (service, 0, 0)
    assert channel.queue.delete(service, nowait=True) is None
    with pytest.raises(NotFound):
        channel.queue.declare(service, passive=True)


# pamqp's own encoder refuses all of these.
@pytest.mark.parametrize('name', ['café ☃', 'a*b(c)d', '"quoted"', 'x' * 255, 'ü' * 127])
def test_any_name_of_255_bytes_of_utf8_works(channel: Channel, name: str) -> None:
    assert channel.queue.declare(name, exclusive=True) == (name, 0, 0)
    channel.exchange.declare(name, auto_delete=True)
    channel.queue.bind(name, name, name)

    channel.basic.publish(Message('hello'), name, name)

    message = channel.basic.get(name)
    assert message is not None
    assert message.delivery_info is not None
    assert (message.delivery_info.exchange, message.delivery_info.routing_key) == (name, name)
    channel.queue.delete(name)


def test_a_name_that_is_too_long_is_refused_here_and_costs_nothing(channel: Channel, queue: str) -> None:
    with pytest.raises(ValueError, match=r'queue .* is 256 bytes long; AMQP allows 255'):
        channel.queue.declare('ü' * 128)
    with pytest.raises(ValueError, match='routing key is 256 bytes long'):
        channel.basic.publish(Message('hello'), routing_key='x' * 256)

    assert channel.queue.declare(queue, passive=True) == (queue, 0, 0)


# -- basic -------------------------------------------------------------------------------------------------------------


def test_get_gives_the_message_how_it_came_and_how_many_remain(channel: Channel, queue: str) -> None:
    send(channel, queue, 'one', 'two')

    message = channel.basic.get(queue)

    assert message is not None
    assert message.delivery_info is not None
    info = message.delivery_info
    assert message.body == b'one'
    assert (info.delivery_tag, info.redelivered, info.exchange, info.routing_key) == (1, False, '', queue)
    assert (info.message_count, info.consumer_tag) == (1, '')


def test_get_from_an_empty_queue_gives_none(channel: Channel, queue: str) -> None:
    assert channel.basic.get(queue) is None


def test_a_message_with_an_empty_body_is_a_message(channel: Channel, queue: str) -> None:
    channel.basic.publish(Message(), routing_key=queue)
    message = channel.basic.get(queue)
    assert message
    assert message.body == b''


@pytest.mark.parametrize('no_ack', [False, True])
def test_what_was_got_returns_to_the_queue_with_its_channel_unless_it_needs_no_ack(
    connection: Connection, channel: Channel, queue: str, no_ack: bool
) -> None:
    send(channel, queue, 'one')
    with connection.channel() as other:
        assert eventually(lambda: other.basic.get(queue, no_ack=no_ack))

    message = channel.basic.get(queue)

    if no_ack:
        assert message is None
    else:
        assert message is not None
        assert message.delivery_info is not None
        assert message.delivery_info.redelivered is True


@pytest.mark.parametrize(
    ('settle', 'remain'),
    [
        (lambda basic: basic.ack(2), ['one', 'three']),
        (lambda basic: basic.ack(2, multiple=True), ['three']),
        (lambda basic: basic.nack(2, requeue=False), ['one', 'three']),
        (lambda basic: basic.nack(2), ['one', 'two', 'three']),
        (lambda basic: basic.nack(2, multiple=True, requeue=False), ['three']),
        (lambda basic: basic.reject(2, requeue=False), ['one', 'three']),
        (lambda basic: basic.reject(2), ['one', 'two', 'three']),
    ],
    ids=['ack', 'ack multiple', 'nack drop', 'nack', 'nack multiple drop', 'reject drop', 'reject'],
)
def test_acks_nacks_and_rejects_settle_what_they_name(
    connection: Connection, channel: Channel, queue: str, settle: Any, remain: list[str]
) -> None:
    send(channel, queue, 'one', 'two', 'three')
    with connection.channel() as other:
        for _ in range(3):
            assert eventually(lambda: other.basic.get(queue))
        settle(other.basic)

    assert [take(channel, queue) for _ in remain] == remain
    assert take(channel, queue) is None


def test_recover_brings_everything_unacked_again(channel: Channel, queue: str) -> None:
    send(channel, queue, 'one')
    channel.basic.get(queue)
    assert channel.basic.get(queue) is None

    channel.basic.recover()

    again = channel.basic.get(queue)
    assert again is not None
    assert again.delivery_info is not None
    assert again.delivery_info.redelivered is True


def test_recover_without_requeue_is_refused_by_rabbitmq(connection: Connection) -> None:
    with pytest.raises(NotImplemented_, match='540'):
        connection.channel().basic.recover(requeue=False)


def test_qos_limits_unacked_deliveries_of_each_consumer(channel: Channel, queue: str) -> None:
    channel.basic.qos(prefetch_count=2)
    deliveries: SimpleQueue[Message] = SimpleQueue()
    tags = [channel.basic.consume(queue, deliveries.put, direct=True) for _ in range(2)]
    send(channel, queue, *'abcdef')

    got = [deliveries.get(timeout=5) for _ in range(4)]
    # The answer comes behind every delivery that was under way.
    channel.queue.declare(queue, passive=True)

    assert deliveries.empty()
    assert sorted(message.delivery_info.consumer_tag for message in got) == sorted(tags * 2)
    channel.basic.ack(got[-1].delivery_info.delivery_tag, multiple=True)
    assert [deliveries.get(timeout=5).body for _ in range(2)] == [b'e', b'f']


def test_global_qos_limits_the_consumers_of_a_channel_together(channel: Channel, queue: str) -> None:
    channel.basic.qos(prefetch_count=3, is_global=True)
    deliveries: SimpleQueue[Message] = SimpleQueue()
    for _ in range(2):
        channel.basic.consume(queue, deliveries.put, direct=True)
    send(channel, queue, *'abcdef')

    for _ in range(3):
        deliveries.get(timeout=5)
    channel.queue.declare(queue, passive=True)

    assert deliveries.empty()


def test_a_consumer_without_acks_leaves_nothing_behind(connection: Connection, channel: Channel, queue: str) -> None:
    send(channel, queue, 'one')
    with connection.channel() as other:
        got: AsyncResult[Message] = AsyncResult()
        other.basic.consume(queue, got.set, no_ack=True)
        assert got.get(timeout=5).body == b'one'

    assert take(channel, queue) is None


def test_an_exclusive_consumer_keeps_others_out(connection: Connection, channel: Channel, queue: str) -> None:
    channel.basic.consume(queue, lambda message: None, exclusive=True)
    with pytest.raises(AccessRefused, match='exclusive'):
        connection.channel().basic.consume(queue, lambda message: None)


def test_a_consumers_arguments_reach_the_broker(channel: Channel, queue: str) -> None:
    # given a consumer of low priority, which was there first
    deliveries: SimpleQueue[Message] = SimpleQueue()
    low = channel.basic.consume(queue, deliveries.put, direct=True, arguments={'x-priority': -5})
    high = channel.basic.consume(queue, deliveries.put, direct=True, arguments={'x-priority': 5})

    send(channel, queue, *'abcd')

    assert low != high
    assert {deliveries.get(timeout=5).delivery_info.consumer_tag for _ in range(4)} == {high}


def test_consume_with_nowait_delivers_and_cancel_with_nowait_ends_it(channel: Channel, queue: str) -> None:
    got: SimpleQueue[Message] = SimpleQueue()
    tag = channel.basic.consume(queue, got.put, consumer_tag='mine', nowait=True, no_ack=True)
    send(channel, queue, 'one')
    assert tag == 'mine'
    assert got.get(timeout=5).body == b'one'

    channel.basic.cancel(tag, nowait=True)

    assert channel.queue.declare(queue, passive=True).consumer_count == 0
    send(channel, queue, 'two')
    assert take(channel, queue) == 'two'


def test_every_kind_of_header_and_property_arrives_as_it_was_sent(channel: Channel, queue: str) -> None:
    headers = {
        'text': 'ü☃',
        'empty': '',
        'nothing': None,
        'yes': True,
        'no': False,
        'integers': [0, -1, 127, -128, 128, 255, 32767, -32768, 65535, 2**31 - 1, -(2**31), 2**32 - 1, 2**63 - 1],
        'smallest': -(2**63),
        'half': 0.5,
        'decimal': Decimal('3.14'),
        'bytes': bytearray(b'\x00\xff'),
        'when': datetime(2024, 2, 29, 12, 0, 1, tzinfo=timezone.utc),
        'list': ['a', ['b', {'c': 1}], {}],
        'table': {'nested': {'deeper': [1, 'two']}},
        'x' * 128: 'a long name',
    }
    properties = {
        'content_type': 'text/plain',
        'content_encoding': 'utf-8',
        'headers': headers,
        'delivery_mode': 2,
        'priority': 9,
        'correlation_id': 'cörrelation',
        'reply_to': 'r' * 255,
        'expiration': '60000',
        'message_id': '',
        'timestamp': 1700000000,
        'type': 'kind',
        'user_id': 'guest',
        'app_id': 'app',
        'cluster_id': 'cluster',
    }

    channel.basic.publish(Message('hello', **properties), routing_key=queue)

    message = channel.basic.get(queue)
    assert message is not None
    assert message.properties == properties


@pytest.mark.parametrize('number', [0.1, 1e300, -1e-300])
def test_floating_point_headers_keep_every_digit(channel: Channel, queue: str, number: float) -> None:
    channel.basic.publish(Message('hello', headers={'number': number}), routing_key=queue)
    message = channel.basic.get(queue)
    assert message is not None
    assert message.headers == {'number': number}


def test_a_message_that_is_mandatory_and_reaches_a_queue_is_not_returned(channel: Channel, queue: str) -> None:
    returned: list[Message] = []
    channel.return_listeners.append(returned.append)

    channel.basic.publish(Message('hello'), routing_key=queue, mandatory=True)

    assert take(channel, queue) == 'hello'
    assert returned == []


def test_a_message_that_is_not_mandatory_may_vanish(channel: Channel, queue: str) -> None:
    returned: list[Message] = []
    channel.return_listeners.append(returned.append)

    channel.basic.publish(Message('hello'), routing_key='no.such.queue')

    assert channel.queue.declare(queue, passive=True) == (queue, 0, 0)
    assert returned == []


@pytest.mark.parametrize('tag', [-1, 2**64, None, 'one'])
def test_a_delivery_tag_that_cannot_be_one_is_refused_here_and_costs_nothing(
    channel: Channel, queue: str, tag: Any
) -> None:
    for settle in (channel.basic.ack, channel.basic.nack, channel.basic.reject):
        with pytest.raises((ValueError, TypeError)):
            settle(tag)
    assert channel.queue.declare(queue, passive=True) == (queue, 0, 0)


# -- confirm and tx ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('nowait', [False, True])
def test_after_confirm_select_publishes_are_counted_and_confirmed(channel: Channel, queue: str, nowait: bool) -> None:
    assert channel.basic.publish(Message('one'), routing_key=queue) == 0

    channel.confirm.select(nowait=nowait)
    channel.confirm.select()

    assert channel.basic.publish(Message('two'), routing_key=queue, wait=True) == 1
    assert channel.basic.publish(Message('three'), routing_key=queue) == 2
    eventually(lambda: len(channel.confirms) == 0)


def test_waiting_for_a_confirm_needs_confirm_mode(channel: Channel, queue: str) -> None:
    with pytest.raises(ValueError, match=r'channel\.confirm\.select'):
        channel.basic.publish(Message('one'), routing_key=queue, wait=True)
    assert take(channel, queue) is None


def test_a_transaction_takes_effect_with_its_commit(connection: Connection, channel: Channel, queue: str) -> None:
    transaction = connection.channel()
    transaction.tx.select()
    send(transaction, queue, 'one')
    transaction.queue.declare(queue, passive=True)
    assert take(channel, queue) is None

    transaction.tx.commit()

    assert take(channel, queue) == 'one'


def test_a_transaction_that_is_rolled_back_never_was(channel: Channel, queue: str) -> None:
    channel.tx.select()
    send(channel, queue, 'one')

    channel.tx.rollback()
    channel.tx.commit()

    assert take(channel, queue) is None


def test_a_channel_in_confirm_mode_cannot_be_transactional(channel: Channel) -> None:
    channel.confirm.select()
    with pytest.raises(PreconditionFailed):
        channel.tx.select()
