cpdef count_deliveries(properties)
cpdef bint seems_expired(properties, double now) except -1
cpdef _deadline(properties)
cpdef _milliseconds(expiration)
