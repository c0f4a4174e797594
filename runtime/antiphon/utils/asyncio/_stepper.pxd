cdef class Stepper:
    cdef object _context
    cdef object _loop
    cdef object _task
    cpdef step(self, coroutine)
