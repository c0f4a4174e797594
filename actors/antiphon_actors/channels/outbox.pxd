cimport cython


cdef bint _receiving
cdef bint _holding
cdef list _held_outboxes

cpdef receiving(bint more)
@cython.locals(outbox=Outbox)
cpdef received()


cdef class Outbox:
    cdef public object _loop
    cdef public object _wire
    cdef public bint _gathers
    cdef public Py_ssize_t _high_bytes
    cdef public Py_ssize_t _max_pending_bytes
    cdef public object _ack_delay_secs
    cdef public object _overflowed
    cdef public list _express
    cdef public list _held
    cdef public Py_ssize_t _held_bytes
    cdef public object _ordered
    cdef public dict _acks
    cdef public object _ack_timer
    cdef public object _turn
    cdef public bint _paused
    cdef public list _flush_waiters
    cdef public bint gate_open
    cdef public Py_ssize_t pending_bytes
    cdef public Py_ssize_t writes
    cdef public Py_ssize_t written_bytes
    cdef public Py_ssize_t pauses

    cpdef express(self, bytes record)
    cpdef express_pair(self, bytes head, bytes payload)
    cpdef write_now(self, bytes record)
    cpdef write_pair_now(self, bytes head, bytes payload)
    cpdef ack_due(self, source)
    cdef _begin_turn(self)
    cdef _write(self, bytes record)
    cdef _hold(self, bytes record)
    cpdef let_go(self)
