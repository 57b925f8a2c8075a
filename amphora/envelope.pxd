cdef class Request:
    cdef readonly object id, function, args, kwargs, reply_to


cdef class Reply:
    cdef readonly object id, value, error
