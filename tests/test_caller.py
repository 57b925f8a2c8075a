"""`PrettyCaller`: what is called, with which name, arguments and options; and what is never called."""

from __future__ import annotations

import copy
import gc
import inspect
import pickle
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from amphora.caller import NO_OPTIONS, PrettyCaller

OPTIONS = frozenset({'timeout', 'routing_key'})


class Recorder:
    """A callback that keeps what it was called with and returns the function's name."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any], dict[str, Any]]] = []

    def __call__(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], options: Mapping[str, Any]) -> str:
        self.calls.append((name, args, kwargs, dict(options)))
        return 'result of ' + name


@pytest.fixture
def sent() -> Recorder:
    return Recorder()


@pytest.fixture
def call(sent: Recorder) -> PrettyCaller:
    return PrettyCaller(sent, OPTIONS, 'call')


def test_an_attribute_is_the_function_and_its_call_is_the_call(call: PrettyCaller, sent: Recorder) -> None:
    assert call.add(2, 3, base=10) == 'result of add'
    assert sent.calls == [('add', (2, 3), {'base': 10}, {})]


def test_attributes_of_attributes_make_a_dotted_name(call: PrettyCaller, sent: Recorder) -> None:
    call.send_message.email.text('root@example.com', 'Message')
    assert sent.calls == [('send_message.email.text', ('root@example.com', 'Message'), {}, {})]


def test_what_the_callback_raises_reaches_the_caller() -> None:
    def refuse(*_: object) -> None:
        raise LookupError('no such function')

    with pytest.raises(LookupError, match='no such function'):
        PrettyCaller(refuse).add(2, 3)


def test_a_part_of_a_name_can_be_kept_and_used_again(call: PrettyCaller, sent: Recorder) -> None:
    sender = call.send_message.email
    sender.text(1)
    sender.html(2)
    sender(3)
    assert [name for name, *_ in sent.calls] == [
        'send_message.email.text',
        'send_message.email.html',
        'send_message.email',
    ]


def test_every_attribute_gives_a_caller_of_its_own_which_is_remembered(call: PrettyCaller) -> None:
    assert isinstance(call.add, PrettyCaller)
    assert call.add is call.add
    assert call.add is not call.add.add
    assert call.add is not call(timeout=5).add


def test_not_more_callers_are_remembered_than_a_program_has_functions(call: PrettyCaller, sent: Recorder) -> None:
    first = call.function_0
    for number in range(100_000):
        getattr(call, 'function_%d' % number)
        # As a gateway would that is told dotted names.
        getattr(getattr(first, 'part_%d' % (number // 100)), 'part_%d' % number)
    gc.collect()

    assert sum(isinstance(each, PrettyCaller) for each in gc.get_objects()) < 2000
    assert call.function_0 is first
    call.function_99999(1)
    call.function_0.part_999.part_99999(2)
    assert [(name, args) for name, args, *_ in sent.calls] == [
        ('function_99999', (1,)),
        ('function_0.part_999.part_99999', (2,)),
    ]


def test_a_caller_with_options_leaves_nothing_to_the_garbage_collector(call: PrettyCaller) -> None:
    gc.collect()
    gc.disable()
    try:
        for _ in range(100):
            call(timeout=5).send_message.sms('+123')
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_options_are_given_by_calling_before_there_is_a_name(call: PrettyCaller, sent: Recorder) -> None:
    call(timeout=5, routing_key='u').show_message('Hello')
    assert sent.calls == [('show_message', ('Hello',), {}, {'timeout': 5, 'routing_key': 'u'})]


def test_options_given_once_do_not_stay_with_the_caller_they_were_given_to(call: PrettyCaller, sent: Recorder) -> None:
    patient = call(timeout=60)
    call.add(1, 1)
    patient.add(2, 2)
    patient(timeout=1).add(3, 3)
    patient.add(4, 4)
    assert [options for *_, options in sent.calls] == [{}, {'timeout': 60}, {'timeout': 1}, {'timeout': 60}]


def test_options_of_several_calls_merge_and_the_later_wins(call: PrettyCaller, sent: Recorder) -> None:
    call(timeout=5)(routing_key='u')(timeout=6).f()
    assert sent.calls == [('f', (), {}, {'timeout': 6, 'routing_key': 'u'})]


def test_empty_options_are_options_too(call: PrettyCaller, sent: Recorder) -> None:
    options: dict[str, Any] = {}
    call(**options).add(2, 3)
    assert sent.calls == [('add', (2, 3), {}, {})]


def test_once_there_is_a_name_every_keyword_belongs_to_the_remote_function(call: PrettyCaller, sent: Recorder) -> None:
    call(timeout=5).wait(timeout=99, routing_key='x', function_name='y', self=1, args=2, kwargs=3)
    assert sent.calls == [
        (
            'wait',
            (),
            {'timeout': 99, 'routing_key': 'x', 'function_name': 'y', 'self': 1, 'args': 2, 'kwargs': 3},
            {'timeout': 5},
        )
    ]


def test_the_function_name_may_be_an_option(call: PrettyCaller, sent: Recorder) -> None:
    call(function_name='a.b')(1)
    call(timeout=5)(function_name='f')(2)
    call(timeout=5, function_name='g')(3)
    assert sent.calls == [('a.b', (1,), {}, {}), ('f', (2,), {}, {'timeout': 5}), ('g', (3,), {}, {'timeout': 5})]


def test_attributes_after_a_function_name_are_joined_to_it(call: PrettyCaller, sent: Recorder) -> None:
    call(function_name='a').b()
    assert sent.calls == [('a.b', (), {}, {})]


def test_an_unknown_option_is_an_error_that_lists_the_known_ones(call: PrettyCaller, sent: Recorder) -> None:
    with pytest.raises(TypeError) as caught:
        call(tiemout=5)
    assert str(caught.value) == (
        "call() got an unexpected option 'tiemout'; options are function_name, routing_key, timeout"
    )
    assert sent.calls == []


def test_arguments_without_a_name_are_an_error_that_says_how_to_name_the_function(
    call: PrettyCaller, sent: Recorder
) -> None:
    attempts: list[Callable[[], object]] = [
        lambda: call(2, 3),
        lambda: call(2, function_name='add'),
        lambda: call(timeout=5)(2),
    ]
    for attempt in attempts:
        with pytest.raises(TypeError, match=r"call\.add\(2, 3\) or call\(function_name='add'\)\(2, 3\)"):
            attempt()
    assert sent.calls == []


@pytest.mark.parametrize(('name', 'error'), [('', ValueError), (None, TypeError), (b'add', TypeError), (7, TypeError)])
def test_a_function_name_that_is_no_name_is_refused(call: PrettyCaller, name: object, error: type[Exception]) -> None:
    with pytest.raises(error, match=r'call\(\): function_name must'):
        call(function_name=name)


def test_a_caller_without_options_hands_on_the_one_empty_mapping() -> None:
    def options_of(name: str, args: tuple[Any, ...], kwargs: dict[str, Any], options: Mapping[str, Any]) -> Any:
        return options

    call = PrettyCaller(options_of)
    assert call.f() is NO_OPTIONS
    assert call().f() is NO_OPTIONS
    assert call(function_name='f')() is NO_OPTIONS


def test_the_callback_cannot_change_the_options() -> None:
    def meddle(name: str, args: tuple[Any, ...], kwargs: dict[str, Any], options: Mapping[str, Any]) -> None:
        options['timeout'] = 0  # type: ignore[index]

    with pytest.raises(TypeError):
        PrettyCaller(meddle, OPTIONS)(timeout=5).f()


@pytest.mark.parametrize(
    'name',
    [
        *('call', 'defer', 'name', 'args', 'kwargs', 'timeout', 'options', 'option_names', 'callback', 'verb', 'self'),
        *('function_name', 'index', 'count', 'keys', 'get', 'mro', '_state', '_read', '_private', '__half', 'half__'),
    ],
)
def test_no_attribute_of_its_own_hides_a_remote_function(call: PrettyCaller, sent: Recorder, name: str) -> None:
    getattr(call, name)(1)
    getattr(call.service, name)(2)
    assert [called for called, *_ in sent.calls] == [name, 'service.' + name]


@pytest.mark.parametrize(
    'name', ['__len__', '__html__', '__wrapped__', '__iter__', '__name__', '__array__', '__a__', '']
)
def test_dunder_attributes_do_not_exist(call: PrettyCaller, sent: Recorder, name: str) -> None:
    for caller in (call, call.add):
        assert not hasattr(caller, name)
        with pytest.raises(AttributeError):
            getattr(caller, name)
    assert sent.calls == []


@pytest.mark.parametrize(
    'probe',
    [
        copy.copy,
        copy.deepcopy,
        pickle.dumps,
        len,
        iter,
        next,
        float,
        list,
        lambda caller: caller[0],
        lambda caller: 1 in caller,
    ],
)
def test_what_python_does_with_objects_fails_and_sends_nothing(call: PrettyCaller, sent: Recorder, probe: Any) -> None:
    with pytest.raises(TypeError):
        probe(call.add)
    assert sent.calls == []


def test_looking_at_a_caller_sends_nothing(call: PrettyCaller, sent: Recorder) -> None:
    caller = call(timeout=5).send_message.sms
    assert repr(caller) == '<PrettyCaller call.send_message.sms timeout=5>'
    assert repr(call) == str(call) == '<PrettyCaller call>'
    assert repr(call(function_name='a', routing_key='u')) == "<PrettyCaller call.a routing_key='u'>"
    assert callable(caller)
    assert bool(caller)
    assert len({caller, caller, call.send_message.sms}) == 2
    assert dir(caller)
    assert list(inspect.signature(caller).parameters) == ['args', 'kwargs']
    assert not inspect.iscoroutinefunction(caller)
    assert sent.calls == []


def test_a_caller_cannot_be_changed(call: PrettyCaller) -> None:
    caller = call.add
    with pytest.raises(AttributeError, match="cannot be changed; 'timeout' was not set"):
        caller.timeout = 5
    with pytest.raises(AttributeError, match='cannot be changed'):
        caller._state = ()
    with pytest.raises(AttributeError, match="cannot be changed; 'timeout' was not deleted"):
        del caller.timeout
    assert repr(caller) == '<PrettyCaller call.add>'
