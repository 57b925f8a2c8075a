cdef class Recent:
    cdef Py_ssize_t _count, _room
    cdef dict _answers
    cdef object _keys

    cpdef remember(self, tuple key, answer)
    cpdef get(self, key)
