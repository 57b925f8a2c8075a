from amphora.amqp.properties cimport decode_header


cdef class ContentAssembler:
    cdef public Py_ssize_t max_size
    cdef public object method
    cdef public dict properties
    cdef public bytes content
    cdef public object _body
    # The sender says how much: any 64 bits.
    cdef object _missing

    cpdef begin(self, bytes method)
    cpdef check_whole(self, bytes body)
    cdef object _grow(self, payload)


cpdef object encode_message(
    channel, exchange, routing_key, mandatory, properties, body, frame_max=*, max_message_size=*
)
