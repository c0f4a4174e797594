cdef class Sent:
    cdef public bytes payload
    cdef public object tag
    cdef public Py_ssize_t size
    cdef public object sent_ns
    cdef public object cause
    cdef public object ordinal
    cdef public bint urgent
    cdef public object seq


cdef class Retained:
    cdef public object _frames
    cdef public Py_ssize_t _bytes
    cdef public Py_ssize_t _compact_at
    cdef public object ordered
    cdef public object urgent
    cdef public Py_ssize_t forgotten

    cpdef add(self, Sent sent)
    cpdef safe(self, ordered, urgent)
    cdef _compact(self)
    cdef _forget(self)
