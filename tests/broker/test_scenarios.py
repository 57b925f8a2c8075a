"""What a client sees, on the embedded broker and on RabbitMQ. Where the two differ, the test says so and why."""

import gevent
import pytest
from gevent import socket
from pamqp import commands

from amphora.amqp import (
    AccessRefused,
    ChannelClosed,
    LoginRefused,
    Message,
    NotAllowed,
    NotFound,
    PreconditionFailed,
    PublishNacked,
    PublishReturned,
    ResourceLocked,
    frames,
)
from amphora.amqp.errors import (
    ChannelNumberError,
    Closed,
    CommandInvalid,
    FrameError,
    NotImplemented_,
    UnexpectedFrame,
)
from amphora.amqp.properties import encode_header
from tests.waiting import eventually


def publish(channel, queue, *bodies, **properties):
    for body in bodies:
        channel.basic.publish(Message(str(body), **properties), routing_key=queue)


def consume(channel, queue, **options):
    got = []
    channel.basic.consume(queue, got.append, direct=True, **options)
    return got


def bodies(messages):
    return [message.body.decode() for message in messages]


def settled(channel):
    """A round trip: what was sent before has had its effect on this channel."""
    channel.exchange.declare('amq.direct', passive=True)


# -- connection --------------------------------------------------------------------------------------------------------


def test_a_wrong_password_is_refused(connect):
    with pytest.raises(LoginRefused) as caught:
        connect(password='wrong')

    assert caught.value.code == 403
    assert caught.value.text == (
        'ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN. For details see the broker logfile.'
    )


def test_amqplain_is_accepted(connect):
    assert not connect(auth_mechanisms=['AMQPLAIN']).closed


def test_an_unknown_virtual_host_is_refused(connect):
    with pytest.raises(NotAllowed, match='vhost nowhere not found'):
        connect(vhost='nowhere')


def test_the_capabilities_are_told(connect):
    assert connect().server_properties['capabilities'] == dict.fromkeys(
        (
            'publisher_confirms',
            'exchange_exchange_bindings',
            'basic.nack',
            'consumer_cancel_notify',
            'connection.blocked',
            'consumer_priorities',
            'authentication_failure_close',
            'per_consumer_qos',
            'direct_reply_to',
        ),
        True,
    )


def test_limits_are_agreed_on(connect):
    connection = connect(heartbeat=None, frame_max=8192, channel_max=3)

    assert (connection.heartbeat, connection.frame_max, connection.channel_max) == (60, 8192, 3)
    for _ in range(3):
        connection.channel()


def test_a_large_message_is_cut_into_frames_of_the_agreed_size(connect, queue):
    small, large = connect(frame_max=4096).channel(), connect().channel()
    name = queue()
    body = bytes(range(256)) * 1000
    small.basic.publish(Message(body), routing_key=name)
    got = consume(large, name)
    eventually(lambda: got)
    assert got[0].body == body


def test_heartbeats_are_sent_in_silence(connect):
    connection = connect(heartbeat=1)
    gevent.sleep(3.5)  # nothing else tells that nothing happens

    assert not connection.closed


@pytest.mark.parametrize('greeting', [b'GET / HTTP/1.1\r\n\r\n', b'AMQP\x00\x01\x00\x00', b'AMQP\x01\x02\x00\x00'])
def test_another_protocol_is_answered_with_the_right_one(connect, kind, greeting):
    where = connect()
    with socket.create_connection((where.host, where.port)) as sock:
        sock.sendall(greeting[:8])
        try:
            answer = sock.recv(8), sock.recv(1)
        except ConnectionResetError:
            # RabbitMQ sends it too, but resets the connection so soon that it may not arrive.
            assert kind == 'rabbitmq'
        else:
            assert answer == (frames.PROTOCOL_HEADER, b'')


def raw(*frames_of):
    """Send frames that no proper client sends."""

    def send(channel):
        channel.connection.write(b''.join(make(channel.id) for make in frames_of))
        settled(channel)

    return send


def publish_frame(channel_id):
    return frames.encode_publish(channel_id, '', 'x', False)


@pytest.mark.parametrize(
    ('send', 'error', 'text'),
    [
        (
            raw(lambda id: frames.frame(frames.BODY, id, b'x')),
            UnexpectedFrame,
            'UNEXPECTED_FRAME - expected method frame, got non method frame instead',
        ),
        (
            raw(publish_frame, publish_frame),
            UnexpectedFrame,
            'UNEXPECTED_FRAME - expected content header for class 60, got non content header frame instead',
        ),
        (
            raw(publish_frame, lambda id: encode_header(id, 2, {}), lambda id: frames.frame(frames.BODY, id, b'xyz')),
            UnexpectedFrame,
            'UNEXPECTED_FRAME - expected content body, got non content body frame instead',
        ),
        (
            raw(lambda id: frames.encode_method(id, commands.Channel.Open)),
            ChannelNumberError,
            "CHANNEL_ERROR - second 'channel.open' seen",
        ),
        (
            raw(lambda id: frames.encode_method(99, commands.Basic.Qos)),
            ChannelNumberError,
            "CHANNEL_ERROR - expected 'channel.open'",
        ),
        (raw(lambda id: frames.frame(frames.METHOD, id, b'\x00\x32\x00\x0a\x00\x00')), FrameError, 'FRAME_ERROR - '),
        (raw(lambda id: frames.frame(frames.METHOD, id, b'')[:-1] + b'\0'), FrameError, 'FRAME_ERROR - '),
        (raw(lambda id: frames.frame(frames.BODY, id, bytes(200_000))), FrameError, 'FRAME_ERROR - '),
        (
            lambda ch: ch.exchange.declare('x', 'strange'),
            CommandInvalid,
            "COMMAND_INVALID - unknown exchange type 'str",
        ),
        (lambda ch: ch.basic.qos(prefetch_size=9), NotImplemented_, 'NOT_IMPLEMENTED - prefetch_size!=0 (9)'),
        (
            lambda ch: ch.call(commands.Basic.Recover, commands.Basic.RecoverOk, requeue=False),
            NotImplemented_,
            'NOT_IMPLEMENTED - requeue=false',
        ),
        (
            lambda ch: ch.call(commands.Channel.Flow, commands.Channel.FlowOk, active=False),
            NotImplemented_,
            'NOT_IMPLEMENTED - active=false',
        ),
    ],
)
def test_what_ends_a_connection(channel, send, error, text):
    try:
        send(channel)
    except ChannelClosed:
        raise
    except Closed:
        pass
    eventually(lambda: channel.connection.closed)

    assert isinstance(channel.error, error)
    assert channel.error.text.startswith(text)


def test_a_channel_that_ended_leaves_the_others(connect):
    connection = connect()
    first, second = connection.channel(), connection.channel()
    with pytest.raises(NotFound):
        first.queue.declare('nowhere', passive=True)

    settled(second)
    assert not connection.closed
    settled(connection.channel())


# -- exchanges and queues ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('ask', 'error', 'text'),
    [
        (
            lambda ch: ch.exchange.declare('', 'direct'),
            AccessRefused,
            'ACCESS_REFUSED - operation not permitted on the default exchange',
        ),
        (
            lambda ch: ch.exchange.declare('amq.mine', 'direct'),
            AccessRefused,
            "ACCESS_REFUSED - exchange name 'amq.mine' contains reserved prefix 'amq.*'",
        ),
        (
            lambda ch: ch.exchange.declare('amq.direct', 'direct'),
            PreconditionFailed,
            "PRECONDITION_FAILED - inequivalent arg 'durable' for exchange 'amq.direct' in vhost '/': "
            "received 'false' but current is 'true'",
        ),
        (
            lambda ch: ch.exchange.delete('amq.direct'),
            AccessRefused,
            "ACCESS_REFUSED - deletion of system exchange 'amq.direct' in vhost '/' not allowed",
        ),
        (
            lambda ch: ch.exchange.declare('nowhere', passive=True),
            NotFound,
            "NOT_FOUND - no exchange 'nowhere' in vhost '/'",
        ),
        (lambda ch: ch.queue.declare('nowhere', passive=True), NotFound, "NOT_FOUND - no queue 'nowhere' in vhost '/'"),
        (
            lambda ch: ch.queue.declare('amq.mine'),
            AccessRefused,
            "ACCESS_REFUSED - queue name 'amq.mine' contains reserved prefix 'amq.*'",
        ),
        (
            lambda ch: ch.queue.declare('x', arguments={'x-queue-type': 'quorum'}),
            PreconditionFailed,
            "PRECONDITION_FAILED - invalid property 'non-durable' for queue 'x' in vhost '/'",
        ),
        (
            lambda ch: ch.queue.declare('x', arguments={'x-delivery-limit': 1}),
            PreconditionFailed,
            "PRECONDITION_FAILED - invalid arg 'x-delivery-limit' for queue 'x' in vhost '/' of queue type "
            'rabbit_classic_queue',
        ),
        (
            lambda ch: ch.queue.declare('x', arguments={'x-queue-leader-locator': 'client-local'}),
            PreconditionFailed,
            "PRECONDITION_FAILED - invalid arg 'x-queue-leader-locator' for queue 'x' in vhost '/' of queue type "
            'rabbit_classic_queue',
        ),
        (
            lambda ch: ch.queue.declare('', durable=True, arguments={'x-queue-type': 'quorum'}),
            PreconditionFailed,
            'PRECONDITION_FAILED - Cannot declare a server-named queue for type rabbit_quorum_queue',
        ),
        (
            lambda ch: ch.queue.declare('x', arguments={'x-message-ttl': 315_360_000_001}),
            PreconditionFailed,
            "PRECONDITION_FAILED - invalid arg 'x-message-ttl' for queue 'x' in vhost '/': "
            '{value_too_large,315360000001}',
        ),
        (
            lambda ch: ch.queue.bind('nowhere', 'amq.direct', 'x'),
            NotFound,
            "NOT_FOUND - no queue 'nowhere' in vhost '/'",
        ),
        (lambda ch: ch.queue.bind('', 'amq.direct', 'x'), NotFound, 'NOT_FOUND - no previously declared queue'),
        (lambda ch: ch.queue.purge('nowhere'), NotFound, "NOT_FOUND - no queue 'nowhere' in vhost '/'"),
        (lambda ch: ch.basic.get('nowhere'), NotFound, "NOT_FOUND - no queue 'nowhere' in vhost '/'"),
        (lambda ch: ch.basic.consume('nowhere', print), NotFound, "NOT_FOUND - no queue 'nowhere' in vhost '/'"),
        (
            lambda ch: (ch.basic.publish(Message(''), 'nowhere'), settled(ch)),
            NotFound,
            "NOT_FOUND - no exchange 'nowhere' in vhost '/'",
        ),
        (
            lambda ch: (ch.basic.publish(Message('', user_id='root')), settled(ch)),
            PreconditionFailed,
            "PRECONDITION_FAILED - user_id property set to 'root' but authenticated user was 'guest'",
        ),
        (lambda ch: (ch.ack(9), settled(ch)), PreconditionFailed, 'PRECONDITION_FAILED - unknown delivery tag 9'),
        (
            lambda ch: ch.basic.consume('amq.rabbitmq.reply-to', print),
            PreconditionFailed,
            'PRECONDITION_FAILED - reply consumer cannot acknowledge',
        ),
    ],
)
def test_what_ends_a_channel(channel, ask, error, text):
    with pytest.raises(error) as caught:
        ask(channel)

    assert caught.value.text == text
    assert not channel.connection.closed


def test_a_queue_is_declared_again_only_as_it_is(connect, channel, queue):
    name = queue(arguments={'x-message-ttl': 1000})
    channel.queue.declare(name, arguments={'x-message-ttl': 1000})

    with pytest.raises(PreconditionFailed) as caught:
        connect().channel().queue.declare(name, arguments={'x-message-ttl': 2000})
    assert caught.value.text == (
        "PRECONDITION_FAILED - inequivalent arg 'x-message-ttl' for queue '%s' in vhost '/': "
        "received '2000' but current is '1000'" % name
    )
    with pytest.raises(PreconditionFailed, match=r"inequivalent arg 'durable'"):
        connect().channel().queue.declare(name, durable=True, arguments={'x-message-ttl': 1000})


def test_an_exclusive_queue_is_locked_for_others_and_goes_with_its_connection(connect):
    owner, other = connect(), connect()
    name = owner.channel().queue.declare(exclusive=True).queue
    assert name.startswith('amq.gen-')

    with pytest.raises(ResourceLocked) as caught:
        other.channel().queue.declare(name, passive=True)
    assert caught.value.text.startswith(
        "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '%s' in vhost '/'." % name
    )
    owner.close()
    with pytest.raises(NotFound):
        other.channel().queue.declare(name, passive=True)


def test_an_exclusive_queue_is_not_durable_whatever_was_asked_for(channel, queue):
    name = queue(exclusive=True, durable=True)
    channel.queue.declare(name, exclusive=True)


def test_only_its_owner_unbinds_an_exclusive_queue(connect, channel, queue, exchange):
    name, source = queue(exclusive=True), exchange()
    channel.queue.bind(name, source, 'key')
    other = connect()
    with other.channel() as asking:
        asking.queue.unbind(name, source, 'no such binding')

    with pytest.raises(ResourceLocked):
        other.channel().queue.unbind(name, source, 'key')

    channel.basic.publish(Message('x'), source, 'key')
    eventually(lambda: channel.basic.get(name))


def test_a_queue_that_was_named_by_the_broker_is_not_declared_by_its_name(channel):
    name = channel.queue.declare('', exclusive=True).queue
    channel.queue.declare(name, passive=True)

    with pytest.raises(AccessRefused, match="contains reserved prefix 'amq\\."):
        channel.queue.declare(name, exclusive=True)


def test_times_of_ten_years_are_the_longest(channel, queue):
    longest = 315_360_000_000
    name = queue(arguments={'x-message-ttl': longest, 'x-expires': longest})
    publish(channel, name, 'x', expiration=str(longest))
    eventually(lambda: channel.basic.get(name))


def test_an_auto_delete_queue_goes_with_its_last_consumer(connect, channel, queue):
    name = queue(auto_delete=True)
    tags = [channel.basic.consume(name, print) for _ in range(2)]

    channel.basic.cancel(tags[0])
    assert channel.queue.declare(name, passive=True).consumer_count == 1
    channel.basic.cancel(tags[1])

    with pytest.raises(NotFound):
        connect().channel().queue.declare(name, passive=True)


def test_an_unused_queue_expires(connect, channel, queue):
    name = queue(arguments={'x-expires': 100})
    gevent.sleep(0.3)  # whoever asked earlier would keep it alive

    with pytest.raises(NotFound):
        channel.queue.declare(name, passive=True)


def test_deletion_can_depend_on_use(connect, channel, queue):
    name = queue()
    publish(channel, name, 1)
    settled(channel)
    with pytest.raises(PreconditionFailed, match='not empty'):
        connect().channel().queue.delete(name, if_empty=True)
    channel.basic.consume(name, print)
    with pytest.raises(PreconditionFailed, match='in use'):
        connect().channel().queue.delete(name, if_unused=True)


@pytest.mark.parametrize(
    ('kind_of_exchange', 'binding', 'arguments', 'key', 'headers', 'routed'),
    [
        ('direct', 'a', {}, 'a', {}, True),
        ('direct', 'a', {}, 'b', {}, False),
        ('fanout', '', {}, 'b', {}, True),
        ('topic', 'a.*.#', {}, 'a.b', {}, True),
        ('topic', 'a.*.#', {}, 'a', {}, False),
        ('topic', '#.#', {}, '', {}, True),
        ('headers', '', {'x-match': 'any', 'a': 1, 'b': 2}, '', {'b': 2}, True),
        ('headers', '', {'x-match': 'all', 'a': 1, 'b': 2}, '', {'b': 2}, False),
        ('headers', '', {'x-match': 'all-with-x', 'x-a': 1}, '', {}, False),
        ('headers', '', {'x-match': 'any-with-x', 'x-a': 1}, '', {'x-a': 1}, True),
        ('headers', '', {'a': None}, '', {'a': 'any value'}, True),
        ('headers', '', {}, '', {}, True),
        ('headers', '', {'x-match': 'any'}, '', {}, False),
        ('headers', '', {'x-match': 'any', 'x-a': 1}, '', {'x-a': 1}, False),
    ],
)
def test_routing(channel, queue, exchange, kind_of_exchange, binding, arguments, key, headers, routed):
    source, name = exchange(kind_of_exchange), queue()
    channel.queue.bind(name, source, binding, arguments=arguments)
    returned = []
    channel.return_listeners.append(lambda message: returned.append((message.return_info.code, message.body)))

    channel.basic.publish(Message('x', headers=headers), source, key, mandatory=True)
    count = eventually(lambda: returned or channel.queue.declare(name, passive=True).message_count)

    assert count == (1 if routed else [(312, b'x')])


def test_exchanges_bound_to_each_other_and_the_alternate(channel, queue, exchange, drain):
    rest = exchange('fanout', 'rest')
    first = exchange('topic', 'first', arguments={'alternate-exchange': rest})
    second = exchange('fanout', 'second', internal=True)
    channel.exchange.bind(second, first, 'a.*')
    channel.exchange.bind(first, second, '')
    name, others = queue('bound'), queue('rest')
    channel.queue.bind(name, second)
    channel.queue.bind(others, rest)

    channel.basic.publish(Message('routed'), first, 'a.b')
    channel.basic.publish(Message('not routed'), first, 'b')

    assert drain(name, 1) == ['routed']
    assert drain(others, 1) == ['not routed']


def test_an_auto_delete_exchange_goes_with_its_last_binding(channel, queue, exchange):
    source, name = exchange(auto_delete=True), queue()
    channel.queue.bind(name, source, 'x')
    channel.queue.unbind(name, source, 'x')

    with pytest.raises(NotFound):
        channel.exchange.declare(source, passive=True)


def test_nothing_is_answered_where_no_answer_was_wanted(channel, service):
    queue, exchange = service, service
    channel.exchange.declare(exchange, nowait=True)
    channel.queue.declare(queue, nowait=True)
    channel.queue.bind(queue, exchange, 'x', nowait=True)
    channel.confirm.select(nowait=True)
    got = consume(channel, queue, nowait=True, no_ack=True, consumer_tag='tag')
    channel.basic.publish(Message('1'), exchange, 'x', wait=True)
    eventually(lambda: got)
    channel.basic.cancel('tag', nowait=True)
    channel.queue.purge(queue, nowait=True)
    channel.queue.delete(queue, nowait=True)
    channel.exchange.delete(exchange, nowait=True)

    with pytest.raises(NotFound):
        channel.queue.declare(queue, passive=True)


# -- consuming ---------------------------------------------------------------------------------------------------------


def test_prefetch_of_a_consumer(channel, queue):
    name = queue()
    channel.basic.qos(prefetch_count=2)
    got = consume(channel, name)
    publish(channel, name, *range(5))
    eventually(lambda: len(got) == 2)
    settled(channel)
    assert bodies(got) == ['0', '1']

    channel.ack(got[1].delivery_info.delivery_tag, multiple=True)
    eventually(lambda: len(got) == 4)
    assert bodies(got) == ['0', '1', '2', '3']


def test_prefetch_of_a_channel(channel, queue):
    first, second = queue('first'), queue('second')
    channel.basic.qos(prefetch_count=2, is_global=True)
    got = consume(channel, first)
    more = consume(channel, second)
    publish(channel, first, 1, 2)
    eventually(lambda: len(got) == 2)
    publish(channel, second, 3)
    settled(channel)
    assert more == []

    channel.ack(got[0].delivery_info.delivery_tag)
    eventually(lambda: more)


def test_a_prefetch_of_consumers_lifts_that_of_the_channel(channel, queue):
    name = queue()
    channel.basic.qos(prefetch_count=1, is_global=True)
    got = consume(channel, name)
    channel.basic.qos(prefetch_count=1)
    publish(channel, name, *range(3))

    eventually(lambda: len(got) == 3)


def test_what_comes_back_is_redelivered_in_its_place(channel, queue):
    name = queue()
    publish(channel, name, *range(4))
    eventually(lambda: channel.queue.declare(name, passive=True).message_count == 4)
    got = [channel.basic.get(name) for _ in range(3)]

    channel.basic.reject(got[2].delivery_info.delivery_tag, requeue=True)
    channel.basic.nack(got[1].delivery_info.delivery_tag, multiple=True, requeue=True)
    eventually(lambda: channel.queue.declare(name, passive=True).message_count == 4)

    again = [channel.basic.get(name) for _ in range(4)]
    assert bodies(again) == ['0', '1', '2', '3']
    assert [message.delivery_info.redelivered for message in again] == [True, True, True, False]
    assert [message.delivery_info.message_count for message in again] == [3, 2, 1, 0]


def test_what_was_not_acked_comes_back_when_the_channel_ends(connect, channel, queue):
    name = queue()
    publish(channel, name, *range(3))
    other = connect()
    with other.channel() as closing:
        got = consume(closing, name)
        eventually(lambda: len(got) == 3)

    again = consume(channel, name)
    eventually(lambda: len(again) == 3)
    assert bodies(again) == ['0', '1', '2']
    assert all(message.delivery_info.redelivered for message in again)


def test_recover_gives_everything_again(channel, queue):
    name = queue()
    publish(channel, name, 1, 2)
    got = consume(channel, name)
    eventually(lambda: len(got) == 2)

    channel.call(commands.Basic.Recover, commands.Basic.RecoverOk, requeue=True)

    eventually(lambda: len(got) == 4)
    assert bodies(got) == ['1', '2', '1', '2']


def test_the_consumer_is_told_when_its_queue_is_deleted(connect, channel, queue):
    name = queue()
    cancelled = []
    channel.basic.consume(name, print, consumer_tag='mine', on_cancel=cancelled.append)

    connect().channel().queue.delete(name)

    eventually(lambda: cancelled)
    assert cancelled == ['mine']


def test_consumers_of_a_higher_priority_come_first(channel, queue):
    name = queue()
    low = consume(channel, name)
    channel.basic.qos(prefetch_count=2)
    high = consume(channel, name, arguments={'x-priority': 5})

    publish(channel, name, *range(3))

    eventually(lambda: low)
    assert (bodies(high), bodies(low)) == (['0', '1'], ['2'])


def test_an_exclusive_consumer_is_the_only_one(connect, channel, queue):
    name = queue()
    consume(channel, name, exclusive=True)

    with pytest.raises(AccessRefused) as caught:
        consume(connect().channel(), name)
    assert caught.value.text == "ACCESS_REFUSED - queue '%s' in vhost '/' in exclusive use" % name


def test_a_consumer_tag_is_used_once(channel, queue):
    name = queue()
    consume(channel, name, consumer_tag='mine')

    with pytest.raises(NotAllowed, match="attempt to reuse consumer tag 'mine'"):
        consume(channel, name, consumer_tag='mine')


def test_only_one_consumer_is_active(connect, channel, queue):
    name = queue(arguments={'x-single-active-consumer': True})
    first_connection = connect()
    first = consume(first_connection.channel(), name, no_ack=True)
    second = consume(channel, name, no_ack=True)
    publish(channel, name, *range(3))
    eventually(lambda: len(first) == 3)
    assert second == []

    first_connection.close()
    publish(channel, name, 3)
    eventually(lambda: second)


def test_the_next_active_consumer_gets_first_what_the_last_one_has_left(connect, channel, queue):
    name = queue(arguments={'x-single-active-consumer': True})
    ending = connect().channel()
    for each in (ending, channel):
        each.basic.qos(prefetch_count=1)
    first, second = consume(ending, name), consume(channel, name)
    publish(channel, name, *range(3))
    eventually(lambda: first)

    ending.close()

    eventually(lambda: second)
    assert bodies(second) == ['0']
    assert second[0].delivery_info.redelivered


# -- limits and dead letters -------------------------------------------------------------------------------------------


def test_priorities(channel, queue, drain):
    name = queue(arguments={'x-max-priority': 5})
    for body, priority in (('low', 1), ('none', None), ('high', 9)):
        publish(channel, name, body, priority=priority)
    eventually(lambda: channel.queue.declare(name, passive=True).message_count == 3)

    assert drain(name, 3) == ['high', 'low', 'none']


def test_drop_head(channel, queue, drain):
    name = queue(arguments={'x-max-length': 2})
    channel.confirm.select()
    for body in '123':
        channel.basic.publish(Message(body), routing_key=name, wait=True)

    assert drain(name, 2) == ['2', '3']


@pytest.mark.parametrize('overflow', ['reject-publish', 'reject-publish-dlx'])
def test_reject_publish(channel, queue, drain, overflow):
    graves = queue('graves')
    name = queue(
        arguments={
            'x-max-length': 1,
            'x-overflow': overflow,
            'x-dead-letter-exchange': '',
            'x-dead-letter-routing-key': graves,
        }
    )
    channel.confirm.select()
    channel.basic.publish(Message('1'), routing_key=name, wait=True)
    with pytest.raises(PublishNacked):
        channel.basic.publish(Message('2'), routing_key=name, wait=True)

    assert drain(name, 1) == ['1']
    assert drain(graves, 1 if overflow.endswith('dlx') else 0) == (['2'] if overflow.endswith('dlx') else [])


@pytest.mark.parametrize('overflow', ['reject-publish', 'reject-publish-dlx'])
def test_what_comes_back_to_a_full_queue_that_refuses_stays(channel, queue, drain, overflow):
    name = queue(arguments={'x-max-length': 1, 'x-overflow': overflow})
    channel.confirm.select()
    channel.basic.publish(Message('1'), routing_key=name, wait=True)
    first = channel.basic.get(name)
    channel.basic.publish(Message('2'), routing_key=name, wait=True)

    channel.basic.nack(first.delivery_info.delivery_tag, requeue=True)

    assert drain(name, 2) == ['1', '2']


@pytest.mark.parametrize('mandatory', [False, True])
def test_what_no_exchange_takes_is_not_confirmed(connect, mandatory):
    channel = connect().channel()
    channel.confirm.select()

    with pytest.raises(NotFound):
        channel.basic.publish(Message('1'), 'no.such.exchange', 'key', mandatory=mandatory, wait=True)


def test_the_consumers_of_a_channel_that_ends_are_gone_all_at_once(connect, channel, queue):
    name = queue(arguments={'x-single-active-consumer': True})
    channel.confirm.select()
    ending = connect().channel()
    ending.basic.qos(prefetch_count=1)
    for _ in range(2):
        ending.basic.consume(name, lambda message: None)
    for body in '123':
        channel.basic.publish(Message(body), routing_key=name, wait=True)

    ending.close()

    assert not ending.connection.closed
    came = []
    connect().channel().basic.consume(name, lambda message: came.append(message.body))
    eventually(lambda: came == [b'1', b'2', b'3'])


def died(letter):
    """The headers of a dead letter, without the time."""
    headers = dict(letter.headers)
    headers['x-death'] = [{name: death[name] for name in death if name != 'time'} for death in headers['x-death']]
    return headers


def with_dead_letters(queue, **arguments):
    graves = queue('graves')
    name = queue(
        'alive',
        arguments={'x-dead-letter-exchange': '', 'x-dead-letter-routing-key': graves, **arguments},
        durable='x-queue-type' in arguments,
    )
    return name, graves


def test_an_expired_message_becomes_a_dead_letter(channel, queue):
    name, graves = with_dead_letters(queue)
    publish(channel, name, 'x', expiration='20', headers={'mine': True, 'CC': ['elsewhere']})

    letter = eventually(lambda: channel.basic.get(graves))

    assert letter.delivery_info.exchange == ''
    assert letter.delivery_info.routing_key == graves
    assert 'expiration' not in letter.properties
    assert died(letter) == {
        'mine': True,
        'x-death': [
            {
                'count': 1,
                'reason': 'expired',
                'queue': name,
                'exchange': '',
                'routing-keys': [name, 'elsewhere'],
                'original-expiration': '20',
            }
        ],
        'x-first-death-exchange': '',
        'x-first-death-queue': name,
        'x-first-death-reason': 'expired',
    }


def test_the_time_to_live_of_a_queue(channel, queue):
    name, graves = with_dead_letters(queue, **{'x-message-ttl': 20})
    publish(channel, name, 'x', expiration='60000')

    assert died(eventually(lambda: channel.basic.get(graves)))['x-first-death-reason'] == 'expired'


def test_what_has_a_lower_priority_does_not_expire_before_it_is_at_the_head(channel, queue, drain):
    name, graves = with_dead_letters(queue, **{'x-max-priority': 5})
    publish(channel, name, 'low', priority=1, expiration='20')
    publish(channel, name, 'high', priority=3)
    gevent.sleep(0.3)
    assert channel.queue.declare(name, passive=True).message_count == 2

    message = channel.basic.get(name)

    assert message.body == b'high'
    assert drain(graves, 1) == ['low']


def test_a_message_that_says_it_has_died_before_is_not_told_how_it_died_first(channel, queue):
    name, graves = with_dead_letters(queue, **{'x-message-ttl': 20})
    publish(channel, name, 'x', headers={'x-death': []})

    assert 'x-first-death-reason' not in eventually(lambda: channel.basic.get(graves)).headers


def test_a_rejected_message_that_is_published_again_counts_its_deaths(channel, queue):
    name, graves = with_dead_letters(queue)
    headers = {}
    for count in (1, 2):
        publish(channel, name, 'x', headers=headers)
        message = eventually(lambda: channel.basic.get(name))
        channel.basic.reject(message.delivery_info.delivery_tag, requeue=False)
        letter = eventually(lambda: channel.basic.get(graves, no_ack=True))
        headers = letter.headers
        assert died(letter)['x-death'] == [
            {'count': count, 'reason': 'rejected', 'queue': name, 'exchange': '', 'routing-keys': [name]}
        ]


def test_the_delivery_limit_of_a_quorum_queue(channel, queue):
    name, graves = with_dead_letters(queue, **{'x-queue-type': 'quorum', 'x-delivery-limit': 1})
    publish(channel, name, 'x')
    for count in (0, 1):
        message = eventually(lambda: channel.basic.get(name))
        assert message.headers['x-delivery-count'] == count
        assert message.delivery_info.redelivered == bool(count)
        channel.basic.reject(message.delivery_info.delivery_tag, requeue=True)

    assert died(eventually(lambda: channel.basic.get(graves)))['x-first-death-reason'] == 'delivery_limit'


def test_a_consumer_of_a_quorum_queue_is_told_of_earlier_deliveries_only(channel, queue):
    name = queue(durable=True, arguments={'x-queue-type': 'quorum'})
    publish(channel, name, 'x')
    got = consume(channel, name)
    eventually(lambda: got)
    channel.basic.reject(got[0].delivery_info.delivery_tag, requeue=True)

    eventually(lambda: len(got) == 2)
    assert [message.properties.get('headers') for message in got] == [None, {'x-delivery-count': 1}]


def test_a_quorum_queue_is_deleted_without_conditions(channel, queue):
    name = queue(durable=True, arguments={'x-queue-type': 'quorum'})

    with pytest.raises(NotImplemented_, match='with if-unused flag set are not supported by quorum queues'):
        channel.queue.delete(name, if_unused=True)


def test_where_a_quorum_queue_puts_what_comes_back(channel, queue):
    for limit, expected in (({}, ['2', '1']), ({'x-delivery-limit': 5}, ['1', '2'])):
        name = queue('q%d' % len(limit), durable=True, arguments={'x-queue-type': 'quorum', **limit})
        publish(channel, name, '1', '2')
        eventually(lambda name=name: channel.queue.declare(name, passive=True).message_count == 2)
        message = channel.basic.get(name)
        channel.basic.reject(message.delivery_info.delivery_tag, requeue=True)
        eventually(lambda name=name: channel.queue.declare(name, passive=True).message_count == 2)
        assert bodies([channel.basic.get(name), channel.basic.get(name)]) == expected


def test_what_a_channel_leaves_unacked_goes_back_to_its_place_in_a_quorum_queue_too(channel, queue, drain):
    for limit in ({}, {'x-delivery-limit': 5}):
        name = queue('q%d' % len(limit), durable=True, arguments={'x-queue-type': 'quorum', **limit})
        publish(channel, name, '1', '2', '3')
        eventually(lambda name=name: channel.queue.declare(name, passive=True).message_count == 3)
        taken = []
        with channel.connection.channel() as other:
            other.basic.qos(prefetch_count=2)
            other.basic.consume(name, taken.append)
            eventually(lambda taken=taken: len(taken) == 2)
        eventually(lambda name=name: channel.queue.declare(name, passive=True).message_count == 3)
        assert drain(name, 3) == ['1', '2', '3']


# -- publishing --------------------------------------------------------------------------------------------------------


def test_a_return_comes_before_its_confirm(channel):
    events = []
    channel.confirm.select()
    channel.return_listeners.append(lambda message: events.append(message.return_info.code))
    with pytest.raises(PublishReturned):
        channel.basic.publish(Message('x'), routing_key='nowhere', mandatory=True, wait=True)

    assert events == [312]


def test_many_confirms(channel, queue):
    name = queue()
    channel.confirm.select()
    publish(channel, name, *range(1000))
    eventually(lambda: len(channel.confirms) == 0)
    assert channel.queue.declare(name, passive=True).message_count == 1000


def test_more_keys_in_the_headers(channel, queue, drain):
    names = [queue(label) for label in ('to', 'cc', 'bcc')]
    channel.basic.publish(Message('x', headers={'CC': [names[1]], 'BCC': [names[2]]}), routing_key=names[0])

    hidden = eventually(lambda: channel.basic.get(names[2]))
    assert hidden.headers == {'CC': [names[1]]}
    assert [drain(name, 1) for name in names[:2]] == [['x'], ['x']]


def test_a_transaction(channel, queue, drain):
    name = queue()
    publish(channel, name, 'before')
    message = eventually(lambda: channel.basic.get(name))
    channel.tx.select()

    publish(channel, name, 'rolled back')
    channel.ack(message.delivery_info.delivery_tag)
    channel.tx.rollback()
    publish(channel, name, 'committed')
    channel.ack(message.delivery_info.delivery_tag)
    channel.tx.commit()

    assert drain(name, 1) == ['committed']
    with pytest.raises(PreconditionFailed, match='cannot switch from tx to confirm mode'):
        channel.confirm.select()


def test_a_transaction_of_which_a_queue_refuses_some(channel, queue, drain):
    full = queue('full', arguments={'x-max-length': 1, 'x-overflow': 'reject-publish'})
    name = queue('name')
    with channel.connection.channel() as other:
        other.tx.select()
        publish(other, full, 1, 2)
        publish(other, name, 3)
        with pytest.raises(PreconditionFailed, match='partial tx completion'):
            other.tx.commit()

    assert (drain(full, 1), drain(name, 1)) == (['1'], ['3'])


def test_the_default_exchange_is_no_alternate(channel, queue, exchange):
    name = queue()
    first = exchange(arguments={'alternate-exchange': ''})
    channel.confirm.select()

    with pytest.raises(PublishReturned):
        channel.basic.publish(Message('x'), first, name, mandatory=True, wait=True)


def test_a_direct_reply_has_copies(channel, queue, drain):
    requests, audit = queue('requests'), queue('audit')
    replies = consume(channel, 'amq.rabbitmq.reply-to', no_ack=True)
    publish(channel, requests, 'request', reply_to='amq.rabbitmq.reply-to')
    address = eventually(lambda: channel.basic.get(requests)).properties['reply_to']

    publish(channel, address, 'reply', headers={'CC': [audit]})
    publish(channel, audit, 'copied', headers={'CC': [address]})

    eventually(lambda: len(replies) == 2)
    assert drain(audit, 2) == bodies(replies) == ['reply', 'copied']


def test_direct_replies(connect, channel, queue):
    name = queue()
    replies = consume(channel, 'amq.rabbitmq.reply-to', no_ack=True)
    publish(channel, name, 'request', reply_to='amq.rabbitmq.reply-to')
    server = connect().channel()
    server.confirm.select()
    address = eventually(lambda: server.basic.get(name)).properties['reply_to']
    assert address.startswith('amq.rabbitmq.reply-to.')

    server.basic.publish(Message('reply'), routing_key=address, wait=True)
    # A mandatory one arrives as well, and is returned nevertheless.
    with pytest.raises(PublishReturned):
        server.basic.publish(Message('mandatory'), routing_key=address, mandatory=True, wait=True)

    eventually(lambda: len(replies) == 2)
    assert bodies(replies) == ['reply', 'mandatory']


def test_a_direct_reply_needs_somebody_who_waits(channel):
    publish(channel, 'x', 'request', reply_to='amq.rabbitmq.reply-to')

    with pytest.raises(PreconditionFailed, match='fast reply consumer does not exist'):
        settled(channel)


def test_properties_arrive_as_they_were_sent(channel, queue):
    name = queue()
    sent = Message(
        b'\0\xff',
        content_type='a/b',
        content_encoding='c',
        headers={'n': None, 'i': -5, 'l': 2**40, 's': 'ü', 't': {'x': [1, {'y': True}]}, 'f': 1.5},
        delivery_mode=2,
        priority=3,
        correlation_id='id',
        reply_to='there',
        expiration='60000',
        message_id='mid',
        timestamp=1_700_000_000,
        type='t',
        user_id='guest',
        app_id='app',
        cluster_id='cluster',
    )
    channel.basic.publish(sent, routing_key=name)

    assert eventually(lambda: channel.basic.get(name)) == sent


@pytest.fixture
def alarm(kind, request):
    """Turns the alarm of too little memory on and off."""
    if kind == 'embedded':
        broker = request.getfixturevalue('broker')
        yield lambda on: broker.block() if on else broker.unblock()
        return
    node = request.getfixturevalue('rabbit')
    yield lambda on: node.ctl('set_vm_memory_high_watermark', '0' if on else '0.4')
    node.ctl('set_vm_memory_high_watermark', '0.4')


def test_an_alarm_blocks_a_connection_when_it_publishes(connect, queue, alarm, kind):
    name = queue()
    publisher, consumer = connect(), connect()
    publishing = publisher.channel()
    publish(publishing, name, 1)
    got = consume(consumer.channel(), name)
    eventually(lambda: got)

    alarm(True)
    settled(publishing)
    assert publisher.blocked is None
    publish(publishing, name, 2)
    eventually(lambda: publisher.blocked == 'low on memory')
    # Past the client's own good will: the broker does not read either.
    publishing.publish('', name, {}, b'3')
    settled(consumer.channel())
    assert consumer.blocked is None
    # The embedded broker takes the whole message that it blocks at; RabbitMQ may stop reading in the middle of it.
    assert len(got) == 2 if kind == 'embedded' else len(got) <= 2

    alarm(False)
    eventually(lambda: len(got) == 3)
    assert publisher.blocked is None


# -- what differs ------------------------------------------------------------------------------------------------------


def test_an_unknown_method(channel, kind):
    channel.connection.write(frames.frame(frames.METHOD, channel.id, b'\x00\x3c\x00\xff'))

    eventually(lambda: channel.connection.closed)
    # RabbitMQ's reader crashes and hangs up without a word.
    assert channel.connection.error.code == (502 if kind == 'embedded' else 0)


def test_a_body_that_is_too_large(channel, kind):
    """RabbitMQ waits for the whole of it; the embedded broker refuses it by its header, before anything is kept."""
    channel.connection.write(
        frames.encode_publish(channel.id, '', 'x', False) + encode_header(channel.id, 2 * 134217728, {})
    )
    if kind == 'embedded':
        with pytest.raises(PreconditionFailed, match='message size 268435456 is larger than configured max size'):
            settled(channel)
    else:
        with pytest.raises(UnexpectedFrame):
            settled(channel)


def test_the_type_of_a_queue_may_be_left_out(channel, queue):
    name = queue(arguments={'x-queue-type': 'classic'})

    channel.queue.declare(name)


def test_an_error_names_the_method(channel):
    with pytest.raises(ChannelClosed) as caught:
        channel.queue.purge('nowhere')

    assert (caught.value.class_id, caught.value.method_id) == (50, 30)
