from amphora.amqp.acks cimport Acks as _Acks


cdef class AnyConsumer:
    cdef public object tag, _on_cancel
    cdef public bytes raw_tag

    cpdef deliver(self, bytes method, delivery_tag, bint redelivered, Py_ssize_t at, dict properties, bytes body)
    cpdef cancelled_by_broker(self)
    cpdef stop(self)


cdef class DirectConsumer(AnyConsumer):
    cdef object _channel, _listener
    cdef _Acks _acks


cdef class Consumer(AnyConsumer):
    cdef object _callback, _queue, _take


cdef class UnwantedConsumer(AnyConsumer):
    cdef object _give_back
    cdef _Acks _acks
    cdef list _taken
