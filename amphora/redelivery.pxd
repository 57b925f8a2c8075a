cimport cython


cpdef count_deliveries(properties)
@cython.locals(sent=double)
cpdef bint is_fresh(dict properties, double now) except -1
cpdef bint seems_expired(properties, double now) except -1
cpdef _deadline(properties)
cpdef _milliseconds(expiration)
