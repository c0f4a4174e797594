cimport cython
from antiphon_actors.channels.outbox cimport Outbox


cdef class Delivery:
    cdef public InStream _stream
    cdef public bint _open
    cdef public Py_ssize_t _holds
    cdef public bytes payload
    cdef public bint urgent
    cdef public object seq
    cdef public object sent_ns
    cdef public object cause
    cdef public object ordinal
    cdef public Py_ssize_t _down
    cdef public Py_ssize_t _up

    cpdef done(self)
    cpdef next_ordinal(self, bint upstream)


cdef class _Lane:
    cdef public Py_ssize_t max_frames
    cdef public Py_ssize_t max_bytes
    cdef public Py_ssize_t ack_frames
    cdef public Py_ssize_t ack_bytes
    cdef public object received
    cdef public object done
    cdef public object reported
    cdef public object safe
    cdef public object marked
    cdef public set early
    cdef public set held
    cdef public Py_ssize_t open_bytes
    cdef public Py_ssize_t unreported_bytes

    cpdef safe_now(self)


cdef class InStream:
    cdef public object key
    cdef public object receiver
    cdef public object slot
    cdef public Outbox _outbox
    cdef public object _mark
    cdef public object _passed
    cdef public object _marks
    cdef public bint _prompt
    cdef public list _waiting
    cdef public object _stream_id
    cdef public _Lane _ordered
    cdef public _Lane _urgent
    cdef public bint _closed
    cdef public Py_ssize_t _acks

    @cython.locals(lane=_Lane, size=Py_ssize_t)
    cpdef Delivery accept(self, bint urgent, seq, sent_ns, bytes payload, cause, ordinal)
    @cython.locals(lane=_Lane, size=Py_ssize_t, early=set)
    cpdef processed(self, Delivery delivery)
    @cython.locals(ordered=_Lane, urgent=_Lane, news=bint)
    cpdef bytes take_ack(self)
    @cython.locals(ordered=_Lane, urgent=_Lane, news=bint)
    cdef bint _find_safe(self)
