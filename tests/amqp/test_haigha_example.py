"""haigha's users find what they know: the example of its README runs with only its imports and `print` changed."""

from __future__ import annotations

import pytest

from amphora.amqp import Connection, Message
from tests.rabbitmq import RabbitNode


def test_the_example_of_haighas_readme_runs(rabbit: RabbitNode, capsys: pytest.CaptureFixture[str]) -> None:
    # One thing is added to the example: `port`, because the tests' broker listens on one of its own.
    connection = Connection(
        user='guest', password='guest', vhost='/', host='localhost', heartbeat=None, debug=True, port=rabbit.port
    )
    ch = connection.channel()
    ch.exchange.declare('test_exchange', 'direct')
    ch.queue.declare('test_queue', auto_delete=True)
    ch.queue.bind('test_queue', 'test_exchange', 'test_key')
    ch.basic.publish(Message('body', application_headers={'hello': 'world'}), 'test_exchange', 'test_key')
    print(ch.basic.get('test_queue'))  # noqa: T201 - the example prints
    connection.close()

    printed = capsys.readouterr().out
    assert "b'body'" in printed
    assert "{'hello': 'world'}" in printed
    assert connection.closed
