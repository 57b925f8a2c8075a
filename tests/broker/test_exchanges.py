"""Which destinations an exchange matches."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amphora.broker.exchanges import DefaultExchange, DirectExchange, FanoutExchange, HeadersExchange, TopicExchange


def matched(exchange, routing_key='', headers=None):
    return list(exchange.match(routing_key, headers or {}))


def test_the_default_exchange_knows_each_queue_by_its_name():
    queues = {}
    exchange = DefaultExchange(queues)

    queues['letters'] = 'Q'

    assert matched(exchange, 'letters') == ['Q']
    assert matched(exchange, 'parcels') == []


def test_a_direct_exchange_compares_the_whole_key():
    exchange = DirectExchange('e')
    exchange.bind('A', 'x')
    exchange.bind('B', 'x')
    exchange.bind('C', 'x.y')

    assert matched(exchange, 'x') == ['A', 'B']
    assert matched(exchange, 'x.y') == ['C']
    assert matched(exchange, '') == []


def test_a_destination_bound_twice_is_matched_once_until_both_bindings_are_gone():
    exchange = DirectExchange('e')
    assert exchange.bind('A', 'x')
    assert exchange.bind('A', 'x', {'n': 1})
    assert not exchange.bind('A', 'x', {'n': 1})

    assert matched(exchange, 'x') == ['A']
    assert exchange.unbind('A', 'x')
    assert matched(exchange, 'x') == ['A']
    assert exchange.unbind('A', 'x', {'n': 1})
    assert matched(exchange, 'x') == []
    assert not exchange.unbind('A', 'x')
    assert not exchange.in_use


def test_a_fanout_exchange_ignores_the_key():
    exchange = FanoutExchange('e')
    exchange.bind('A', 'x')
    exchange.bind('B', '')

    assert matched(exchange, 'whatever') == ['A', 'B']


@pytest.mark.parametrize(
    ('pattern', 'key', 'expected'),
    [
        ('a.b', 'a.b', True),
        ('a.b', 'a.b.c', False),
        ('a.*', 'a.b', True),
        ('a.*', 'a', False),
        ('a.*', 'a.b.c', False),
        ('a.#', 'a', True),
        ('a.#', 'a.b.c', True),
        ('#', '', True),
        ('#', 'a.b', True),
        ('*', '', False),
        ('*', 'a', True),
        ('', '', True),
        ('', 'a', False),
        ('#.b', 'a.b.b', True),
        ('#.b', 'a.b.c', False),
        ('a.#.b', 'a.b', True),
        ('a.#.*', 'a', False),
        ('a.#.*', 'a.x', True),
        ('#.#', 'a', True),
        ('*.#.*', 'a', False),
        ('*.#.*', 'a.b', True),
        ('a..b', 'a..b', True),
        ('a.*.b', 'a..b', True),
        ('b', '#', False),
        ('#', '#', True),
        ('a', '*', False),
    ],
)
def test_a_topic_pattern(pattern, key, expected):
    exchange = TopicExchange('e')
    exchange.bind('A', pattern)

    assert matched(exchange, key) == (['A'] if expected else [])


def test_a_pattern_of_many_hashes_costs_no_more_than_its_length():
    exchange = TopicExchange('e')
    exchange.bind('A', '.'.join(['#', 'a'] * 30))

    assert matched(exchange, '.'.join(['a'] * 120)) == ['A']
    assert matched(exchange, '.'.join(['a'] * 120 + ['b'])) == []


WORDS = st.lists(st.sampled_from(['a', 'b', '']), max_size=5)
PATTERNS = st.lists(st.sampled_from(['a', 'b', '*', '#', '']), max_size=5)


def matches(pattern, key):
    """The definition, word by word."""
    if not pattern:
        return not key
    if pattern[0] == '#':
        return matches(pattern[1:], key) or (bool(key) and matches(pattern, key[1:]))
    return bool(key) and pattern[0] in ('*', key[0]) and matches(pattern[1:], key[1:])


def words(text):
    return text.split('.') if text else []


@given(st.lists(PATTERNS, max_size=6), st.data(), WORDS)
def test_topic_patterns_match_as_their_definition_says(patterns, data, key):
    texts = ['.'.join(pattern) for pattern in patterns]
    removed = data.draw(st.sets(st.sampled_from(texts))) if texts else set()
    exchange = TopicExchange('e')
    for text in texts:
        exchange.bind(text, text)
    for text in removed:
        exchange.unbind(text, text)

    text_key = '.'.join(key)

    assert set(matched(exchange, text_key)) == {
        text for text in texts if text not in removed and matches(words(text), words(text_key))
    }


@pytest.mark.parametrize(
    ('arguments', 'headers', 'expected'),
    [
        ({'a': 1, 'b': 2}, {'a': 1, 'b': 2, 'c': 3}, True),
        ({'a': 1, 'b': 2}, {'a': 1}, False),
        ({'x-match': 'any', 'a': 1, 'b': 2}, {'a': 1}, True),
        ({'x-match': 'any', 'a': 1, 'b': 2}, {'a': 2}, False),
        ({'a': None}, {'a': 'whatever'}, True),
        ({'a': None}, {}, False),
        ({'x-match': 'all', 'x-a': 1}, {}, True),
        ({'x-match': 'all-with-x', 'x-a': 1}, {}, False),
        ({'x-match': 'all-with-x', 'x-a': 1}, {'x-a': 1}, True),
        ({'x-match': 'any', 'x-a': 1}, {'x-a': 1}, False),
        ({'x-match': 'any-with-x', 'x-a': 1}, {'x-a': 1}, True),
        ({}, {}, True),
        ({'x-match': 'any'}, {'a': 1}, False),
        ({'a': True}, {'a': 1}, False),
    ],
)
def test_headers(arguments, headers, expected):
    exchange = HeadersExchange('e')
    exchange.bind('A', 'the key does not matter', arguments)

    assert matched(exchange, 'another', headers) == (['A'] if expected else [])


@pytest.mark.parametrize('kind', [DirectExchange, FanoutExchange, TopicExchange, HeadersExchange])
def test_unbinding_a_destination_leaves_the_others(kind):
    exchange = kind('e')
    exchange.bind('A', 'x.y')
    exchange.bind('A', 'x.y', {'n': [1, {'m': 2}]})
    exchange.bind('B', 'x.y')

    assert exchange.unbind_all('A')
    assert not exchange.unbind_all('A')

    assert matched(exchange, 'x.y', {}) == ['B']
    assert exchange.destinations() == ['B']
