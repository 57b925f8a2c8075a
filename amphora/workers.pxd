cdef class Workers:
    cdef Py_ssize_t _keep
    cdef object _hub, _waiting, _callback
    cdef list _idle
    cdef set _busy

    cpdef begin(self, work, task)
    cpdef go_on(self)
    cdef _work(self)
