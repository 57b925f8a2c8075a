"""A server whose user may not write to the default exchange."""

import logging
from collections.abc import Iterator

import gevent
import pytest

from tests.rabbitmq import RabbitNode
from tests.waiting import eventually

USER = 'narrow-server'


@pytest.fixture
def url(rabbit: RabbitNode, vhost: str) -> Iterator[str]:
    rabbit.ctl('add_user', USER, 'word')
    rabbit.ctl('set_permissions', '-p', vhost, USER, '^rpc_', '^rpc_', '^rpc_')
    yield rabbit.url_of(vhost).replace('guest:guest', USER + ':word')
    rabbit.ctl('delete_user', USER)


def test_what_cannot_be_set_aside_is_not_said_to_be_and_costs_one_channel(serving, client, url, caplog):
    runs = []

    def fail() -> None:
        runs.append(True)
        raise ValueError

    serving(fail, amqp_url=url)
    with caplog.at_level(logging.ERROR, 'amphora'):
        client(amqp_url=url).cast.fail()
        eventually(lambda: len(runs) >= 4)
        gevent.sleep(0.2)

    said = [record.getMessage() for record in caplog.records]
    assert len([text for text in said if 'is set aside in queue' in text]) == 1
    assert len([text for text in said if 'this server may not publish to the default exchange, so' in text]) == 1
    assert [text for text in said if 'cannot be set aside, and is tried again' in text]
