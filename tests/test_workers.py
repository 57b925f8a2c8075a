"""Worker greenlets: what runs where, and that all of it runs."""

import gc
import weakref
from contextvars import ContextVar

import gevent
import pytest
from gevent import getcurrent
from gevent.event import Event

from amphora.workers import Workers

number = ContextVar('number', default=0)


class Task:
    pass


@pytest.fixture
def begun():
    return []


def test_tasks_that_come_together_run_in_one_greenlet(begun):
    workers = Workers(10)
    for each in range(3):
        workers.begin(lambda task: begun.append((task, getcurrent())), each)
    assert len(workers) == 3
    gevent.sleep(0)
    assert [task for task, _ in begun] == [0, 1, 2]
    assert len({greenlet for _, greenlet in begun}) == 1
    assert len(workers) == 0


def test_what_waits_leaves_the_others_to_another_greenlet(begun):
    workers, go = Workers(10), Event()

    def work(task):
        begun.append((task, getcurrent()))
        if task in (0, 2):
            go.wait()

    for each in range(4):
        workers.begin(work, each)
    gevent.sleep(0)
    assert [task for task, _ in begun] == [0, 1, 2, 3]
    greenlets = dict(begun)
    assert greenlets[1] is greenlets[2], 'the second worker goes on until it waits, too'
    assert len({greenlets[0], greenlets[1], greenlets[3]}) == 3
    assert len(workers) == 2
    assert greenlets[0] in workers
    assert greenlets[3] not in workers
    go.set()
    gevent.sleep(0)
    assert len(workers) == 0


def test_a_worker_that_went_on_takes_what_has_come_meanwhile(begun):
    workers, go = Workers(10), Event()
    workers.begin(lambda _: go.wait(), 'first')
    gevent.sleep(0)

    def come():
        workers.begin(lambda task: begun.append(task), 'second')
        workers.begin(lambda task: begun.append(task), 'third')

    gevent.spawn(come)
    go.set()
    gevent.sleep(0.01)
    assert begun == ['second', 'third']
    assert len(workers) == 0


def test_each_task_has_a_greenlet_of_its_own_where_none_are_kept(begun):
    workers = Workers(0)
    for each in range(3):
        workers.begin(lambda task: begun.append((task, getcurrent())), each)
    gevent.sleep(0)
    assert [task for task, _ in begun] == [0, 1, 2]
    assert len({greenlet for _, greenlet in begun}) == 3


def test_each_task_has_a_context_of_its_own(begun):
    workers = Workers(10)

    def work(task):
        begun.append(number.get())
        number.set(task)

    for each in (1, 2, 3):
        workers.begin(work, each)
    gevent.sleep(0)
    assert begun == [0, 0, 0]


def test_one_that_raises_does_not_keep_the_others_from_running(begun, capsys):
    workers = Workers(10)

    def work(task):
        begun.append(task)
        if task == 1:
            raise ValueError('of the second')

    for each in range(3):
        workers.begin(work, each)
    gevent.sleep(0)
    assert begun == [0, 1, 2]
    assert len(workers) == 0
    assert 'ValueError: of the second' in capsys.readouterr().err


def test_after_ctrl_c_in_one_the_others_run(begun):
    workers = Workers(10)

    def work(task):
        begun.append(task)
        if task == 1:
            raise KeyboardInterrupt

    for each in range(4):
        workers.begin(work, each)
    with pytest.raises(KeyboardInterrupt):
        gevent.sleep(0.01)
    gevent.sleep(0.01)
    assert begun == [0, 1, 2, 3]
    assert len(workers) == 0


def test_a_task_is_kept_no_longer_than_it_runs():
    workers, task = Workers(10), Task()
    known = weakref.ref(task)
    workers.begin(lambda _: None, task)
    del task
    gevent.sleep(0)
    gc.collect()
    assert known() is None


def test_those_without_a_task_are_let_go(begun):
    workers = Workers(10)
    workers.begin(lambda _: begun.append(getcurrent()), None)
    gevent.sleep(0)
    (worker,) = begun
    assert not worker.dead
    workers.dismiss()
    gevent.sleep(0)
    assert worker.dead


def test_what_the_loop_was_kept_from_beginning_begins_when_it_is_asked_to_go_on(begun):
    workers = Workers(10)
    workers.begin(begun.append, 'task')
    # As Ctrl-C before the first line of what the loop calls.
    (callback,) = [each for each in gevent.get_hub().loop._callbacks if each.callback == workers._begin_all]
    callback.stop()
    gevent.sleep(0.01)
    assert begun == []
    assert len(workers) == 1
    workers.go_on()
    gevent.sleep(0)
    assert begun == ['task']


def test_what_has_not_begun_is_not_a_forked_childs(begun):
    workers = Workers(10)
    workers.begin(begun.append, 'task')
    workers.abandon()
    gevent.sleep(0)
    assert begun == []
    assert len(workers) == 0
