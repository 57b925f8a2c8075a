"""amphora demo: the first thing that people run."""

import re

from tests.cli.conftest import Run


def test_calls_are_shown_with_their_results_and_then_how_fast_a_thousand_are(run: Run):
    # With an address of the user's own, which it must not touch.
    status, stdout, stderr = run('demo', AMPHORA_AMQP_URL='amqp://127.0.0.1:1/')

    assert (status, stderr) == (0, '')
    *first, bar, rate = stdout.splitlines()
    assert first == [
        'client.call.add(2, 3) -> 5',
        'client.call.sub(10, 3) -> 7',
        'client.call.multiply(5, 5) -> 25',
        'client.call.div(64, 16) -> 4.0',
        '5 7 25 4.0',
    ]
    assert re.fullmatch(r'1000 calls at once .* 1000/1000 *', bar)
    assert re.fullmatch(r'\d+ calls a second', rate)
