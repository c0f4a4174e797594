cimport cython
from antiphon_actors.channels.in_stream cimport Delivery, InStream
from antiphon_actors.channels.outbox cimport Outbox


cdef class Streams:
    cdef public object _memory
    cdef public object _reader
    cdef public Outbox _outbox
    cdef public object _limits
    cdef public object _accept
    cdef public dict _out
    cdef public dict _opening
    cdef public dict _resuming
    cdef public object _last_out
    cdef public dict _in
    cdef public object _last_in
    cdef public object _error
    cdef public Py_ssize_t late_records
    cdef public dict handlers

    @cython.locals(stream=InStream, delivery=Delivery)
    cpdef frame(self, bint urgent, stream_id, seq, sent_ns, bytes payload, cause, ordinal)
