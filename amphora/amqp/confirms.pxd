cdef class Confirms:
    cdef public unsigned long long _published
    cdef public dict _open
    cdef bint _wanted

    cpdef unsigned long long register(self, publication) except? 0
    cpdef settle(self, unsigned long long tag, bint multiple, bint acked)
