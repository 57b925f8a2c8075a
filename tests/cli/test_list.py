"""amphora list: who serves what."""

import json
import os
import socket

import pytest

from amphora import AmqpRpcFanoutServer
from amphora.amqp import Connection
from tests.cli.conftest import Run


def add(x, y=1):
    """The sum.

    Of two numbers.
    """
    return x + y


def quiet(*args, **kwargs):
    return None


@pytest.fixture
def amqp_url(rabbit, vhost):
    """Of a virtual host where nobody else answers."""
    return rabbit.url_of(vhost)


def line_of(server):
    return f'  server {server.uuid}  host {socket.gethostname()}  pid {os.getpid()}'


def test_services_come_with_their_servers_and_functions(run: Run, serving, amqp_url):
    numbers = serving(add, quiet, service='numbers')
    news = serving(quiet, service='news', kind=AmqpRpcFanoutServer)

    status, stdout, stderr = run('list', '--url', amqp_url)

    assert (status, stderr) == (0, '')
    assert stdout.splitlines() == [
        'news (fanout)',
        line_of(news),
        '  quiet(*args, **kwargs)',
        'numbers',
        line_of(numbers),
        '  add(x, y=1)             The sum.',
        '  quiet(*args, **kwargs)',
    ]


def test_one_service_can_be_asked_for(run: Run, serving, amqp_url):
    serving(add, service='numbers')
    serving(quiet, service='news')

    assert run('list', 'news', '--url', amqp_url).stdout.splitlines()[0] == 'news'


def test_servers_that_differ_are_shown_to(run: Run, serving, amqp_url):
    serving(add, service='numbers')
    serving(add, quiet, service='numbers')

    stdout = run('list', '--url', amqp_url).stdout

    assert stdout.count('  server ') == 2
    assert stdout.splitlines()[3:] == [
        '  add(x, y=1)             The sum.',
        '  quiet(*args, **kwargs)  (1 of 2 servers)',
    ]


def test_json_holds_all_of_it(run: Run, serving, amqp_url):
    server = serving(add, service='numbers')

    assert json.loads(run('list', '--url', amqp_url, '--json').stdout) == [
        {
            'service': 'numbers',
            'uuid': server.uuid,
            'host': socket.gethostname(),
            'pid': os.getpid(),
            'fanout': False,
            'functions': [{'name': 'add', 'signature': '(x, y=1)', 'doc': 'The sum.'}],
        }
    ]


def test_what_a_terminal_would_obey_is_not_shown_to_it(run: Run, serving, amqp_url):
    def trick():
        """\x1b]0;title\x07 words"""

    serving(trick, service='numbers')

    assert run('list', '--url', amqp_url).stdout.splitlines()[2] == r'  trick()  \x1b]0;title\x07 words'


def test_where_nobody_has_ever_served_nobody_answers_and_nothing_is_left(run: Run, rabbit, vhost, amqp_url):
    assert run('list', '--url', amqp_url) == (3, '', 'amphora: no server answered within 1 s\n')
    assert rabbit.list_queues(vhost) == {}
    assert 'rpc_' not in rabbit.ctl('list_exchanges', '-p', vhost, 'name')


def test_a_service_that_nobody_serves_ends_with_three(run: Run, serving, amqp_url):
    serving(add, service='numbers')

    assert run('list', 'missing', '--url', amqp_url, '--wait', '0.5') == (
        3,
        '',
        "amphora: no server of 'missing' answered within 0.5 s\n",
    )


def test_a_server_without_introspection_is_not_listed(run: Run, serving, amqp_url):
    serving(add, service='numbers', introspection=False)

    assert run('list', '--url', amqp_url).status == 3


def test_servers_that_do_not_answer_and_answers_that_make_no_sense_are_passed_over(run: Run, serving, amqp_url):
    serving(add, service='numbers')
    with Connection.from_url(amqp_url) as connection:
        channel = connection.channel()
        dead, odd = (channel.queue.declare(exclusive=True).queue for _ in range(2))
        for queue in (dead, odd):
            channel.queue.bind(queue, 'rpc_amphora_request', '')

        def answer(request):
            for body in (b'{"result": {"service": 5}}', b'{"exception": {"type": "Odd", "args": []}}', b'what?'):
                request.body = body
                channel.basic.publish(request, 'rpc_amphora_response', request.properties['reply_to'])

        channel.basic.consume(odd, answer, no_ack=True)

        status, stdout, stderr = run('list', '--url', amqp_url)

    assert (status, stderr) == (0, '')
    assert stdout.count('  server ') == 1


def test_no_broker_ends_with_four(run: Run):
    status, stdout, stderr = run('list', '--url', 'amqp://127.0.0.1:1/')

    assert (status, stdout) == (4, '')
    assert stderr == 'amphora: cannot connect to 127.0.0.1:1: [Errno 111] Connection refused\n'
