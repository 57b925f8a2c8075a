cpdef bint hides_not_finite(bytes body, value, parts) except -1
