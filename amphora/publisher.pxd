cimport cython

from amphora.amqp.channel cimport Channel as _Channel
from amphora.amqp.connection cimport Connection as _Connection


cdef class Publication:
    cdef public object exchange, routing_key, deadline, on_settled, on_refused, number, returned, refused_at, context
    # What a serializer or dialect of the user's own makes may be of a class derived from dict or bytes.
    cdef public object properties, body
    cdef public bint waits, held, written, withdrawn, repeated, turned_away, suspect
    cdef public Publisher publisher
    cdef bint _ended
    cdef object _waited

    cpdef end(self)
    cpdef settled(self, bint acked)


cdef class Publisher:
    cdef public object _session, _on_returned, _unconfirmed
    cdef public _Connection _connection
    cdef public _Channel _channel
    cdef public bint _confirm, _alone, _replacing
    cdef public Py_ssize_t _buffer_count, _buffer_bytes, _held_bytes, _look_at
    cdef public double _patience, _opened
    cdef public dict _held, _turned_away

    @cython.locals(connection=_Connection)
    cpdef publish(self, Publication publication)
    cpdef submit(self, Publication publication)
    cpdef hold(self, Publication publication)
    cpdef withdraw(self, Publication publication)
    @cython.locals(left=double, milliseconds=cython.longlong)
    cpdef _write(self, _Channel channel, Publication publication)
    cpdef flush(self)
    cpdef go_on(self, Publication settled)
