cimport cython
from antiphon.frames._decode cimport Decoder
from antiphon.processors.inbox cimport LocalInbox


cdef class FrameReceiver:
    cdef public object _node
    cdef public Decoder _decoder
    cdef public object _observer
    cdef public LocalInbox _inbox
    cdef public object _processor
    cdef public object _direction

    cpdef deliver(self, delivery)
    cdef _let_see(self, frame, sent_ns)
