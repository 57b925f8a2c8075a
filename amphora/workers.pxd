cdef class Workers:
    cdef Py_ssize_t _keep
    cdef object _hub
    cdef list _idle
    cdef set _busy

    cpdef begin(self, work, task)
