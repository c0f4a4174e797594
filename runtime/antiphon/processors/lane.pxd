from antiphon.utils.asyncio._stepper cimport Stepper as CStepper
from antiphon.utils.asyncio.receipts cimport Work

cdef class Lane:
    cdef public object current
    cdef public object handoff
    cdef public object owner
    cdef public Work doing
    cdef public CStepper stepper
    cdef public object task
    cdef public object wake
    cdef _over(self, receipt)
