from antiphon.processors.lane cimport Lane
from antiphon.processors.statistics cimport LatencyHistogram
cdef int _nested

cdef class LocalInbox:
    cdef public object _owner
    cdef public object _arrived
    cdef public object _ordered
    cdef public Lane _system_lane
    cdef public Lane _ordered_lane
    cdef public bint _paused
    cdef public object _resumed
    cdef public bint _closed
    cdef public bint _stepping
    cdef public bint _calm
    cdef public bint _over_high_water
    cdef public Py_ssize_t _shed_at
    cdef public bint _shedding
    cdef public LatencyHistogram _hop
    cdef public object _loop
    cpdef put_nowait(self, frame, direction, callback=*, receipt=*, sent_ns=*)
    cdef Lane _idle_lane(self, frame)
    cdef _step(self, Lane lane, frame, direction, receipt)
    cdef _hand_over(self, Lane lane, handoff)
    cdef _look_around(self)
    cdef _queue(self, item)
