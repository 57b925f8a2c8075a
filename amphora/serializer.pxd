cdef class _Codec:
    cdef object _encode, _decode_call, _decode_reply
    cdef bint _nulls_not_finite

    cpdef bytes _checked(self, value, parts)
    cpdef tuple _try(self, value)


cpdef bint hides_not_finite(bytes body, value, parts) except -1
