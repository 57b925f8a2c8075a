cimport cython

from amphora.amqp.acks cimport Acks
from amphora.amqp.confirms cimport Confirms
from amphora.amqp.consumers cimport AnyConsumer as _AnyConsumer
from amphora.amqp.content cimport ContentAssembler, encode_message


cdef class Channel:
    cdef public object connection, id, error, exchange, queue, basic, confirm, tx, flowing
    cdef public list close_listeners, return_listeners
    cdef public Confirms confirms
    cdef public Acks acks
    cdef public dict consumers
    cdef ContentAssembler _content
    cdef object _turn, _outstanding, _sync_to_come, _telling
    cdef bint _closing
    cdef Py_ssize_t _frame_max, _max_message_size

    cpdef publish(self, exchange, routing_key, properties, body, mandatory=*, publication=*)
    cpdef ack(self, delivery_tag, multiple=*)
    cpdef _ack_gathered(self, delivery_tag, multiple)
    cpdef handle(self, int kind, payload)
    cpdef handle_delivery(self, tuple delivery)
    cpdef settle(self, delivery_tag, int bits, bint acked)
    @cython.locals(consumer=_AnyConsumer)
    cpdef _on_delivery(
        self, bytes method, consumer_tag, delivery_tag, bint redelivered, Py_ssize_t names, dict properties, bytes body
    )
