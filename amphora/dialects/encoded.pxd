cdef class Encoded:
    cdef readonly object exchange, routing_key, properties, body
