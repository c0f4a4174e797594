cimport cython
from antiphon_actors.channels.outbox cimport Outbox
from antiphon_actors.channels.retained cimport Retained, Sent


cdef class OutStream:
    cdef public object _shared
    cdef public Py_ssize_t _shared_from
    cdef public object link
    cdef public object key
    cdef public object greeting
    cdef public bint detached
    cdef public Outbox _outbox
    cdef public object _forget
    cdef public object _stream_id
    cdef public Py_ssize_t _max_frames
    cdef public Py_ssize_t _max_bytes
    cdef public Py_ssize_t _max_payload
    cdef public Py_ssize_t _max_urgent_frames
    cdef public Py_ssize_t _max_urgent_bytes
    cdef public Py_ssize_t _frames
    cdef public Py_ssize_t _bytes
    cdef public object _queue
    cdef public object _unacked
    cdef public object _waiters
    cdef public object _sent
    cdef public object _acked
    cdef public Py_ssize_t _dropped
    cdef public object _urgent_unacked
    cdef public object _urgent_waiting
    cdef public Py_ssize_t _urgent_bytes
    cdef public object _urgent_sent
    cdef public object _urgent_acked
    cdef public Retained _retained
    cdef public list _drainers
    cdef public bint _ending
    cdef public object _ended
    cdef public object _error

    @cython.locals(sent=Sent, size=Py_ssize_t)
    cpdef bint send_nowait(self, bytes payload, bint urgent=*, tag=*, cause=*, ordinal=*) except *
    cdef bint _has_room(self, Py_ssize_t size)
    @cython.locals(outbox=Outbox)
    cdef _take(self, Sent sent)
    cdef _leaves(self, Sent sent)
    cdef bytes _whole(self, int kind, Sent sent)
    cdef _send_urgent(self, Sent sent)
    cdef _urgent_leaves(self, Sent sent)
    @cython.locals(sent=Sent, retained=Retained)
    cpdef acknowledge(self, ordered, urgent, safe_ordered=*, safe_urgent=*)
