from amphora.amqp.channel cimport Channel as _Channel


cdef class Consumer:
    cdef public object queue, _session, _on_delivery, _tag, _lock
    cdef public _Channel _channel
    cdef public bint _no_ack, _sole, _wanted
    cdef public Py_ssize_t _prefetch

    cpdef _deliver(self, _Channel channel, tag, redelivered, properties, body)
