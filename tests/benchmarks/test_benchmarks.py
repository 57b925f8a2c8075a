"""That each benchmark can be run. How fast anything is, no test asks."""

import json
import platform
import sys
from pathlib import Path

import pytest
from gevent import subprocess

from tests.benchmarks.contender import CONTENDERS, Contender
from tests.benchmarks.measurement import Measurement, Place, measure
from tests.benchmarks.process import ROOT, Failed
from tests.benchmarks.results import Results
from tests.benchmarks.stages import shares
from tests.benchmarks.targets import targets
from tests.benchmarks.work import Work, smallest_works, works
from tests.rabbitmq import RabbitNode

# Those that need nothing but what the tests need anyway, and start quickly.
HERE = ('amphora', 'C ', 'aio-pika', 'pika', 'py-amqp')


@pytest.mark.limit(100)
def test_each_benchmark_runs_at_its_smallest_size(rabbit: RabbitNode, tmp_path: Path):
    only = [word for name in HERE for word in ('--only', name)]
    command = [sys.executable, '-m', 'tests.benchmarks', '--smallest', '--url', rabbit.url, '--output', str(tmp_path)]

    shown = subprocess.check_output([*command, *only], cwd=ROOT).decode()

    figures = json.loads((tmp_path / 'results.json').read_text())
    done = {(each['contender'], each['work']) for each in figures['measurements']}
    asked = [each for each in CONTENDERS if each.name.startswith(HERE)]
    assert figures['failures'] == []
    assert done == {(each.name, work.name) for each in asked for work in smallest_works() if work.kind in each.kinds}
    assert all(one['rate'] > 0 for each in figures['measurements'] for one in each['rounds'])
    assert figures['memory_bytes_per_call']['client'] > 0
    assert figures['import_seconds'] > 0
    assert (tmp_path / 'results.txt').read_text() in shown
    assert {'RabbitMQ', 'Erlang', 'Python', 'librabbitmq', 'gevent'} <= set(figures['Versions'])
    assert platform.node() not in (tmp_path / 'results.txt').read_text().split()


def test_every_benchmark_has_a_smallest_size():
    assert {work.kind for work in smallest_works()} == {work.kind for work in works(0, 0)}


def test_who_is_not_installed_is_named_with_what_is_missing():
    nobody = Contender('nobody', 'nobody_rpc', needs='no-such-distribution')

    assert nobody.missing() == 'no-such-distribution is not installed; `make bench` installs it'


def test_who_cannot_be_started_is_named_with_the_last_that_it_said(rabbit: RabbitNode, tmp_path: Path):
    nobody = Contender('nobody', 'nobody_rpc')

    with pytest.raises(Failed, match='nobody_rpc'):
        measure(nobody, Work(1), Place(rabbit.url, rabbit.pid, tmp_path))


def test_ratios_are_of_medians_and_targets_say_whether_they_are_reached():
    work = Work(100)
    results = Results({work.name: work}, ['amphora safe', 'C safe'])
    for rate in (70, 90, 1_000):
        results.measurements['amphora safe', work.name].append(Measurement(rate, 0, 0, 20, 30, None))
    for rate in (1, 100, 101):
        results.measurements['C safe', work.name].append(Measurement(rate, 0, 0, 1, 1, None))

    rows = {each.measure: each for each in targets(results)}

    assert rows['amphora safe / C safe, 100 callers'].figure == pytest.approx(0.9)
    assert rows['amphora safe / C safe, 100 callers'].verdict == 'reached'
    assert rows['CPU a call, client and server, amphora safe, 100 callers'].verdict == 'not reached'
    assert rows['amphora safe / C safe, 1 caller'].verdict == 'not measured'


def test_the_shares_of_stages_go_by_the_innermost_function():
    assert shares(
        [
            'run (gevent/hub.py:1);_readable (amphora/amqp/transport.py:1) 2',
            'run (gevent/hub.py:1);_readable (amphora/amqp/transport.py:1);feed (amphora/amqp/frames.py:1) 5',
            'feed (amphora/amqp/frames.py:1);handle (amphora/amqp/channel.py:1) 1',
            'main (tests/benchmarks/load.py:1) 1',
            '<module> (script.py:1) 1',
            '<module> (amphora/client.py:1);_find_and_load (<frozen importlib._bootstrap>:1) 90',
        ]
    ) == {
        'sockets': 0.2,
        'frames, headers, properties': 0.5,
        'connection, channel, confirms, acks': 0.1,
        'the benchmark': 0.1,
        'elsewhere': 0.1,
    }
