from amphora.dialects.encoded cimport Encoded as _Encoded
from amphora.envelope cimport Reply as _Reply, Request as _Request


cdef class _Wire:
    cdef readonly object _party, _request_exchange, _response_exchange
    cdef object _content_type
    cdef dict _blank
    cdef Py_ssize_t _threshold

    cpdef dict _labelled(self, id)
    cpdef _readable(self, dict properties, body)


cdef class _ServerWire(_Wire):
    cdef object _deserialize_call, _serialize_result

    cpdef return_address(self, dict properties)
    cpdef decode_request(self, dict properties, body, function=*)
    cpdef encode_reply(self, _Reply reply, dict request)
    cpdef shorten(self, _Encoded reply)


cdef class _ClientWire(_Wire):
    cdef object _serialize_call, _deserialize_result

    cpdef encode_request(self, _Request request, routing_key)
    cpdef reply_id(self, dict properties)
    cpdef decode_reply(self, dict properties, body)
