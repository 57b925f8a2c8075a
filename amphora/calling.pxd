cimport cython

from amphora.dialects.encoded cimport Encoded as _Encoded
from amphora.pending cimport Entry as _Entry, Pending as _Pending
from amphora.publisher cimport Publication as _Publication, Publisher as _Publisher


cdef class Calling:
    cdef object _name, _uuid, _side, _topology, _publishing, _consuming, _hub, _next_id, _settled, _refused
    cdef object _decode_reply, _reply_id
    cdef dict _tunings
    cdef public object encode_request
    cdef bint _confirm, _fanout
    cdef tuple _buffer
    cdef double _checked
    cdef public Py_ssize_t ignored_replies
    cdef public _Pending pending
    cdef public _Publisher publisher

    cpdef _wait_for_outcome(self, function, tuple args, dict kwargs, options, double deadline, bint answered)
    cpdef _who_waits(self)
    cpdef bint _is_full(self) except -1
    @cython.locals(encoded=_Encoded)
    cpdef _send(self, _Entry entry, function, tuple args, dict kwargs, options, bint answered)
    cpdef _decode(self, tuple reply)
    cpdef _forget(self, id)
    @cython.locals(entry=_Entry)
    cpdef on_delivery(self, channel, tag, redelivered, properties, body)
