from amphora.values cimport hides_not_finite


cdef class _Codec:
    cdef object _encode, _decode_call, _decode_reply
    cdef bint _nulls_not_finite

    cpdef bytes _checked(self, value, parts)
    cpdef tuple _try(self, value)
