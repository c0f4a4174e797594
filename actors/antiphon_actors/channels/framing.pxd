cimport cython
from antiphon_actors.channels.outbox cimport received, receiving


cdef class RecordParser:
    cdef public Py_ssize_t max_record_bytes
    cdef public object on_frame
    cdef public object on_record
    cdef public Py_ssize_t records
    cdef public bytearray _tail
    cdef public Py_ssize_t _needed

    @cython.locals(tail=bytearray)
    cpdef feed(self, data)
    @cython.locals(
        end=Py_ssize_t, start=Py_ssize_t, body=Py_ssize_t, size=Py_ssize_t,
        after=Py_ssize_t
    )
    cdef _cut(self, source)
