"""Which stage of a call takes how much of the time, from the stacks that a profiler has sampled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

#: stages of a call, and the beginnings of the files that they are in; the first that fits counts
STAGES = {
    'sockets': ('amphora/amqp/transport',),
    'frames, headers, properties': (
        'amphora/amqp/frames',
        'amphora/amqp/properties',
        'amphora/amqp/content',
        'amphora/amqp/fields',
    ),
    'connection, channel, confirms, acks': ('amphora/amqp/',),
    'publishing': ('amphora/publisher', 'amphora/session'),
    'consuming': ('amphora/consumer', 'amphora/intake'),
    'values to bytes and back': ('amphora/serializer', 'amphora/dialects', 'amphora/envelope'),
    'calls and who waits for them': ('amphora/client', 'amphora/caller', 'amphora/pending'),
    'requests: once each, in time, in a greenlet': (
        'amphora/answering',
        'amphora/redelivery',
        'amphora/dead_letters',
        'amphora/recent',
        'amphora/workers',
        'amphora/server',
        'amphora/dispatch',
    ),
    'the rest of amphora': ('amphora/',),
    'gevent': ('gevent/', 'greenlet/'),
    'the benchmark': ('tests/benchmarks', 'benchmarks/'),
}
ELSEWHERE = 'elsewhere'


def shares(stacks: Iterable[str]) -> dict[str, float]:
    """The share of each stage, by where the innermost function is.

    :param stacks: lines of ``function (file:line);...;function (file:line) samples``, the outermost function first.
    """
    samples: Counter[str] = Counter()
    for line in stacks:
        stack, _, count = line.rpartition(' ')
        frames = stack.split(';')
        # While Python imports, nobody is called yet.
        if not any('importlib' in frame for frame in frames):
            samples[_stage(frames[-1])] += int(count)
    total = samples.total()
    return {stage: samples[stage] / total for stage in (*STAGES, ELSEWHERE) if samples[stage]}


def _stage(frame: str) -> str:
    file = frame.rpartition('(')[2].rpartition(':')[0]
    return next((stage for stage, files in STAGES.items() if file.startswith(files)), ELSEWHERE)
