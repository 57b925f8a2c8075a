"""A consumer that consumes again whatever the broker does to it."""

from pamqp import commands

from amphora.consumer import Consumer
from amphora.session import Session
from amphora.settings import make_settings
from amphora.topology import Topology
from tests.amqp.scripted import Peer, ScriptedBroker, delivery, method
from tests.rabbitmq import HOST
from tests.waiting import eventually


def test_one_that_is_cancelled_at_once_consumes_again() -> None:
    def script(peer: Peer) -> None:
        peer.accept()
        asked, channel = peer.serve_until(commands.Basic.Consume)
        begun = method(channel, commands.Basic.ConsumeOk(asked.consumer_tag))
        peer.send(begun + method(channel, commands.Basic.Cancel(asked.consumer_tag, True)))
        asked, channel = peer.serve_until(commands.Basic.Consume)
        peer.say(commands.Basic.ConsumeOk(asked.consumer_tag), channel)
        peer.send(delivery(channel, asked.consumer_tag, 1, b'hello'))
        peer.last_words()

    came: list[bytes] = []
    with ScriptedBroker(script) as broker:
        session = Session(make_settings(amqp_host=HOST, amqp_port=broker.port, heartbeat=0), Topology(), 'test')
        consumer = Consumer(session, 'queue', lambda channel, tag, redelivered, properties, body: came.append(body))
        session.start()
        consumer.start()
        try:
            eventually(lambda: came == [b'hello'])
        finally:
            session.stop()
