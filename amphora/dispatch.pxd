from amphora.envelope cimport Request as _Request


cdef class FunctionTable:
    cdef object _limited, _awaited
    cdef dict _functions, _calls, _options
    cdef readonly set async_names

    cpdef invoke(self, _Request request, time_left=*)
