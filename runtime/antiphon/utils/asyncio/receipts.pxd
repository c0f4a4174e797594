cdef class Work:
    cdef public object receipt
