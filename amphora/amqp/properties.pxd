cpdef decode_header(bytes payload)
