from antiphon.utils.asyncio._stepper cimport Stepper as CStepper

cdef class Lane:
    cdef public object current
    cdef public object handoff
    cdef public object owner
    cdef public CStepper stepper
    cdef public object task
    cdef public object wake
    cdef _over(self, receipt)
