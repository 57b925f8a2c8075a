cdef class Recent:
    cdef Py_ssize_t _count, _room
    cdef object _answers

    cpdef remember(self, key, answer, Py_ssize_t size)
    cpdef get(self, key)
