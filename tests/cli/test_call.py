"""amphora call: arguments from a shell, results and failures as exit codes."""

from functools import partial

import pytest
from gevent import subprocess

from amphora import AmqpRpcFanoutServer, RpcMsgPackSerializer
from tests.cli.conftest import AMPHORA, Run, environ


def echo(*args, **kwargs):
    return [args, kwargs]


def fail(*args):
    raise ValueError('no\nmore', 3)


def nothing():
    return None


def is_bytes(value):
    return {'nämlich': value}


@pytest.fixture
def serving(serving):
    """Makes servers of the test's service, with the functions of this file."""
    return partial(serving, echo, fail, nothing, is_bytes, named={'dotted.name': echo})


@pytest.fixture
def call(run: Run, amqp_url, service):
    """Runs ``amphora call`` of the test's service."""

    def to_end(function: str, *args: str, **more: str):
        return run('call', service, function, *args, **{'AMPHORA_AMQP_URL': amqp_url, **more})

    return to_end


@pytest.mark.parametrize(
    ('given', 'shown'),
    [
        (('2', '3.5', 'true', 'null'), '[[2,3.5,true,null],{}]'),
        (('-2', '-0.5', '-1e5'), '[[-2,-0.5,-100000.0],{}]'),
        (('two', '"2"', '+49', ''), '[["two","2","+49",""],{}]'),
        (('[1, {"a": "ä"}]', 'ä'), '[[[1,{"a":"ä"}],"ä"],{}]'),
        (('-k', 'x=1', '--keyword', 'y=a=b', '1'), '[[1],{"x":1,"y":"a=b"}]'),
        (('--', '-k', '--timeout', '-'), '[["-k","--timeout","-"],{}]'),
    ],
)
def test_arguments_are_json_where_they_parse_as_json(serving, call, given, shown):
    serving()

    assert call('echo', *given) == (0, shown + '\n', '')


def test_a_result_may_be_none_and_a_name_dotted(serving, call):
    serving()

    assert call('nothing') == (0, 'null\n', '')
    assert call('dotted.name') == (0, '[[],{}]\n', '')


def test_a_remote_exception_ends_with_one(serving, call):
    serving()

    assert call('fail') == (1, '', "amphora: the function raised ValueError('no\\nmore', 3)\n")


def test_a_function_that_does_not_exist_ends_with_one(serving, call):
    serving()

    status, stdout, stderr = call('missing')

    assert (status, stdout) == (1, '')
    assert stderr == "amphora: no function 'missing' is registered\n"


def test_no_result_in_time_ends_with_three(call):
    status, stdout, stderr = call('echo', '--timeout', '0.5')

    assert (status, stdout) == (3, '')
    assert stderr == 'amphora: no result in time; the call may have run, or may be running\n'


def test_a_routing_key_that_leads_nowhere_ends_with_three(call):
    status, _, stderr = call('echo', '--routing-key', 'nowhere')

    assert status == 3
    assert stderr.startswith('amphora: no queue takes the request')


def test_no_broker_ends_with_four_at_once(call):
    assert call('echo', AMPHORA_AMQP_URL='amqp://127.0.0.1:1/') == (
        4,
        '',
        'amphora: cannot connect to 127.0.0.1:1: [Errno 111] Connection refused\n',
    )


def test_no_access_ends_with_four_and_never_shows_the_password(call, rabbit):
    url = f'amqp://guest:not-the-word@127.0.0.1:{rabbit.port}/'

    status, stdout, stderr = call('echo', '--url', url, '--debug')

    assert (status, stdout) == (4, '')
    assert stderr.startswith('Traceback (most recent call last):')
    assert stderr.splitlines()[-1].startswith('amphora: 403 ACCESS_REFUSED')
    assert 'not-the-word' not in stderr


def test_a_broker_that_can_be_reached_is_found_among_several(serving, call, amqp_url):
    serving()

    assert call('nothing', '--url', f'amqp://127.0.0.1:1/,{amqp_url}').status == 0


@pytest.mark.parametrize(
    ('given', 'said'),
    [
        ((), "Missing argument 'FUNCTION'."),
        (('f', '--timout', '5'), 'no such option: --timout (text that begins with - goes behind --)'),
        (('f', '--timout', '5', '--', '-x'), 'no such option: --timout (text that begins with - goes behind --)'),
        (('f', '-k', 'x'), "Invalid value for '-k' / '--keyword': 'x' is not name=value"),
        (('f', '--timeout', 'soon'), "Invalid value for '--timeout': 'soon' is not a valid float range."),
        (('f', '--url', 'http://x/'), "unknown scheme 'http' in an AMQP URI; schemes are amqp, amqps"),
    ],
)
def test_wrong_usage_ends_with_two(run: Run, given, said):
    assert run('call', 'service', *given) == (2, '', f'amphora: {said}\n')


def test_fanout_servers_are_called_with_fanout(serving, call):
    serving(kind=AmqpRpcFanoutServer)
    serving(kind=AmqpRpcFanoutServer)

    assert call('echo', '1', '--fanout') == (0, '[[1],{}]\n', '')


def test_fanout_servers_that_are_not_there_end_with_three(call):
    assert call('echo', '--fanout').status == 3


def test_messagepack_is_spoken_on_demand(serving, call):
    serving(serializer=RpcMsgPackSerializer)

    assert call('is_bytes', '1', '--msgpack') == (0, '{"nämlich":1}\n', '')


def test_a_reader_that_leaves_early_is_no_traceback(serving, amqp_url, service, tmp_path):
    serving()
    process = subprocess.Popen(
        [*AMPHORA, 'call', service, 'echo', 'x' * 100_000],
        env=environ(AMPHORA_AMQP_URL=amqp_url),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    process.stdout.close()

    assert process.stderr.read() == b''
    assert process.wait(timeout=20) == 1
