"""`cast`: requests that want no answer, and what becomes of those that fail."""

import gevent
import pytest

from amphora import AmqpRpcClient, AmqpRpcServer, IgnoreRequest, NotSent, RejectRequest, RemoteException, Unroutable
from amphora.amqp import Connection, NotFound
from amphora.dialects import AioPikaMaster
from tests.parties import Client, Gate, Server
from tests.proxy import Proxy
from tests.rpc.peer import Peer
from tests.waiting import eventually


def test_it_returns_nothing_before_the_function_has_run(serving: Server, client: Client, gate: Gate) -> None:
    serving(gate.function())

    assert client().cast.wait(1) is None

    assert eventually(lambda: gate.entered == [1])
    assert gate.left == []


def test_it_waits_for_a_server_that_is_still_to_come(client: Client, server: Server) -> None:
    done = []
    calling = client()
    for number in range(10):
        calling.cast.note(number)

    server(named={'note': done.append})

    assert eventually(lambda: done == list(range(10)))


def test_tasks_are_shared_among_workers(serving: Server, client: Client) -> None:
    done = [[], []]
    for one in done:
        serving(named={'note': lambda number, one=one: (gevent.sleep(0.01), one.append(number))}, prefetch=1)
    calling = client()

    for number in range(40):
        calling.cast.note(number)

    assert eventually(lambda: len(done[0]) + len(done[1]) == 40)
    assert sorted(done[0] + done[1]) == list(range(40))
    assert all(done)


def test_its_queue_is_chosen_as_for_a_call(client: Client, server: Server, label: str, peer: Peer, queue: str) -> None:
    calling = client()
    calling.create_new_request_queue(label)

    calling.cast(routing_key=label).note(1)

    assert peer.ready(queue) == 1


def test_a_task_survives_the_end_of_its_worker(client: Client, server: Server, gate: Gate, gateway: Proxy) -> None:
    done = []
    gateway.admit()
    server(gate.function('note'), amqp_url=gateway.url)
    client().cast.note(1)
    assert eventually(lambda: gate.entered)

    gateway.refuse()
    gateway.reset()
    server(named={'note': done.append})

    assert eventually(lambda: done == [1])


def test_without_a_broker_it_is_not_sent(client: Client, gateway: Proxy) -> None:
    calling = client(amqp_url=gateway.url, timeout=0.3)

    with pytest.raises(NotSent) as caught:
        calling.cast.note(1)

    assert caught.value.executed is False


def test_one_that_waits_for_the_broker_returns_when_it_is_sent_without_confirms_too(
    client: Client, server: Server, gateway: Proxy
) -> None:
    done = []
    calling = client(amqp_url=gateway.url, confirm=False)
    task = gevent.spawn(calling.cast.note, 1)
    assert eventually(lambda: calling._publisher.held == 1)

    gateway.admit()

    task.get(timeout=5)
    server(named={'note': done.append})
    assert eventually(lambda: done == [1])


def test_what_no_queue_takes_is_unroutable(client: Client) -> None:
    with pytest.raises(Unroutable):
        client().cast(routing_key='nowhere').note(1)


def test_an_argument_that_does_not_serialise_is_a_type_error(client: Client) -> None:
    with pytest.raises(TypeError):
        client().cast.note(object())


# -- tasks that fail ---------------------------------------------------------------------------------------------------


def fail(value: object) -> None:
    raise ValueError('no', value)


def dead_letters(amqp_url: str, service: str) -> list[str]:
    """Why the dead letters of a service are dead; each is taken."""
    reasons = []
    with Connection.from_url(amqp_url) as connection:
        channel = connection.channel()
        name = f'rpc_{service}_dead'
        assert eventually(lambda: channel_has(connection, name))
        while (message := channel.basic.get(name, no_ack=True)) is not None:
            reasons.append(message.properties['headers']['x-amphora-reason'])
        channel.queue.delete(name)
    return reasons


def channel_has(connection: Connection, queue: str) -> bool:
    try:
        with connection.channel() as channel:
            return channel.queue.declare(queue, passive=True).message_count > 0
    except NotFound:
        return False


@pytest.mark.parametrize('function', ['fail', 'missing'])
def test_a_task_that_fails_becomes_a_dead_letter(
    serving: Server, client: Client, amqp_url: str, service: str, function: str
) -> None:
    serving(fail)

    client().cast(function_name=function)(1)

    [reason] = dead_letters(amqp_url, service)
    assert reason.startswith('rejected: ')
    assert ('ValueError' if function == 'fail' else 'missing') in reason


class HostileError(Exception):
    """Nothing about it works."""

    def __str__(self) -> str:
        raise RuntimeError('no text')

    __repr__ = __str__


class LateError(Exception):
    """What it asks for its text does not answer in time."""

    def __str__(self) -> str:
        raise gevent.Timeout


STRANGE = {
    'long': ValueError('x' * 200_000),
    'half of a surrogate pair': ValueError('\ud800'),
    'none': HostileError(HostileError()),
    'late': LateError(),
    'long, rejected': RejectRequest('x' * 200_000),
    'half of a surrogate pair, rejected': RejectRequest('\ud800'),
    'none, rejected': RejectRequest(HostileError()),
}


@pytest.mark.parametrize('text', STRANGE)
def test_a_task_that_fails_is_kept_whatever_the_text_of_its_error(
    serving: Server, client: Client, amqp_url: str, service: str, text: str
) -> None:
    run = []

    def fail_strangely() -> None:
        run.append(1)
        raise STRANGE[text]

    serving(fail_strangely)

    client().cast.fail_strangely()

    [reason] = dead_letters(amqp_url, service)
    assert reason.startswith('rejected: ')
    assert len(reason) < 2000
    assert run == [1]


@pytest.mark.parametrize('text', [text for text in STRANGE if 'rejected' in text])
def test_a_call_that_is_rejected_is_kept_whatever_the_text(
    serving: Server, client: Client, amqp_url: str, service: str, text: str
) -> None:
    def fail_strangely() -> None:
        raise STRANGE[text]

    serving(fail_strangely)

    with pytest.raises(RemoteException) as caught:
        client().call.fail_strangely()

    assert caught.value.error_type == 'RejectRequest'
    assert len(dead_letters(amqp_url, service)) == 1


def test_what_is_rejected_without_a_word_is_kept_with_some(
    serving: Server, client: Client, amqp_url: str, service: str
) -> None:
    def reject() -> None:
        raise RejectRequest

    serving(reject)

    client().cast.reject()

    assert dead_letters(amqp_url, service) == ['rejected, and no reason was given']


def test_a_task_that_waits_for_its_next_try_is_one_when_the_connection_is_lost(
    server: Server, client: Client, gateway: Proxy, service: str, peer: Peer
) -> None:
    tries = []

    def fail_again(value: int) -> None:
        tries.append(value)
        raise ValueError('not yet')

    gateway.admit()
    # Tasks without ids, of which no server can tell that two are one.
    options = {'dialects': [AioPikaMaster()], 'on_failure': 'requeue', 'amqp_url': gateway.url}
    serving = server(named={service: fail_again}, **options)
    assert serving.wait_ready(10)
    client(dialect=AioPikaMaster()).cast(function_name=service)(value=7)

    for _ in range(3):
        # The second try is put off, and so is each that comes after it.
        before = len(tries)
        assert eventually(lambda before=before: len(tries) >= before + 2)
        gateway.reset()

    before = len(tries)
    assert eventually(lambda: len(tries) > before)
    serving.stop()
    assert eventually(lambda: peer.ready(service)) == 1


def test_a_task_that_fails_is_tried_again_where_that_is_wished(serving: Server, client: Client) -> None:
    tries = []

    def fail_once(value: int) -> None:
        tries.append(value)
        if len(tries) == 1:
            raise ValueError('not yet')

    serving(fail_once, on_failure='requeue')

    client().cast.fail_once(7)

    assert eventually(lambda: tries == [7, 7])


def test_a_task_may_be_left_to_another_server(serving: Server, client: Client) -> None:
    done = []

    def refuse(value: int) -> None:
        raise IgnoreRequest

    serving(named={'note': refuse})
    serving(named={'note': done.append})

    client().cast.note(1)

    assert eventually(lambda: done == [1])


def test_a_task_may_be_rejected(serving: Server, client: Client, amqp_url: str, service: str) -> None:
    def refuse(value: int) -> None:
        raise RejectRequest('too old', value)

    serving(refuse, on_failure='requeue')

    client().cast.refuse(1)

    assert dead_letters(amqp_url, service) == ["rejected: ('too old', 1)"]


def test_a_call_may_be_rejected_and_its_caller_is_told(
    serving: Server, client: Client, amqp_url: str, service: str
) -> None:
    def refuse(value: int) -> None:
        raise RejectRequest('too old', value)

    serving(refuse)

    with pytest.raises(RemoteException) as caught:
        client().call.refuse(1)

    assert (caught.value.error_type, list(caught.value.args)) == ('RejectRequest', ['too old', 1])
    assert dead_letters(amqp_url, service) == ["rejected: ('too old', 1)"]


@pytest.mark.parametrize('value', ['drop', '', None, 1])
def test_an_on_failure_that_makes_no_sense_is_an_error(value: object) -> None:
    with pytest.raises(ValueError, match='reject, requeue'):
        AmqpRpcServer('any', on_failure=value)


# -- casts to all ------------------------------------------------------------------------------------------------------


def test_every_fanout_server_gets_a_task(fanout_server: Server, fanout_client: Client) -> None:
    done = []
    for number in range(3):
        assert fanout_server(named={'note': lambda value, number=number: done.append((number, value))}).wait_ready(10)

    fanout_client().cast.note('all')

    assert eventually(lambda: sorted(done) == [(0, 'all'), (1, 'all'), (2, 'all')])


def test_a_client_that_is_stopped_at_once_has_sent_its_tasks(server: Server, service: str, amqp_url: str) -> None:
    done = []
    with AmqpRpcClient(service, amqp_url=amqp_url) as calling:
        calling.cast.note(1)

    server(named={'note': done.append})

    assert eventually(lambda: done == [1])


def test_a_task_whose_own_call_was_wrong_is_tried_again(serving: Server, client: Client, service: str) -> None:
    inner = serving(service=service + '.inner')
    calling = client(service=service + '.inner')
    done: list[bool] = []

    def task() -> None:
        calling.call.step()

    serving(task, on_failure='requeue')
    client().cast.task()
    gevent.sleep(0.5)
    inner.add_function(lambda: done.append(True), name='step')

    assert eventually(lambda: done, 10)
