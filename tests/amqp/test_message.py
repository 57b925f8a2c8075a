"""A message: its body, its properties, and what it shows of itself."""

from __future__ import annotations

from typing import Any

import pytest
from pamqp import commands

from amphora.amqp import DeliveryInfo, Message, ReturnInfo
from amphora.amqp.frames import decode_deliver
from tests.amqp.scripted import method


@pytest.mark.parametrize('body', [b'hello', bytearray(b'hello'), memoryview(b'hello')])
def test_a_body_of_bytes_stays_as_it_is_and_is_not_labelled(body: Any) -> None:
    message = Message(body)
    assert (message.body, type(message.body), message.properties) == (b'hello', bytes, {})


def test_a_body_does_not_change_behind_the_messages_back() -> None:
    body = bytearray(b'hello')
    message = Message(body)
    body[0] = 0
    assert message.body == b'hello'


def test_text_becomes_utf8_and_is_labelled_so() -> None:
    message = Message('ü')
    assert (message.body, message.properties) == (b'\xc3\xbc', {'content_encoding': 'utf-8'})


def test_text_becomes_what_its_encoding_says() -> None:
    assert Message('ü', content_encoding='latin-1').body == b'\xfc'


@pytest.mark.parametrize('body', [None, 5, ['a'], {}])
def test_a_body_of_anything_else_is_refused(body: Any) -> None:
    with pytest.raises(TypeError, match=f'a body must be bytes or str, not {type(body).__name__!r}'):
        Message(body)


def test_haighas_application_headers_are_the_headers() -> None:
    message = Message('body', application_headers={'hello': 'world'})
    assert message.headers == {'hello': 'world'}
    assert message.properties['headers'] == {'hello': 'world'}
    assert 'application_headers' not in message.properties


def test_headers_are_a_dict_even_when_there_are_none_that_can_be_read() -> None:
    assert Message().headers == {}
    assert Message(headers={'a': 1}).headers == {'a': 1}
    assert Message.received(b'', {'headers': b'\xff'}, None).headers == {}


def test_messages_are_equal_by_body_and_properties() -> None:
    assert Message(b'a', type='t') == Message(b'a', type='t')
    assert Message(b'a', type='t') != Message(b'b', type='t')
    assert Message(b'a', type='t') != Message(b'a', type='u')
    assert Message(b'a') != b'a'
    with pytest.raises(TypeError, match='unhashable'):
        hash(Message())


def test_an_empty_message_is_true_and_its_length_is_that_of_its_body() -> None:
    assert Message()
    assert len(Message()) == 0
    assert len(Message('ü')) == 2


def test_a_message_shows_its_properties_and_the_beginning_of_its_body() -> None:
    assert repr(Message(b'hello', type='t')) == "<Message b'hello' type='t'>"
    shown = repr(Message(b'x' * 1000))
    assert 'xxx...' in shown
    assert len(shown) < 100


def test_how_it_came_is_read_off_the_delivery() -> None:
    frame = method(1, commands.Basic.Deliver('consumer', 7, True, 'exchange', 'key'))
    info = DeliveryInfo(frame[7:-1], *decode_deliver(frame[7:-1]))
    assert (info.consumer_tag, info.raw_consumer_tag, info.delivery_tag) == ('consumer', b'consumer', 7)
    assert (info.redelivered, info.exchange, info.routing_key, info.message_count) == (True, 'exchange', 'key', None)
    assert repr(info) == "<DeliveryInfo 7 redelivered exchange='exchange' routing_key='key'>"


def test_why_it_was_returned_is_shown() -> None:
    info = ReturnInfo(312, 'NO_ROUTE', 'exchange', 'key')
    assert repr(info) == "<ReturnInfo 312 NO_ROUTE exchange='exchange' routing_key='key'>"
    assert Message(return_info=info).return_info is info
