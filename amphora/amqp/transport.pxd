cdef class Transport:
    cdef public Py_ssize_t high_water
    cdef public bint closed
    cdef public double last_received, last_sent
    cdef public object _on_data, _on_lost, _on_drain, _sock, _partial, _lock, _loop, _reader, _writer
    cdef public Py_ssize_t _room, _queued
    cdef public bint _was_congested, _armed, _busy, _paused
    cdef public list _queue
    cdef public long _iteration

    cpdef bint is_congested(self) except -1
    cpdef write(self, data)
    cpdef flush(self)
    cpdef _drain(self)
    cpdef bint _push(self, data=*) except -1
    cpdef bint _transmit(self, data) except -1
    cpdef _encode(self, data)
    cpdef _take(self)
    cpdef _lose(self, error)
