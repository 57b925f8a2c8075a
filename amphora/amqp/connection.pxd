cimport cython

from amphora.amqp.channel cimport Channel as _Channel
from amphora.amqp.frames cimport Splitter as _Splitter
from amphora.amqp.transport cimport Transport as _Transport


cdef class Connection:
    cdef public object host, port, user, vhost, name, heartbeat, error, blocked
    cdef public Py_ssize_t frame_max, channel_max, max_message_size
    cdef public dict server_properties
    cdef public list close_listeners, blocked_listeners, drain_listeners
    cdef public object _connect_timeout, _client_properties, _hub, _writable, _telling, _answer, _watch, _numbers
    cdef list _auth_mechanisms
    cdef public dict _channels
    cdef public set _retired
    cdef tuple _expected
    cdef bint _debug, _closing, _told_blocked, _has_transport
    cdef public _Splitter _splitter
    cdef public _Transport _transport
    cdef object __weakref__

    cpdef write(self, data)
    cpdef bint takes_messages(self) except -1
    cpdef _received(self, bytes data)
    @cython.locals(channel=_Channel, delivery=tuple)
    cpdef _take(self, bytes data, at, frame_max)
    @cython.locals(channel=_Channel, ack=tuple)
    cpdef _take_confirm(self, bytes data, at)
