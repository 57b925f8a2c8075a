"""Queues without a network: what is ready, unacked and dead, and whose turn it is."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from amphora.amqp.errors import AccessRefused
from amphora.broker.arguments import QueueOptions
from amphora.broker.consumer import Consumer, Credit, Gate
from amphora.broker.meter import Meter
from amphora.broker.queues import Queue
from amphora.broker.stored import StoredMessage


def message(body, **properties):
    return StoredMessage.compose('', 'q', properties, str(body).encode())


class Harness:
    """A queue and everything it tells."""

    def __init__(self, **arguments):
        arguments = {'x-' + name.replace('_', '-'): value for name, value in arguments.items()}
        self.dead = []
        self.delivered = []
        self.meter = Meter(10**9, lambda over: None)
        options = QueueOptions.parse(arguments, 'q', '/')
        self.queue = Queue(
            'q', options, 0, on_dead=lambda queue, dead, reason: self.dead.append((dead.body, reason)), meter=self.meter
        )

    def publish(self, *bodies, now=0, **properties):
        return [self.queue.publish(message(body, **properties), now) for body in bodies]

    def consumer(self, tag='c', now=0, **options):
        def deliver(consumer, entry):
            self.delivered.append((tag, entry.message.body.decode()))
            self.entries.append(entry)

        self.entries = []
        consumer = Consumer(tag, deliver, lambda consumer: None, **options)
        self.queue.add_consumer(consumer, '/')
        self.queue.dispatch(now)
        return consumer

    def drain(self, now=0):
        out = []
        while (entry := self.queue.get(now)) is not None:
            out.append(entry.message.body.decode())
        return out


def test_messages_come_out_as_they_went_in():
    harness = Harness()
    harness.publish(1, 2, 3)

    assert harness.drain() == ['1', '2', '3']
    assert (harness.queue.ready, harness.queue.unacked) == (0, 3)


def test_a_requeued_message_goes_back_to_its_place():
    harness = Harness()
    harness.publish(*range(5))
    entries = [harness.queue.get(0) for _ in range(4)]

    harness.queue.requeue([entries[2]], 0)
    harness.queue.requeue([entries[0]], 0)

    assert harness.drain() == ['0', '2', '4']
    assert entries[0].redelivered


def test_requeueing_many_merges_them_in():
    harness = Harness()
    harness.publish(*range(6))
    entries = [harness.queue.get(0) for _ in range(6)]
    harness.queue.requeue([entries[5], entries[1], entries[3]], 0)
    harness.queue.requeue([entries[0], entries[4], entries[2]], 0)

    assert harness.drain() == ['0', '1', '2', '3', '4', '5']


def test_higher_priorities_come_first_and_more_than_the_highest_counts_as_the_highest():
    harness = Harness(max_priority=2)
    for body, priority in (('none', None), ('one', 1), ('nine', 9), ('two', 2)):
        harness.publish(body, priority=priority)

    assert harness.drain() == ['nine', 'two', 'one', 'none']


def test_drop_head_drops_the_oldest():
    harness = Harness(max_length=2)

    assert harness.publish(1, 2, 3) == [True, True, True]

    assert harness.drain() == ['2', '3']
    assert harness.dead == [(b'1', 'maxlen')]


def test_unacked_messages_do_not_count_against_the_length():
    harness = Harness(max_length=1)
    harness.publish(1)
    harness.queue.get(0)
    harness.publish(2)

    assert harness.dead == []


def test_reject_publish_refuses_the_newest():
    harness = Harness(max_length=1, overflow='reject-publish')

    assert harness.publish(1, 2) == [True, False]

    assert harness.dead == []
    assert harness.drain() == ['1']


def test_reject_publish_dlx_makes_a_dead_letter_of_it():
    harness = Harness(max_length=1, overflow='reject-publish-dlx')

    assert harness.publish(1, 2) == [True, False]

    assert harness.dead == [(b'2', 'maxlen')]


def test_the_length_in_bytes_counts_bodies():
    harness = Harness(max_length_bytes=5)
    harness.publish('abc', 'de', 'f')

    assert harness.drain() == ['de', 'f']


def test_messages_die_at_the_head_when_their_time_is_over():
    harness = Harness(message_ttl=1000)
    harness.publish(1, now=0)
    harness.publish(2, now=0.5)

    assert harness.queue.next_deadline() == 1
    harness.queue.expire(0.9)
    assert harness.dead == []
    harness.queue.expire(1)
    assert harness.dead == [(b'1', 'expired')]
    assert harness.queue.next_deadline() == 1.5


def test_the_shorter_of_two_times_to_live_holds():
    harness = Harness(message_ttl=1000)
    harness.publish(1, expiration='200')
    harness.publish(2, expiration='5000')

    assert harness.drain(now=0.5) == ['2']
    harness = Harness(message_ttl=1000)
    harness.publish(2, expiration='5000')
    assert harness.drain(now=1) == []


def test_a_message_behind_one_that_lives_waits_for_it():
    harness = Harness()
    harness.publish('long')
    harness.publish('short', expiration='1')

    harness.queue.expire(10)

    assert harness.queue.ready == 2


def test_a_message_with_no_time_to_live_reaches_only_a_consumer_who_is_there():
    harness = Harness()
    harness.publish('nobody', expiration='0')
    harness.consumer(no_ack=True)
    harness.publish('somebody', expiration='0')

    assert harness.dead == [(b'nobody', 'expired')]
    assert harness.delivered == [('c', 'somebody')]


def test_a_queue_expires_when_nobody_used_it():
    harness = Harness(expires=1000)

    assert not harness.queue.has_expired(0.9)
    harness.queue.get(0.9)
    assert harness.queue.next_deadline() == 1.9
    consumer = harness.consumer()
    assert harness.queue.next_deadline() is None
    assert not harness.queue.has_expired(100)
    harness.queue.remove_consumer(consumer, 100)
    assert not harness.queue.has_expired(100.5)
    assert harness.queue.has_expired(101)


def test_a_message_that_came_back_too_often_dies():
    harness = Harness(queue_type='quorum', delivery_limit=1)
    harness.publish(1)

    harness.queue.requeue([harness.queue.get(0)], 0)
    assert harness.dead == []
    harness.queue.requeue([harness.queue.get(0)], 0)

    assert harness.dead == [(b'1', 'delivery_limit')]
    assert (harness.queue.ready, harness.queue.unacked, harness.meter.used) == (0, 0, 0)


def test_consumers_take_turns():
    harness = Harness()
    harness.consumer('a')
    harness.consumer('b')

    harness.publish(*range(4))

    assert harness.delivered == [('a', '0'), ('b', '1'), ('a', '2'), ('b', '3')]


def test_a_consumer_without_room_is_passed_by_until_it_has_room_again():
    harness = Harness()
    busy = harness.consumer('busy', prefetch=1)
    harness.publish(1, 2)
    entry = harness.entries[0]
    assert harness.queue.ready == 1

    harness.queue.settle(entry)
    busy.give_back()
    harness.queue.wake(busy)
    harness.queue.dispatch(0)

    assert harness.delivered == [('busy', '1'), ('busy', '2')]


def test_consumers_of_one_channel_share_its_limit():
    harness = Harness()
    credit = Credit(2)
    harness.consumer('a', channel_credit=credit)
    harness.consumer('b', channel_credit=credit)

    harness.publish(*range(4))

    assert (harness.queue.ready, harness.queue.unacked) == (2, 2)


def test_higher_consumer_priorities_are_served_first_while_they_have_room():
    harness = Harness()
    harness.consumer('low')
    harness.consumer('high', prefetch=2, arguments={'x-priority': 10})

    harness.publish(*range(3))

    assert [tag for tag, _ in harness.delivered] == ['high', 'high', 'low']


def test_a_closed_gate_holds_everything_back():
    harness = Harness()
    gate = Gate()
    consumer = harness.consumer(no_ack=True, gate=gate)
    gate.open = False
    harness.publish(1)
    assert harness.delivered == []

    gate.open = True
    harness.queue.wake(consumer)
    harness.queue.dispatch(0)

    assert harness.delivered == [('c', '1')]


def test_only_one_consumer_is_active_where_the_queue_wants_it_so():
    harness = Harness(single_active_consumer=True)
    first = harness.consumer('first')
    harness.consumer('second')
    harness.consumer('third', arguments={'x-priority': 5})
    harness.publish(1, 2)
    assert harness.delivered == [('first', '1'), ('first', '2')]

    harness.queue.remove_consumer(first, 0)
    harness.publish(3)

    assert harness.delivered[-1] == ('third', '3')


def test_an_exclusive_consumer_is_the_only_one():
    harness = Harness()
    only = harness.consumer('only', exclusive=True)
    with pytest.raises(AccessRefused):
        harness.consumer('another')

    harness.queue.remove_consumer(only, 0)
    harness.consumer('another')

    with pytest.raises(AccessRefused):
        harness.consumer('only', exclusive=True)


def test_purging_leaves_the_unacked():
    harness = Harness()
    harness.publish(1, 2, 3)
    entry = harness.queue.get(0)

    assert harness.queue.purge() == 2

    harness.queue.requeue([entry], 0)
    assert harness.drain() == ['1']


def test_what_comes_back_to_a_deleted_queue_is_dropped():
    harness = Harness()
    harness.publish(1, 2)
    entry = harness.queue.get(0)

    assert harness.queue.delete() == 1
    harness.queue.requeue([entry], 0)

    assert (harness.queue.ready, harness.queue.unacked, harness.meter.used) == (0, 0, 0)


class QueueAgainstModel(RuleBasedStateMachine):
    """A queue does what a list would: one of ready bodies in their order, and one of those handed out."""

    @initialize(max_length=st.none() | st.integers(0, 4), prefetch=st.integers(0, 3))
    def begin(self, max_length, prefetch):
        self.harness = Harness(**({} if max_length is None else {'max_length': max_length}))
        self.queue = self.harness.queue
        self.max_length = max_length
        self.prefetch = prefetch
        self.consumer = None
        self.now = 0.0
        self.count = 0
        # (number, expires at)
        self.ready = []
        self.got = {}
        self.consumed = {}

    def model_expire(self):
        while self.ready and self.ready[0][1] is not None and self.ready[0][1] <= self.now:
            self.ready.pop(0)

    def has_room(self):
        return self.consumer is not None and (not self.prefetch or len(self.consumed) < self.prefetch)

    def model_shorten(self):
        if self.max_length is not None:
            del self.ready[: max(0, len(self.ready) - self.max_length)]

    def settle(self):
        """What happens to both after every step: the clock ticks, and what can be handed over is."""
        self.queue.expire(self.now)
        self.model_expire()
        while self.ready and self.has_room():
            number, expires = self.ready.pop(0)
            self.consumed[number] = expires
            self.model_expire()

    @rule(expiration=st.none() | st.integers(0, 5))
    def publish(self, expiration):
        self.count += 1
        properties = {} if expiration is None else {'expiration': str(expiration * 1000)}
        self.harness.publish(self.count, now=self.now, **properties)
        expires = None if expiration is None else self.now + expiration
        if self.has_room() and not self.ready:
            self.consumed[self.count] = expires
        else:
            self.ready.append((self.count, expires))
        self.model_shorten()
        self.settle()

    @rule(seconds=st.integers(1, 3))
    def wait(self, seconds):
        self.now += seconds
        self.settle()

    @rule()
    def get(self):
        entry = self.queue.get(self.now)
        if not self.ready:
            assert entry is None
        else:
            number, expires = self.ready.pop(0)
            assert entry.message.body == str(number).encode()
            self.got[number] = (entry, expires)
        self.settle()

    @precondition(lambda self: self.got)
    @rule(data=st.data())
    def ack(self, data):
        number = data.draw(st.sampled_from(sorted(self.got)))
        entry, _ = self.got.pop(number)
        self.queue.settle(entry)

    @precondition(lambda self: self.got)
    @rule(data=st.data())
    def requeue(self, data):
        numbers = data.draw(st.sets(st.sampled_from(sorted(self.got)), min_size=1))
        entries = []
        for number in numbers:
            entry, expires = self.got.pop(number)
            entries.append(entry)
            self.ready.append((number, expires))
        self.ready.sort()
        self.model_shorten()
        self.queue.requeue(entries, self.now)
        self.settle()

    @rule()
    def consume_or_cancel(self):
        if self.consumer is None:
            self.consumer = self.harness.consumer(prefetch=self.prefetch, now=self.now)
        else:
            self.queue.remove_consumer(self.consumer, self.now)
            self.queue.requeue(self.harness.entries, self.now)
            self.ready = sorted([*self.ready, *self.consumed.items()])
            self.model_shorten()
            self.consumed.clear()
            self.consumer = None
            self.harness.entries = []
        self.settle()

    @precondition(lambda self: self.consumed)
    @rule()
    def ack_consumed(self):
        number = min(self.consumed)
        entry = next(each for each in self.harness.entries if each.message.body == str(number).encode())
        self.harness.entries.remove(entry)
        del self.consumed[number]
        self.queue.settle(entry)
        self.consumer.give_back()
        self.queue.wake(self.consumer)
        self.queue.dispatch(self.now)
        self.settle()

    @rule()
    def purge(self):
        assert self.queue.purge() == len(self.ready)
        self.ready.clear()

    @invariant()
    def counts_agree(self):
        assert self.queue.ready == len(self.ready)
        assert self.queue.unacked == len(self.got) + len(self.consumed)
        assert {entry.message.body.decode() for entry in getattr(self.harness, 'entries', ())} == set(
            map(str, self.consumed)
        )
        assert (self.harness.meter.used > 0) == bool(self.ready or self.got or self.consumed)


TestQueueAgainstModel = QueueAgainstModel.TestCase
TestQueueAgainstModel.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
