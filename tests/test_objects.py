"""Which methods of an object are public."""

import functools
import math

import pytest

import amphora
from amphora.objects import public_methods


class Base:
    def inherited(self):
        return 'inherited'

    def overridden(self):
        return 'base'


class Stock(Base):
    constant = 5
    plain = print  # a builtin is no method

    def __init__(self):
        self.attribute = lambda: 'attribute'
        self.hidden = lambda: 'an attribute in the place of a method'

    class Inner:
        pass

    @property
    def touched(self):
        raise AssertionError('a property was read')

    @functools.cached_property
    def cached(self):
        raise AssertionError('a property was read')

    def take(self, count):
        return count

    def overridden(self):
        return 'stock'

    def hidden(self):
        return 'hidden'

    def _private(self): ...

    @staticmethod
    def static():
        return 'static'

    @classmethod
    def of_class(cls):
        return cls.__name__

    @amphora.function(name='renamed')
    def original(self):
        return 'renamed'

    twice = functools.partialmethod(take, 2)


def test_public_methods_are_named_after_the_class():
    methods = public_methods(Stock())

    assert sorted(methods) == [
        'Stock.inherited',
        'Stock.of_class',
        'Stock.overridden',
        'Stock.renamed',
        'Stock.static',
        'Stock.take',
        'Stock.twice',
    ]
    assert [methods[f'Stock.{name}']() for name in ('inherited', 'of_class', 'overridden', 'renamed', 'static')] == [
        'inherited',
        'Stock',
        'stock',
        'renamed',
        'static',
    ]
    assert [methods['Stock.take'](3), methods['Stock.twice']()] == [3, 2]


def test_another_name_may_stand_for_the_class():
    assert list(public_methods(Base(), 'store.two')) == ['store.two.inherited', 'store.two.overridden']


def test_an_object_without_public_methods_is_an_error():
    class Bare:
        def _private(self): ...

    with pytest.raises(ValueError, match='has no public method'):
        public_methods(Bare())


@pytest.mark.parametrize(('value', 'says'), [(Stock, 'give an object of it'), (math, 'load_functions')])
def test_a_class_or_module_is_no_object_to_add(value, says):
    with pytest.raises(TypeError, match=says):
        public_methods(value)


@pytest.mark.parametrize(('name', 'error'), [('', ValueError), (5, TypeError)])
def test_a_name_must_be_one(name, error):
    with pytest.raises(error):
        public_methods(Stock(), name)


def test_two_methods_of_one_name_are_an_error():
    class Twice:
        def one(self): ...

        @amphora.function(name='one')
        def two(self): ...

    with pytest.raises(ValueError, match='are named'):
        public_methods(Twice())
