cimport cython

from amphora.dialects.encoded cimport Encoded as _Encoded
from amphora.dispatch cimport FunctionTable as _FunctionTable
from amphora.envelope cimport Reply as _Reply, Request as _Request
from amphora.intake cimport Job as _Job
from amphora.publisher cimport Publisher as _Publisher
from amphora.recent cimport Recent as _Recent
from amphora.redelivery cimport count_deliveries, is_fresh, seems_expired


cdef class Answering:
    cdef object _side, _custody, _republishing, _numbers, _reply_settled, _reply_refused
    cdef object _return_address, _decode_request, _encode_reply, _shorten
    cdef _FunctionTable _functions
    cdef _Recent _recent
    cdef _Publisher _publisher
    cdef bint _unique_ids, _shared, _requeues
    cdef public dict _in_hand
    cdef set _gone

    @cython.locals(properties=dict)
    cpdef answer(self, _Job job)
    cpdef _remembered(self, key, dict properties)
    @cython.locals(request=_Request, reply=_Reply, encoded=_Encoded)
    cpdef _run(self, id, reply_to, _Job job)
    cpdef _reply(self, key, answer, instead=*, end=*)
    cpdef _publish(self, _Encoded message, on_settled=*, on_refused=*, context=*)
    @cython.locals(properties=dict)
    cpdef bint _divert(self, _Job job, id) except -1
