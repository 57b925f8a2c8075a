"""amphora dead: the requests that were set aside, to look at, to send back, or to drop."""

import json
import re
import subprocess
from collections.abc import Callable, Iterator

import pytest

from amphora import RpcJsonSerializer, RpcMsgPackSerializer
from amphora.amqp import Connection, Message
from amphora.compression import compress
from amphora.dead_letters import DELIVERIES, DELIVERY_COUNT, TIME, bury, dead_queue
from amphora.testing import running_broker
from tests.cli.conftest import AMPHORA, LIMIT, Run, Terminal
from tests.parties import Server
from tests.proxy import Proxy
from tests.waiting import eventually

QUORUM = {'x-queue-type': 'quorum'}
REASON = 'delivered 5 times in vain'


class Graveyard:
    """The queue of a service's dead letters, and how they get there."""

    def __init__(self, connection: Connection, service: str, arguments: dict[str, object]) -> None:
        self.queue = dead_queue(service)
        self.origin = f'rpc_{service}_request'
        self._arguments = arguments
        self._channel = connection.channel()
        self._channel.confirm.select()
        self.declare(self.queue)

    def declare(self, queue: str) -> None:
        self._channel.queue.declare(queue, durable=True, arguments=self._arguments)

    def publish(self, body: bytes, **properties: object) -> None:
        """Put anything there."""
        self._channel.basic.publish(Message(body, **properties), routing_key=self.queue, wait=True)

    def add(
        self,
        id: str,
        function: str = 'add',
        args: tuple = (2, 3),
        serializer: type = RpcJsonSerializer,
        reason: str = REASON,
        queue: str | None = None,
        time: int = 0,
        compression: str | None = None,
        **properties: object,
    ) -> None:
        """Set a request aside as a server does."""
        request = {
            'message_id': id,
            'correlation_id': id,
            'reply_to': 'somebody',
            'content_type': serializer.content_type,
            'delivery_mode': 2,
            **properties,
        }
        buried = bury(request, queue or self.origin, 5, reason)
        if time:
            buried['headers'][TIME] = time
        body = serializer.serialize_call(function, args, {'key': 'a secret'})
        if compression is not None:
            body, buried['content_encoding'] = compress(compression, body), compression
        self.publish(body, **buried)

    def count(self, queue: str = '') -> int:
        return self._channel.queue.declare(queue or self.queue, passive=True).message_count

    def wait_count(self, count: int) -> None:
        """Wait until so many are there: a quorum queue has back what was unacked a moment after the channel closed."""
        eventually(lambda: self.count() == count, LIMIT)

    def empty(self, queue: str = '') -> list[Message]:
        """Take all there are."""
        return list(iter(lambda: self._channel.basic.get(queue or self.queue, no_ack=True), None))

    def ids(self) -> list[str]:
        """The ids of all that there are, which are taken."""
        return [message.properties['message_id'] for message in self.empty()]


@pytest.fixture
def connection(amqp_url: str) -> Iterator[Connection]:
    with Connection.from_url(amqp_url) as made:
        yield made


@pytest.fixture
def graveyard(connection: Connection, service: str) -> Graveyard:
    return Graveyard(connection, service, {})


@pytest.fixture(params=[{}, QUORUM], ids=['classic', 'quorum'])
def any_graveyard(connection: Connection, service: str, request: pytest.FixtureRequest) -> Graveyard:
    return Graveyard(connection, service, request.param)


@pytest.fixture
def dead(run: Run, amqp_url: str, service: str) -> Run:
    """Runs ``amphora dead`` for the test's service."""
    return lambda *args, **more: run('dead', service, *args, AMPHORA_AMQP_URL=amqp_url, **more)


def listed(stdout: str) -> list[dict[str, object]]:
    return json.loads(stdout)


def ids_of(stdout: str) -> list[str]:
    return [letter['id'] for letter in listed(stdout)]


def own_headers(message: Message) -> dict[str, object]:
    """Headers but for the one that a quorum queue adds."""
    return {name: value for name, value in message.headers.items() if name != DELIVERY_COUNT}


# -- looking -----------------------------------------------------------------------------------------------------------


def test_the_list_says_when_what_which_how_often_from_where_and_why(dead: Run, graveyard: Graveyard):
    graveyard.add('one', time=1_700_000_000)
    graveyard.add('two', 'divide', queue='elsewhere', reason='because', time=1_700_000_060)

    status, stdout, stderr = dead(TZ='UTC')

    assert (status, stderr) == (0, '')
    assert [re.split('  +', line.rstrip()) for line in stdout.splitlines()] == [
        ['set aside', 'function', 'deliveries', 'id', 'queue', 'reason'],
        ['2023-11-14 22:13:20', 'add', '5', 'one', graveyard.origin, REASON],
        ['2023-11-14 22:14:20', 'divide', '5', 'two', 'elsewhere', 'because'],
    ]


def test_queue_and_reason_are_said_once_where_they_are_the_same(dead: Run, graveyard: Graveyard):
    for id in ('one', 'two'):
        graveyard.add(id)

    lines = dead().stdout.splitlines()

    assert lines[0].split() == ['set', 'aside', 'function', 'deliveries', 'id']
    assert [line.split()[-1] for line in lines[1:3]] == ['one', 'two']
    assert lines[3:] == [f'queue   {graveyard.origin}', f'reason  {REASON}']


def test_json_holds_all_of_it(dead: Run, graveyard: Graveyard):
    graveyard.add('one', time=1_700_000_000)

    assert listed(dead('--json').stdout) == [
        {
            'time': '2023-11-14T22:13:20Z',
            'function': 'add',
            'id': 'one',
            'deliveries': 5,
            'queue': graveyard.origin,
            'reason': REASON,
        }
    ]


def test_a_compressed_request_is_shown_as_any_other(graveyard: Graveyard, dead: Run):
    graveyard.add('one', compression='gzip')

    [letter] = listed(dead('--json', '--args').stdout)

    assert letter['function'] == 'add'
    assert letter['arguments'] == "2, 3, key='a secret'"


def test_arguments_are_only_shown_when_asked_for_and_shortened(dead: Run, graveyard: Graveyard):
    graveyard.add('one', args=('x' * 1000, list(range(1000))))

    assert 'secret' not in ''.join(map(str, dead()))
    assert 'secret' not in ''.join(map(str, dead('--json')))
    shown = dead('--args').stdout
    assert "[0, 1, 2, 3, 4, 5, ...], key='a secret'" in shown
    assert 'x' * 100 not in shown
    assert listed(dead('--json', '--args').stdout)[0]['arguments'].endswith("key='a secret'")


def test_functions_are_read_from_json_from_messagepack_and_without_a_content_type(dead: Run, graveyard: Graveyard):
    graveyard.add('one', 'in.json')
    graveyard.add('two', 'in.messagepack', serializer=RpcMsgPackSerializer)
    graveyard.publish(RpcJsonSerializer.serialize_call('of.old', (), {}))

    functions = [letter['function'] for letter in listed(dead('--json').stdout)]

    assert functions == ['in.json', 'in.messagepack', 'of.old']


def test_what_makes_no_sense_is_listed_as_far_as_it_does(dead: Run, graveyard: Graveyard):
    graveyard.publish(b'\x00 no call', message_id='odd', content_type='application/json')
    graveyard.publish(b'{}', content_type='text/of-its-own', headers={DELIVERIES: 'many', TIME: 2**62})

    status, stdout, stderr = dead('--args')

    assert (status, stderr) == (0, '')
    assert [line.split() for line in stdout.splitlines()] == [
        ['set', 'aside', 'function', 'deliveries', 'id', 'arguments'],
        ['?', '?', '?', 'odd', '?'],
        ['?', '?', '?', '?', '?'],
        ['queue', '?'],
        ['reason', '?'],
    ]
    assert listed(dead('--json').stdout)[0]['function'] is None


def test_what_a_terminal_would_obey_is_not_shown_to_it(dead: Run, graveyard: Graveyard):
    graveyard.add('\x1b]0;title\x07', reason='[bold]one\ntwo\x1b[2J')

    stdout = dead().stdout

    assert '\x1b' not in stdout
    assert r'\x1b]0;title\x07' in stdout
    assert r'[bold]one two\x1b[2J' in stdout


@pytest.mark.parametrize('times', [1, 2])
def test_the_list_takes_nothing_away_and_keeps_the_order(dead: Run, any_graveyard: Graveyard, times: int):
    # More than ten: their numbers as text are not in the order of the numbers.
    ids = [str(number) for number in range(40)]
    for id in ids:
        any_graveyard.add(id)

    for _ in range(times):
        assert ids_of(dead('--json', '--limit', '25').stdout) == ids[:25]
        any_graveyard.wait_count(40)

    assert any_graveyard.ids() == ids


def test_the_list_has_a_limit_and_says_how_many_more_there_are(dead: Run, graveyard: Graveyard):
    for number in range(102):
        graveyard.add(str(number))

    everything = dead('--json', '--limit', '102')
    some = dead('--json')

    assert (len(listed(everything.stdout)), everything.stderr) == (102, '')
    assert ids_of(some.stdout) == [str(number) for number in range(100)]
    assert some.stderr == 'amphora: 2 more; --limit 102 shows all\n'


def test_single_letters_can_be_looked_at_wherever_they_are(dead: Run, graveyard: Graveyard):
    for number in range(110):
        graveyard.add(str(number))

    status, stdout, stderr = dead('--json', '--id', '105', '--id', '7')

    assert (status, stderr) == (0, '')
    assert ids_of(stdout) == ['7', '105']


def test_ids_fit_a_narrow_terminal(terminal: Callable[..., Terminal], graveyard: Graveyard, service: str):
    id = '2b0f9e0c-7a52-4f0f-9b39-1d0c3c1ad1a7'
    graveyard.add(id, 'a.function.whose.name.is.not.among.the.shorter.ones', reason='It was so. ' * 20)

    command = terminal('dead', service)

    assert command.wait() == 0
    table = [line for line in command.shown.splitlines() if not line.startswith('reason')]
    assert id in ''.join(table)
    assert max(map(len, table)) <= 80


def test_without_dead_letters_it_says_so_and_all_is_well(dead: Run, graveyard: Graveyard, service: str):
    assert dead() == (0, f'no dead letters of {service}\n', '')
    assert dead('--json') == (0, '[]\n', '')
    assert dead('--retry') == (0, f'no dead letters of {service}\n', '')
    assert dead('--drop', '--yes') == (0, f'no dead letters of {service}\n', '')


def test_a_queue_that_was_never_needed_is_none_and_is_not_made(run: Run, rabbit, vhost: str):
    status, stdout, stderr = run('dead', 'quiet', '--url', rabbit.url_of(vhost))

    assert (status, stderr) == (0, '')
    assert stdout == 'no dead letters of quiet: there is no queue rpc_quiet_dead\n'
    assert rabbit.list_queues(vhost) == {}


def test_no_broker_ends_with_four(run: Run):
    status, stdout, stderr = run('dead', 'any', '--url', 'amqp://127.0.0.1:1/')

    assert (status, stdout) == (4, '')
    assert stderr == 'amphora: cannot connect to 127.0.0.1:1: [Errno 111] Connection refused\n'


# -- sending back ------------------------------------------------------------------------------------------------------


def test_all_go_back_as_the_requests_they_were(dead: Run, any_graveyard: Graveyard):
    any_graveyard.declare(any_graveyard.origin)
    any_graveyard.add('one', headers={'x-own': 'kept'}, priority=3, expiration='1')
    any_graveyard.add('two', serializer=RpcMsgPackSerializer)

    assert dead('--retry') == (0, 'sent back 2 dead letters\n', '')

    one, two = any_graveyard.empty(any_graveyard.origin)
    assert one.body == RpcJsonSerializer.serialize_call('add', (2, 3), {'key': 'a secret'})
    assert own_headers(one) == {'x-own': 'kept'}
    assert {name: value for name, value in one.properties.items() if name != 'headers'} == {
        'message_id': 'one',
        'correlation_id': 'one',
        'reply_to': 'somebody',
        'content_type': 'application/json',
        'delivery_mode': 2,
        'priority': 3,
    }
    assert two.properties['message_id'] == 'two'
    assert own_headers(two) == {}
    assert any_graveyard.count() == 0


def test_only_those_that_are_named_go_back_and_the_others_keep_their_order(dead: Run, any_graveyard: Graveyard):
    any_graveyard.declare(any_graveyard.origin)
    for number in range(20):
        any_graveyard.add(str(number))

    assert dead('--retry', '--id', '15', '--id', '3') == (0, 'sent back 2 dead letters\n', '')

    assert [m.properties['message_id'] for m in any_graveyard.empty(any_graveyard.origin)] == ['3', '15']
    any_graveyard.wait_count(18)
    assert any_graveyard.ids() == [str(number) for number in range(20) if number not in (3, 15)]


def test_the_oldest_can_be_tried_alone(dead: Run, graveyard: Graveyard):
    graveyard.declare(graveyard.origin)
    for number in range(3):
        graveyard.add(str(number))

    assert dead('--retry', '--limit', '1') == (0, 'sent back 1 dead letter\n', '')

    assert graveyard.ids() == ['1', '2']


def test_what_cannot_go_back_stays_and_the_command_says_why(dead: Run, any_graveyard: Graveyard):
    any_graveyard.declare(any_graveyard.origin)
    any_graveyard.add('lost', queue='no-such-queue')
    any_graveyard.add('good')
    any_graveyard.add('lost too', queue='no-such-queue')
    any_graveyard.publish(b'{}', message_id='odd')

    status, stdout, stderr = dead('--retry')

    assert (status, stdout) == (1, 'sent back 1 dead letter\n')
    assert stderr.splitlines() == [
        "amphora: 2 dead letters stay: there is no queue 'no-such-queue' any more",
        'amphora: 1 dead letter stays: it does not say which queue it came from',
    ]
    any_graveyard.wait_count(3)
    assert any_graveyard.ids() == ['lost', 'lost too', 'odd']


def test_a_full_queue_leaves_them_where_they_are(dead: Run, graveyard: Graveyard, connection: Connection):
    with connection.channel() as channel:
        full = {'x-max-length': 1, 'x-overflow': 'reject-publish'}
        channel.queue.declare(graveyard.origin, durable=True, arguments=full)
    for id in ('one', 'two'):
        graveyard.add(id)

    status, stdout, stderr = dead('--retry')

    assert (status, stdout) == (1, 'sent back 1 dead letter\n')
    assert stderr == f'amphora: 1 dead letter stays: queue {graveyard.origin!r} takes no more: it is full\n'
    assert graveyard.ids() == ['two']


def test_an_id_that_no_letter_has_is_told(dead: Run, graveyard: Graveyard, service: str):
    graveyard.add('one')

    for args in ((), ('--retry',), ('--drop', '--yes')):
        status, _, stderr = dead(*args, '--id', 'other')
        assert (status, stderr) == (1, f'amphora: no dead letter of {service} has the id other\n')
    assert graveyard.ids() == ['one']


def test_those_that_die_again_meanwhile_are_left_for_another_time(
    dead: Run, graveyard: Graveyard, connection: Connection
):
    # The queue that they go back to is the one that they come from: the shortest way to die again.
    for id in ('one', 'two', 'three'):
        graveyard.add(id, queue=graveyard.queue)

    assert dead('--retry') == (0, 'sent back 3 dead letters\n', '')

    graveyard.wait_count(3)
    assert graveyard.ids() == ['one', 'two', 'three']


def test_a_broker_that_refuses_ends_with_four_and_loses_nothing(
    run: Run, graveyard: Graveyard, service: str, rabbit, reader: str
):
    graveyard.declare(graveyard.origin)
    graveyard.add('one')

    status, stdout, stderr = run('dead', service, '--retry', '--url', reader)

    assert (status, stdout) == (4, 'sent back 0 dead letters\n')
    assert 'ACCESS_REFUSED' in stderr
    assert len(stderr.splitlines()) == 1
    graveyard.wait_count(1)


def test_a_connection_that_is_lost_on_the_way_loses_no_letter(run: Run, graveyard: Graveyard, service: str, rabbit):
    graveyard.declare(graveyard.origin)
    ids = {str(number) for number in range(100)}
    for id in ids:
        graveyard.add(id)

    with Proxy(rabbit.port) as proxy:
        # In the middle: all letters have come, and some have gone back.
        proxy.cut_at = 50_000
        proxy.admit()
        status, stdout, stderr = run('dead', service, '--retry', '--url', proxy.url)

    assert status == 4
    assert 0 < int(stdout.removeprefix('sent back ').split()[0]) < 100
    assert len(stderr.splitlines()) == 1
    went_back = {message.properties['message_id'] for message in graveyard.empty(graveyard.origin)}
    assert 0 < len(went_back) < 100
    # Without the consumer, the queue has back what was not acked. What was confirmed, but not acked, is in both.
    eventually(lambda: rabbit.list_queues()[graveyard.queue][1] == 0, LIMIT)
    assert went_back | set(graveyard.ids()) == ids


@pytest.fixture
def reader(rabbit, service: str) -> Iterator[str]:
    """The URL of a user who may publish nothing."""
    rabbit.ctl('add_user', service, 'word')
    rabbit.ctl('set_permissions', service, '.*', '^$', '.*')
    yield rabbit.url.replace('guest:guest', f'{service}:word')
    rabbit.ctl('delete_user', service)


# -- dropping ----------------------------------------------------------------------------------------------------------


def test_dropping_without_a_terminal_has_to_be_meant(dead: Run, graveyard: Graveyard):
    graveyard.add('one')

    status, stdout, stderr = dead('--drop')

    assert (status, stdout) == (2, '')
    assert stderr == 'amphora: --drop asks first; where nobody can answer it needs --yes\n'
    assert graveyard.count() == 1
    assert dead('--drop', '--yes') == (0, 'dropped 1 dead letter\n', '')
    assert graveyard.count() == 0


def test_dropping_without_standard_input_needs_yes(service: str):
    ended = subprocess.run(
        ['sh', '-c', 'exec "$@" <&-', '-', *AMPHORA, 'dead', service, '--drop'], stderr=subprocess.PIPE
    )

    assert (ended.returncode, ended.stderr) == (
        2,
        b'amphora: --drop asks first; where nobody can answer it needs --yes\n',
    )


def test_dropping_some_keeps_the_others(dead: Run, any_graveyard: Graveyard):
    for number in range(5):
        any_graveyard.add(str(number))

    assert dead('--drop', '--yes', '--id', '2') == (0, 'dropped 1 dead letter\n', '')
    any_graveyard.wait_count(4)
    assert dead('--drop', '--yes', '--limit', '2') == (0, 'dropped 2 dead letters\n', '')

    any_graveyard.wait_count(2)
    assert any_graveyard.ids() == ['3', '4']


def test_in_a_terminal_dropping_asks_first(terminal: Callable[..., Terminal], graveyard: Graveyard, service: str):
    for id in ('one', 'two'):
        graveyard.add(id)

    for answer, status, left in (('n\n', 1, 2), ('\x03', 130, 2), ('\x04', 130, 2), ('y\n', 0, 0)):
        command = terminal('dead', service, '--drop')
        command.wait_shown(f'Drop 2 dead letters of {service} for good? [y/N]: ')
        command.type(answer)

        assert command.wait() == status
        assert graveyard.count() == left


def test_the_question_names_the_ids(terminal: Callable[..., Terminal], graveyard: Graveyard, service: str):
    for id in ('one', 'two', 'three'):
        graveyard.add(id)

    command = terminal('dead', service, '--drop', '--id', 'one', '--id', 'three')
    command.wait_shown(f'Drop the dead letters of {service} with the ids one, three for good? [y/N]: ')
    command.type('y\n')

    assert command.wait() == 0
    assert graveyard.ids() == ['two']


# -- usage -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('args', 'said'),
    [
        (['--retry', '--drop'], '--retry and --drop exclude each other'),
        (['--id', 'one', '--limit', '5'], '--id and --limit exclude each other'),
        (['--retry', '--json'], '--args and --json are for the list, not for --retry and --drop'),
        (['--drop', '--yes', '--args'], '--args and --json are for the list, not for --retry and --drop'),
        (['--limit', '0'], "Invalid value for '--limit': 0 is not in the range x>=1."),
    ],
)
def test_wrong_usage_is_told_before_anything_is_done(run: Run, args: list[str], said: str):
    assert run('dead', 'any', *args, '--url', 'amqp://127.0.0.1:1/') == (2, '', f'amphora: {said}\n')


# -- with a server -----------------------------------------------------------------------------------------------------


def test_what_a_server_has_set_aside_runs_when_it_is_sent_back(
    dead: Run, serving: Server, connection: Connection, service: str
):
    noted = []
    serving(named={'note': noted.append})
    request = Message(
        RpcJsonSerializer.serialize_call('note', ('this',), {}),
        message_id='one',
        reply_to='somebody',
        headers={DELIVERIES: 5},
    )
    with connection.channel() as channel:
        channel.basic.publish(request, f'rpc_{service}_request', '')

    eventually(lambda: ids_of(dead('--json').stdout) == ['one'], LIMIT)
    assert noted == []
    assert dead('--retry') == (0, 'sent back 1 dead letter\n', '')

    eventually(lambda: noted == ['this'])
    assert dead().stdout == f'no dead letters of {service}\n'


@pytest.mark.parametrize(
    ('queue_type', 'arguments'),
    [
        (None, {'x-queue-type': 'classic'}),
        ('classic', {'x-queue-type': 'classic'}),
        ('quorum', {'x-queue-type': 'quorum', 'x-delivery-limit': 2**31 - 1}),
    ],
)
def test_a_server_makes_a_queue_that_may_be_looked_at_for_ever(
    serving: Server, connection: Connection, service: str, rabbit, queue_type: str | None, arguments: dict[str, object]
):
    # A quorum queue counts each look, and RabbitMQ 4 drops what was looked at 20 times unless the queue says otherwise.
    serving(max, queue_type=queue_type)
    request = Message(b'', message_id='one', reply_to='somebody', headers={DELIVERIES: 5})
    with connection.channel() as channel:
        channel.basic.publish(request, f'rpc_{service}_request', '')

    queue = dead_queue(service)
    eventually(lambda: rabbit.list_queues().get(queue, (0,))[0] == 1, LIMIT)

    made = json.loads(rabbit.ctl('list_queues', 'name', 'arguments', '--formatter', 'json'))
    (declared,) = [each['arguments'] for each in made if each['name'] == queue]
    assert {name: value for name, _, value in declared} == arguments


@pytest.mark.parametrize('arguments', [{}, QUORUM], ids=['classic', 'quorum'])
def test_it_is_all_the_same_on_the_embedded_broker(run: Run, service: str, arguments: dict[str, object]):
    with running_broker() as broker, Connection.from_url(broker.url) as connection:
        graveyard = Graveyard(connection, service, arguments)
        graveyard.declare(graveyard.origin)
        for number in range(12):
            graveyard.add(str(number))

        looked = ids_of(run('dead', service, '--json', '--url', broker.url).stdout)
        graveyard.wait_count(12)
        sent_back = run('dead', service, '--retry', '--id', '7', '--url', broker.url)
        graveyard.wait_count(11)
        dropped = run('dead', service, '--drop', '--yes', '--limit', '2', '--url', broker.url)
        graveyard.wait_count(9)

        assert looked == [str(number) for number in range(12)]
        assert (sent_back.status, dropped.status) == (0, 0)
        assert [message.properties['message_id'] for message in graveyard.empty(graveyard.origin)] == ['7']
        assert graveyard.ids() == ['2', '3', '4', '5', '6', '8', '9', '10', '11']
