"""An AMQP 0-9-1 broker in the process: for first steps, tests and demos on one machine. Nothing is kept on disk.

::

    from amphora.broker import Broker

    with Broker() as broker:
        connection = Connection.from_url(broker.url)
"""

from amphora.broker.limits import Limits
from amphora.broker.server import Broker, QueueCounts

__all__ = ('Broker', 'Limits', 'QueueCounts')
