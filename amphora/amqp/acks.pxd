cdef class Acks:
    cdef object _ack, _loop, _timer
    cdef public dict _unsettled
    cdef list _ready
    cdef bint _flushing, _singly

    cpdef delivered(self, tag)
    cpdef stray(self)
    cpdef settled(self, tag)
    cpdef add(self, tag)
    cpdef add_late(self, tag)
    cpdef flush(self)
