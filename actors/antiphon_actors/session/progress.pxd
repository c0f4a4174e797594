cimport cython


cdef class _Entry:
    cdef public object cls
    cdef public object first
    cdef public object last
    cdef public Py_ssize_t count
    cdef public Py_ssize_t amount
    cdef public object text


cdef class Progress:
    cdef public object ordered
    cdef public object urgent
    cdef public object _ordered_entries
    cdef public object _urgent_entries

    @cython.locals(last=_Entry, entry=_Entry)
    cpdef note(self, bint urgent, cause, frame)
