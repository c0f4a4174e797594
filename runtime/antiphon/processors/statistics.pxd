cimport cython


@cython.locals(shift=int, rest=cython.longlong)
cdef long long _bucket(long long duration_ns)


cdef class LatencyHistogram:
    cdef public dict _counts
    cdef public long long _recorded
    cdef public long long at_once
    cpdef record(self, duration_ns)
