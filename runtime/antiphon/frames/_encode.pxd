cimport cython
from antiphon.frames._plan cimport Plan


cdef class Encoder:
    cdef public object _refs
    cdef public Py_ssize_t _depth
    cdef public object _packer

    @cython.locals(plan=Plan, record=list)
    cpdef bytes frame(self, frame)
    cpdef bytes pack(self, value)
