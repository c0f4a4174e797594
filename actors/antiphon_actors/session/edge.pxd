cimport cython
from antiphon.frames._encode cimport Encoder
from antiphon_actors.channels.out_stream cimport OutStream


cdef class EdgeInbox:
    cdef public object _node
    cdef public object _pid
    cdef public object uri
    cdef public object _owner
    cdef public object _opening
    cdef public Encoder _encoder
    cdef public bint _names_causes
    cdef public bint _retains
    cdef public object _moved
    cdef public object _given_up
    cdef public dict _neighbour
    cdef public OutStream _down
    cdef public OutStream _up
    cdef public object _behind
    cdef public object _audio
    cdef public object _releasing
    cdef public bint _dropping
    cdef public object _catching_up
    cdef public Py_ssize_t lost

    @cython.locals(stream=OutStream, payload=bytes, urgent=bint)
    cpdef put_nowait(self, frame, direction, callback=*)
    cdef OutStream _stream(self, direction)
