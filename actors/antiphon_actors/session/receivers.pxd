cimport cython
from antiphon.frames._decode cimport Decoder
from antiphon.processors.inbox cimport LocalInbox
from antiphon_actors.channels.in_stream cimport Delivery
from antiphon_actors.session.progress cimport Progress


cdef class FrameReceiver:
    cdef public object _node
    cdef public Decoder _decoder
    cdef public object _observer
    cdef public LocalInbox _inbox
    cdef public object _processor
    cdef public object _direction
    cdef public Progress _progress
    cdef public object _note_setting
    cdef public bint _over
    cdef public object _waiting
    cdef public object _answered_ordered
    cdef public object _answered_urgent

    @cython.locals(progress=Progress, payload=bytes)
    cpdef deliver(self, Delivery delivery)
    cdef _let_see(self, frame, sent_ns)
