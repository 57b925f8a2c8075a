cdef class Gathered:
    cdef list _pieces
    cdef Py_ssize_t _size
