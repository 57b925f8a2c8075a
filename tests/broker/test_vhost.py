"""A virtual host without a network: names, routing, dead letters, deadlines."""

import inspect
import sys
from datetime import datetime, timezone

import pytest

from amphora.amqp.errors import AccessRefused, CommandInvalid, NotFound, PreconditionFailed, ResourceLocked
from amphora.broker.consumer import Consumer
from amphora.broker.meter import Meter
from amphora.broker.stored import StoredMessage
from amphora.broker.vhost import VirtualHost

ME, SOMEBODY = 'my connection', 'another connection'
NOON = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)


@pytest.fixture
def deadlines():
    return []


@pytest.fixture
def vhost(deadlines):
    meter = Meter(10**9, lambda over: None)
    return VirtualHost('/', meter, lambda vhost, queue, at: deadlines.append((queue.name, at)), lambda: NOON)


def publish(vhost, exchange, routing_key, body=b'x', now=0, **properties):
    return vhost.publish(StoredMessage.compose(exchange, routing_key, properties, body), now)


def get(vhost, queue, now=0):
    entry = vhost.get(vhost.queues[queue], now)
    return None if entry is None else entry.message


def declare(vhost, name, now=0, owner=ME, **options):
    return vhost.declare_queue(name, owner, now, **options)


def test_every_queue_is_bound_to_the_default_exchange_by_its_name(vhost):
    declare(vhost, 'q')

    assert publish(vhost, '', 'q') == (True, True)
    assert publish(vhost, '', 'nobody') == (False, True)
    assert get(vhost, 'q').body == b'x'


def test_a_queue_bound_twice_gets_a_message_once(vhost):
    declare(vhost, 'q')
    vhost.bind_queue('q', 'amq.topic', 'a.*', {}, ME)
    vhost.bind_queue('q', 'amq.topic', '#', {}, ME)

    publish(vhost, 'amq.topic', 'a.b')

    assert vhost.queues['q'].ready == 1


def test_exchanges_bound_in_a_circle_pass_a_message_once(vhost):
    vhost.declare_exchange('a', 'fanout')
    vhost.declare_exchange('b', 'fanout')
    vhost.bind_exchange('b', 'a', '', {})
    vhost.bind_exchange('a', 'b', '', {})
    declare(vhost, 'q')
    vhost.bind_queue('q', 'a', '', {}, ME)
    vhost.bind_queue('q', 'b', '', {}, ME)

    publish(vhost, 'a', '')

    assert vhost.queues['q'].ready == 1


def test_the_alternate_exchange_gets_what_cannot_be_routed(vhost):
    vhost.declare_exchange('e', 'direct', arguments={'alternate-exchange': 'rest'})
    vhost.declare_exchange('rest', 'fanout')
    declare(vhost, 'q')
    declare(vhost, 'rest')
    vhost.bind_queue('q', 'e', 'known', {}, ME)
    vhost.bind_queue('rest', 'rest', '', {}, ME)

    publish(vhost, 'e', 'known')
    publish(vhost, 'e', 'unknown')

    assert (vhost.queues['q'].ready, vhost.queues['rest'].ready) == (1, 1)
    assert get(vhost, 'rest').exchange == 'e'


def test_more_routing_keys_in_the_headers(vhost):
    for name in 'abc':
        declare(vhost, name)

    publish(vhost, '', 'a', headers={'CC': ['b', 'a'], 'BCC': ['c']})

    assert [vhost.queues[name].ready for name in 'abc'] == [1, 1, 1]
    assert get(vhost, 'c').headers == {'CC': ['b', 'a']}


@pytest.mark.parametrize(
    ('what', 'error', 'text'),
    [
        (lambda v: v.declare_exchange('', 'direct'), AccessRefused, 'operation not permitted on the default exchange'),
        (lambda v: v.declare_exchange('amq.x', 'direct'), AccessRefused, "'amq.x' contains reserved prefix 'amq.*'"),
        (lambda v: v.declare_exchange('x', 'strange'), CommandInvalid, "unknown exchange type 'strange'"),
        (lambda v: v.declare_exchange('x', '', passive=True), NotFound, "no exchange 'x' in vhost '/'"),
        (lambda v: v.delete_exchange('amq.direct'), AccessRefused, "deletion of system exchange 'amq.direct'"),
        (lambda v: declare(v, 'amq.x'), AccessRefused, "queue name 'amq.x' contains reserved prefix 'amq.*'"),
        (lambda v: declare(v, 'x', passive=True), NotFound, "no queue 'x' in vhost '/'"),
        (lambda v: publish(v, 'x', ''), NotFound, "no exchange 'x' in vhost '/'"),
        (lambda v: v.bind_queue('x', 'amq.direct', '', {}, ME), NotFound, "no queue 'x' in vhost '/'"),
        (
            lambda v: declare(v, 'x', arguments={'x-max-length': -1}),
            PreconditionFailed,
            "invalid arg 'x-max-length' for queue 'x' in vhost '/': {value_negative,-1}",
        ),
        (
            lambda v: declare(v, 'x', arguments={'x-queue-type': 'quorum'}),
            PreconditionFailed,
            "invalid property 'non-durable' for queue 'x' in vhost '/'",
        ),
    ],
)
def test_what_is_refused_and_how(vhost, what, error, text):
    with pytest.raises(error) as caught:
        what(vhost)

    assert text in caught.value.text


def test_a_queue_is_declared_again_only_as_it_is(vhost):
    queue = declare(vhost, 'q', durable=True, arguments={'x-expires': 1000})

    assert declare(vhost, 'q', durable=True, arguments={'x-expires': 1000, 'x-unknown': 1}) is queue
    with pytest.raises(PreconditionFailed) as caught:
        declare(vhost, 'q', arguments={'x-expires': 1000})
    assert caught.value.text == (
        "inequivalent arg 'durable' for queue 'q' in vhost '/': received 'false' but current is 'true'"
    )
    with pytest.raises(PreconditionFailed, match=r'x-expires.*received none but current is the value'):
        declare(vhost, 'q', durable=True)


def test_an_exclusive_queue_is_locked_for_others_and_goes_with_its_owner(vhost):
    name = declare(vhost, '', exclusive=True).name

    assert name.startswith('amq.gen-')
    with pytest.raises(ResourceLocked):
        vhost.queue(name, SOMEBODY)
    vhost.remove_owned(ME)
    assert vhost.queues == {}


def test_an_auto_delete_exchange_goes_with_its_last_binding(vhost):
    vhost.declare_exchange('e', 'direct', auto_delete=True)
    declare(vhost, 'q')
    vhost.bind_queue('q', 'e', 'x', {}, ME)

    vhost.delete_queue('q', ME)

    assert 'e' not in vhost.exchanges


def test_an_auto_delete_queue_goes_with_its_last_consumer(vhost):
    queue = declare(vhost, 'q', auto_delete=True)
    consumer = Consumer('c', lambda consumer, entry: None, lambda consumer: None)
    vhost.consume(queue, consumer, 0)

    vhost.cancel(consumer, 0)

    assert vhost.queues == {}


def test_consumers_of_a_deleted_queue_are_told(vhost):
    told = []
    consumer = Consumer('c', lambda consumer, entry: None, told.append)
    vhost.consume(declare(vhost, 'q'), consumer, 0)

    vhost.delete_queue('q', ME)

    assert told == [consumer]


def dead_letter_queues(vhost, **more):
    declare(vhost, 'graves')
    declare(vhost, 'q', arguments={'x-dead-letter-exchange': '', 'x-dead-letter-routing-key': 'graves', **more})
    return vhost.queues['q']


def test_a_rejected_message_becomes_a_dead_letter(vhost):
    queue = dead_letter_queues(vhost)
    publish(vhost, '', 'q', headers={'mine': 1})

    vhost.reject(queue, [vhost.get(queue, 0)], 0)

    letter = get(vhost, 'graves')
    assert (letter.exchange, letter.routing_key) == ('', 'graves')
    assert letter.headers == {
        'mine': 1,
        'x-death': [
            {'count': 1, 'reason': 'rejected', 'queue': 'q', 'time': NOON, 'exchange': '', 'routing-keys': ['q']}
        ],
        'x-first-death-exchange': '',
        'x-first-death-queue': 'q',
        'x-first-death-reason': 'rejected',
    }


def test_a_dead_letter_of_an_expired_message_lives_on(vhost, deadlines):
    dead_letter_queues(vhost)
    publish(vhost, '', 'q', expiration='1500')
    assert deadlines == [('q', 1.5)]

    vhost.tick(vhost.queues['q'], 1.5)

    letter = get(vhost, 'graves', now=100)
    assert 'expiration' not in letter.properties
    assert letter.headers['x-death'][0]['original-expiration'] == '1500'


def test_the_same_death_again_is_counted(vhost):
    queue = dead_letter_queues(vhost)
    publish(vhost, '', 'q')
    vhost.reject(queue, [vhost.get(queue, 0)], 0)
    letter = get(vhost, 'graves')
    vhost.publish(letter.changed(exchange='', routing_key='q'), 0)
    vhost.reject(queue, [vhost.get(queue, 0)], 0)

    assert [death['count'] for death in get(vhost, 'graves').headers['x-death']] == [2]


def test_a_dead_letter_that_would_go_round_for_ever_is_dropped(vhost):
    declare(
        vhost,
        'q',
        arguments={'x-dead-letter-exchange': '', 'x-dead-letter-routing-key': 'q', 'x-message-ttl': 10},
    )
    publish(vhost, '', 'q')

    vhost.tick(vhost.queues['q'], 1)

    assert vhost.queues['q'].ready == 0


def test_a_long_chain_of_dead_letters_does_not_recurse(vhost):
    length = 200
    for number in range(length):
        arguments = {'x-dead-letter-exchange': '', 'x-dead-letter-routing-key': str(number + 1), 'x-max-length': 0}
        declare(vhost, str(number), arguments=arguments)
    declare(vhost, str(length))
    limit, depth = sys.getrecursionlimit(), len(inspect.stack())
    sys.setrecursionlimit(depth + 100)
    try:
        publish(vhost, '', '0')
    finally:
        sys.setrecursionlimit(limit)

    assert vhost.queues[str(length)].ready == 1


def test_an_unused_queue_expires(vhost, deadlines):
    declare(vhost, 'q', arguments={'x-expires': 1000})
    assert deadlines == [('q', 1)]

    vhost.tick(vhost.queues['q'], 0.5)
    assert deadlines[-1] == ('q', 1)
    vhost.tick(vhost.queues['q'], 1)

    assert vhost.queues == {}


def test_a_reply_goes_to_whoever_waits_for_it(vhost):
    replies = []
    vhost.reply_consumers['amq.rabbitmq.reply-to.token'] = replies.append

    assert publish(vhost, '', 'amq.rabbitmq.reply-to.token') == (False, True)
    assert publish(vhost, '', 'amq.rabbitmq.reply-to.other') == (False, True)
    assert [reply.body for reply in replies] == [b'x']


@pytest.mark.parametrize(
    ('properties', 'text'),
    [
        ({'user_id': 'root'}, "user_id property set to 'root' but authenticated user was 'guest'"),
        ({'expiration': 'soon'}, "invalid expiration 'soon': no_integer"),
        ({'expiration': '-1'}, "invalid expiration '-1': {value_negative,-1}"),
        ({'headers': {'CC': 'a'}}, 'invalid message: {unacceptable_type_in_header,"CC",longstr}'),
    ],
)
def test_a_message_that_is_refused(properties, text):
    message = StoredMessage.compose('', 'q', properties, b'')

    with pytest.raises(PreconditionFailed) as caught:
        message.check('guest')

    assert text in caught.value.text


def test_a_queue_that_lives_on_is_watched_once_however_many_deadlines_it_had(vhost, deadlines):
    declare(vhost, 'q')
    # Some live twice as long as others, and whenever the first goes another one is first.
    for second in range(300):
        publish(vhost, '', 'q', now=second, expiration='30000' if second % 2 else '60000')
        if second >= 50:
            get(vhost, 'q', now=second)
        for due in [each for each in deadlines if each[1] <= second]:
            deadlines.remove(due)
            vhost.tick(vhost.queues['q'], second)

    assert len(deadlines) <= 3
