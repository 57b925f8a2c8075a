"""Arguments against annotations: what fits, what it becomes, and what is said of what does not fit."""

from __future__ import annotations

import functools
import uuid
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Annotated, Any, Literal, NamedTuple, Optional

import msgspec
import pytest

from amphora.arguments import Annotations, Misfit


class Item(msgspec.Struct):
    name: str
    price: float = 0.0
    parts: list[Item] = []


@dataclass
class Point:
    x: int
    y: int = 0


def fitted(function: Any, *args: Any, **kwargs: Any) -> Any:
    """What the function makes of arguments that were validated."""
    return Annotations(function).before(function)(*args, **kwargs)


def misfit(function: Any, *args: Any, **kwargs: Any) -> str:
    with pytest.raises(Misfit) as caught:
        Annotations(function).fit(args, kwargs)
    return str(caught.value)


def add(x: int, y: int = 1) -> int:
    return x + y


# -- what fits ---------------------------------------------------------------------------------------------------------


def test_arguments_that_fit_arrive_by_position_and_by_name() -> None:
    assert [fitted(add, 2, 3), fitted(add, 2, y=3), fitted(add, y=3, x=2), fitted(add, 2)] == [5, 5, 5, 3]


def test_a_dict_becomes_the_struct_or_dataclass_that_is_annotated() -> None:
    def show(item: Item, point: Point) -> Any:
        return item, point

    item, point = fitted(show, {'name': 'bolt', 'parts': [{'name': 'nut'}]}, point={'x': 1})

    assert item == Item('bolt', parts=[Item('nut')])
    assert point == Point(1)


def test_text_becomes_what_has_no_form_of_its_own_on_the_wire() -> None:
    def show(id: uuid.UUID, at: datetime, number: dict[int, str]) -> Any:
        return id, at, number

    id = uuid.uuid4()

    assert fitted(show, str(id), '2024-01-02T03:04:05Z', {'7': 'seven'}) == (
        id,
        datetime(2024, 1, 2, 3, 4, 5, tzinfo=timezone.utc),
        {7: 'seven'},
    )


def test_what_a_serializer_has_made_already_stays_as_it_is() -> None:
    def show(data: bytes, at: datetime, number: dict[int, str]) -> Any:
        return data, at, number

    given = (b'\x00\xff', datetime(2024, 1, 2, tzinfo=timezone.utc), {7: 'seven'})

    assert fitted(show, *given) == given


def test_optional_and_union_types_take_each_of_theirs() -> None:
    def show(x: Optional[int] = None, y: int | str = 0) -> Any:  # noqa: UP045  # both ways to write it
        return x, y

    assert [fitted(show, None, 'a'), fitted(show, 1), fitted(show)] == [(None, 'a'), (1, 0), (None, 0)]


def test_what_is_not_annotated_takes_anything() -> None:
    def show(a, b: Any, c: object) -> Any:  # type: ignore[no-untyped-def]
        return a, b, c

    assert fitted(show, [1], {'x': None}, 'c') == ([1], {'x': None}, 'c')


def test_each_of_many_arguments_is_converted() -> None:
    def show(*points: Point, **items: Item) -> Any:
        return points, items

    assert fitted(show, {'x': 1}, {'x': 2}, a={'name': 'bolt'}) == ((Point(1), Point(2)), {'a': Item('bolt')})


def test_arguments_that_are_by_position_or_by_name_only_stay_so() -> None:
    def show(a: int, /, *, b: int) -> Any:
        return a, b

    assert fitted(show, 1, b=2) == (1, 2)
    assert "'b'" in misfit(show, 1, 2) or 'positional' in misfit(show, 1, 2)
    assert "'a'" in misfit(show, a=1, b=2)


def test_methods_partials_and_objects_that_can_be_called_are_validated() -> None:
    class Stock:
        def take(self, count: int) -> int:
            return count

        def __call__(self, count: int) -> int:
            return -count

    for function in (Stock().take, Stock(), functools.partial(add, 1), functools.partial(Stock().take)):
        assert 'Expected `int`, got `str`' in misfit(function, 'one')


# -- what does not -----------------------------------------------------------------------------------------------------


def test_the_argument_that_does_not_fit_is_named_and_why() -> None:
    assert misfit(add, 2, '3') == "argument 'y': Expected `int`, got `str`"


def test_the_place_inside_of_an_argument_is_named() -> None:
    def show(items: list[Item]) -> None: ...

    assert misfit(show, [{'name': 'bolt'}, {'name': 5}]) == (
        "argument 'items': Expected `str`, got `int` - at `items[1].name`"
    )
    assert misfit(show, items=[{}]) == "argument 'items': Object missing required field `name` - at `items[0]`"


def test_nothing_is_guessed() -> None:
    def show(x: int, y: bool, z: str) -> None: ...

    assert "'x'" in misfit(show, True, True, '')
    assert "'y'" in misfit(show, 1, 1, '')
    assert "'z'" in misfit(show, 1, True, 1)


def test_limits_of_a_value_are_checked() -> None:
    def show(x: Annotated[int, msgspec.Meta(gt=0)], y: Literal['a', 'b'] = 'a') -> None: ...

    assert misfit(show, 0) == "argument 'x': Expected `int` >= 1"
    assert "'y'" in misfit(show, 1, 'c')


def test_one_of_many_arguments_is_named() -> None:
    def show(*numbers: int, **named: int) -> None: ...

    assert misfit(show, 1, 2, 'three') == "argument 'numbers[2]': Expected `int`, got `str`"
    assert misfit(show, a=1, b='two') == "argument 'b': Expected `int`, got `str`"


def test_missing_and_unknown_arguments_are_named() -> None:
    assert misfit(add) == "missing a required argument: 'x'"
    assert misfit(add, 1, z=2) == "got an unexpected keyword argument 'z'"
    assert misfit(add, 1, 2, 3) == 'too many positional arguments'


def test_what_is_said_of_a_misfit_is_not_as_long_as_the_sender_likes() -> None:
    def show(**named: Literal['a']) -> None: ...

    assert len(misfit(show, **{'k' * 10_000: 'v' * 10_000})) < 1000
    assert len(misfit(add, **{'k' * 10_000: 1, 'x': 1})) < 1000


# -- what cannot be validated ------------------------------------------------------------------------------------------


class Own:
    """Of which msgspec knows nothing."""


class Holder(msgspec.Struct):
    held: list[Own]


def test_an_annotation_that_msgspec_cannot_check_is_an_error_at_once() -> None:
    def one(x: Own) -> None: ...
    def two(x: dict[str, list[Own | None]]) -> None: ...
    def three(x: Holder) -> None: ...
    def four(x: Item | Holder) -> None: ...

    for function in (one, two, three, four):
        with pytest.raises(TypeError, match=r"argument 'x' of .* cannot be validated"):
            Annotations(function)


def test_an_annotation_that_does_not_evaluate_is_an_error_at_once() -> None:
    def broken(x: NoSuchName) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(TypeError, match="NameError: name 'NoSuchName'"):
        Annotations(broken)


def test_a_function_whose_parameters_python_does_not_know_is_an_error_at_once() -> None:
    class Unknown:
        __signature__ = 'no signature'

        def __call__(self) -> None: ...

    with pytest.raises(TypeError, match=r'the arguments of .* cannot be validated'):
        Annotations(Unknown())


def test_a_class_is_validated_by_what_it_is_made_of() -> None:
    class Same(Item):
        pass

    assert fitted(Same, 'bolt', 2.5) == Same('bolt', 2.5)
    assert misfit(Point, 'one') == "argument 'x': Expected `int`, got `str`"


class Place(NamedTuple):
    x: int
    y: int = 0


class Spot(msgspec.Struct):
    x: int


def test_classes_that_have_no_init_of_their_own_are_made_of_their_fields():
    assert fitted(Place, 1) == Place(1)
    assert misfit(Spot, 'a') == misfit(Place, 'a') == "argument 'x': Expected `int`, got `str`"


class Made:
    x: str

    def __new__(cls, x: int) -> Made:
        return object.__new__(cls)


def test_a_class_that_new_makes_takes_what_new_takes():
    assert isinstance(fitted(Made, 1), Made)
    assert misfit(Made, 'a') == "argument 'x': Expected `int`, got `str`"
