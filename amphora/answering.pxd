from amphora.intake cimport Job as _Job
from amphora.publisher cimport Publisher as _Publisher


cdef class Answering:
    cdef object _side, _functions, _session, _dead_queue, _custody, _recent, _numbers, _reply_settled, _reply_refused
    cdef _Publisher _publisher
    cdef bint _unique_ids, _shared, _requeues, _may_send_again
    cdef public dict _in_hand
    cdef Py_ssize_t _sending
    cdef set _gone

    cpdef answer(self, _Job job)
    cpdef _run(self, id, reply_to, _Job job)
    cpdef _reply(self, key, answer, instead=*, end=*)
    cpdef _publish(self, message, on_settled=*, on_refused=*, context=*)
    cpdef bint _goes_back(self, _Job job, id) except -1
