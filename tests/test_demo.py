"""The first thing that people run."""

import sys
from pathlib import Path

import pytest
from gevent import subprocess

ROOT = Path(__file__).parent.parent


@pytest.mark.limit(90)
def test_the_demo_shows_each_call_and_what_came_back():
    shown = subprocess.run([sys.executable, '-m', 'tests.demo'], cwd=ROOT, stdout=subprocess.PIPE, check=True)

    lines = [line.strip() for line in shown.stdout.decode().splitlines()]
    assert lines[-5:] == [
        'client.call.add(2, 3) -> 5',
        'client.call.sub(10, 3) -> 7',
        'client.call.multiply(5, 5) -> 25',
        'client.call.div(64, 16) -> 4.0',
        '5 7 25 4.0',
    ]
