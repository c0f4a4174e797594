cimport cython


cdef class Plan:
    cdef public object cls
    cdef public object kind
    cdef public bint is_own
    cdef public tuple names
    cdef public list rejected
    cdef public list defaults
    cdef public list factories
    cdef public object _get
    cdef public object _known
    cdef public Py_ssize_t _required

    @cython.locals(values=tuple, end=Py_ssize_t, record=list, at=Py_ssize_t)
    cpdef list record(self, frame)
    @cython.locals(
        attributes=dict, names=tuple, values=list, position=Py_ssize_t, end=Py_ssize_t,
        record=list
    )
    cdef list _own_record(self, frame)
    @cython.locals(at=Py_ssize_t)
    cpdef check_head(self, list record)
    @cython.locals(default=object, factory=object)
    cdef bint _is_default(self, Py_ssize_t position, value)


@cython.locals(plan=Plan)
cpdef Plan plan_for(cls)
