cimport cython
from antiphon.frames._plan cimport Plan


cdef class Decoder:
    cdef public object _refs
    cdef public object _classes
    cdef public Py_ssize_t _depth
    cdef public bint _failed
    cdef public int _mode
    cdef public Py_ssize_t _odd_keys

    cpdef frame(self, data)
    @cython.locals(plan=Plan, start=Py_ssize_t)
    cpdef _read_frame(self, data)
    cdef _reset(self)
    cdef Plan _plan(self, kind)
    cdef _unpack(self, data)


@cython.locals(name=object)
cdef _build(Plan plan, list record, Py_ssize_t start)

@cython.locals(
    attributes=dict, length=Py_ssize_t, at=Py_ssize_t, known=Py_ssize_t, position=Py_ssize_t,
    names=tuple, rejected=list
)
cdef _build_own(Plan plan, list record)
cdef _put_defaults(frame, Plan plan, Py_ssize_t position)
