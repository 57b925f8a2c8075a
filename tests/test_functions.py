"""The mark of `amphora.function`: what it says, what it leaves as it was, and what is wrong with it at once."""

import functools
import inspect

import pytest

import amphora
from amphora.functions import FunctionOptions, marked_functions, name_of, options_of


@amphora.function
def bare(x, y):
    """The sum."""
    return x + y


@amphora.function(name='div', queue_size=10, prefetch=2, ttl=60, timeout=2.5, validate=True)
def divide(x: int, y: int) -> float:
    return x / y


def unmarked():
    return 'unmarked'


def test_a_marked_function_stays_itself():
    assert bare(2, 3) == 5
    assert divide(6, 3) == 2
    assert (bare.__name__, bare.__doc__, str(inspect.signature(bare))) == ('bare', 'The sum.', '(x, y)')


def test_the_mark_says_what_it_was_given_and_else_the_default():
    said = FunctionOptions(name='div', queue_size=10, prefetch=2, ttl=60, timeout=2.5, validate=True)

    assert options_of(divide) == said
    assert options_of(bare) == options_of(unmarked) == FunctionOptions()


def test_the_name_that_was_given_goes_before_the_functions_own():
    assert [name_of(each) for each in (bare, divide, unmarked)] == ['bare', 'div', 'unmarked']


def test_what_has_no_name_needs_one():
    with pytest.raises(TypeError, match='no name of its own'):
        name_of(functools.partial(unmarked))


def test_a_decorator_around_a_marked_function_keeps_the_mark():
    @functools.wraps(divide)
    def wrapped(*args):
        return divide(*args)

    assert options_of(wrapped) == options_of(divide)


def test_methods_of_every_kind_can_be_marked():
    class Marked:
        @amphora.function(name='one')
        def plain(self): ...

        @amphora.function(name='two')
        @staticmethod
        def static(): ...

        @staticmethod
        @amphora.function(name='three')
        def static_inside(): ...

        @amphora.function(name='four')
        @classmethod
        def of_class(cls): ...

    marked = Marked()
    methods = [marked.plain, marked.static, marked.static_inside, marked.of_class]

    assert [name_of(method) for method in methods] == ['one', 'two', 'three', 'four']


@pytest.mark.parametrize(
    ('options', 'error', 'says'),
    [
        ({'name': ''}, ValueError, 'name of a function must not be empty'),
        ({'name': 5}, TypeError, 'name of a function must be a str'),
        ({'name': '\ud800'}, ValueError, 'name of a function cannot be encoded as UTF-8'),
        ({'queue_size': 0}, ValueError, 'queue_size must be from 1'),
        ({'queue_size': 1.5}, TypeError, 'queue_size must be an integer'),
        ({'queue_size': True}, TypeError, 'queue_size must be an integer'),
        ({'prefetch': 65536}, ValueError, 'prefetch must be from 1 to 65535'),
        ({'prefetch': 'many'}, TypeError, 'prefetch must be an integer'),
        ({'timeout': 0}, ValueError, 'timeout must be at least 0.001 seconds, not 0'),
        ({'timeout': -1}, ValueError, 'timeout must be from 0'),
        ({'timeout': float('nan')}, ValueError, 'timeout must be from 0'),
        ({'timeout': '5'}, TypeError, 'timeout must be a number of seconds'),
        ({'ttl': 0}, ValueError, 'ttl must be at least 0.001 seconds, not 0'),
        ({'ttl': 0.0009}, ValueError, 'ttl must be at least 0.001 seconds, not 0.0009'),
        ({'ttl': float('inf')}, ValueError, 'ttl must be from 0'),
        ({'validate': 'yes'}, TypeError, 'validate must be True or False'),
        ({'time_out': 5}, TypeError, 'a function has no option time_out; there are: name, .*, timeout, '),
    ],
)
def test_a_wrong_option_is_an_error_when_the_function_is_marked(options, error, says):
    with pytest.raises(error, match=says):
        amphora.function(**options)


@pytest.mark.parametrize(
    ('value', 'says'),
    [
        ('div', "name='div'"),
        (5, 'marks functions, and 5 is none'),
        (FunctionOptions, 'marks functions'),
        (len, 'cannot be marked'),
    ],
)
def test_what_is_no_function_cannot_be_marked(value, says):
    with pytest.raises(TypeError, match=says):
        amphora.function(value)


class Proxy:
    """As those of web frameworks, which may not be touched outside a request."""

    def __getattr__(self, name):
        raise RuntimeError('outside of a request')


def test_only_marked_functions_of_a_namespace_are_found_and_nothing_else_is_touched():
    namespace = {'a': bare, 'b': divide, 'c': unmarked, 'd': Proxy(), 'e': 5, 'alias': bare, 'F': FunctionOptions}

    assert marked_functions(namespace) == {'bare': bare, 'div': divide}


def test_two_functions_of_one_name_are_an_error():
    @amphora.function(name='div')
    def other(): ...

    with pytest.raises(ValueError, match="two functions are named 'div'"):
        marked_functions({'divide': divide, 'other': other})


def test_functions_are_looked_for_in_a_mapping():
    with pytest.raises(TypeError, match=r'globals\(\)'):
        marked_functions([bare])
