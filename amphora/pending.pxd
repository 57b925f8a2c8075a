cimport cython

cdef double _TICK


cdef class Entry:
    cdef public object id, publication
    cdef public double deadline
    cdef dict _slot
    cdef long long _number
    cdef object _greenlet, _reply, _error

    cpdef wait(self, hub, waiting)
    cpdef deliver(self, value)
    cpdef throw(self, error)


cdef class DeferredEntry(Entry):
    cdef object _decode, _kept, _result

    cpdef keep(self, result)
    cpdef release(self)
    cpdef _take_result(self)


cdef class Pending:
    cdef object _on_expired, _loop, _timer
    cdef dict _entries, _slots
    cdef long long _swept
    cdef bint _ticking

    @cython.locals(number=cython.longlong, slot=dict)
    cpdef open(self, Entry entry)
    @cython.locals(entry=Entry)
    cpdef Entry take(self, id)
    cpdef Entry get(self, id)
    @cython.locals(entry=Entry)
    cpdef bint resolve(self, id, reply) except -1
    @cython.locals(slot=dict)
    cdef _leave_slot(self, Entry entry)
