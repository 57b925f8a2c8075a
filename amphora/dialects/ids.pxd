cdef class CountedUuids:
    cdef str _prefix
    cdef unsigned long long _number
