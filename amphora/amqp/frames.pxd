cdef class Splitter:
    cdef public Py_ssize_t begun, frame_max, header_max
    cdef object _take
    cdef list _parts
    cdef Py_ssize_t _size, _needed, _yielded, _left
    cdef int _channel


cdef _piece(bytes data, Py_ssize_t start, Py_ssize_t stop)
