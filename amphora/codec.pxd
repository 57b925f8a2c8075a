from amphora.values cimport hides_not_finite


cdef class Codec:
    cdef object _encode, _decode_call, _decode_reply
    cdef bint _nulls_not_finite

    cdef bytes _encode_call(self, call, args, kwargs)
    cdef bytes _encode_result(self, obj)
    cdef object _read_call(self, body)
    cdef object _read_reply(self, body)
    cpdef bytes _checked(self, value, parts)
    cpdef tuple _try(self, value)


cdef class JsonCodec(Codec):
    pass


cdef tuple _lift(args, kwargs)
