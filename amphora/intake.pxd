from amphora.amqp.channel cimport Channel as _Channel


cdef class Job:
    cdef public _Channel channel
    cdef public object tag
    cdef public dict properties
    cdef public bytes body
    cdef public bint redelivered, ended, gone_back, alone, stays
    cdef Intake _intake

    cpdef bint begin(self) except -1
    cpdef done(self)
    cpdef _end(self)


cdef class Intake:
    cdef public object queue, function
    cdef public object _consumer, _on_job, _finished, _drained
    cdef public Py_ssize_t taken, _max_calls, _in_hand
    cdef public bint _told_to_finish

    cpdef bint count(self) except -1
    cpdef settled(self)
    cpdef _on_delivery(self, channel, tag, redelivered, properties, body)
