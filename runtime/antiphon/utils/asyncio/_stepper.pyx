"""`antiphon.utils.asyncio.current_task.Stepper`, compiled.

What it saves: the exception that ends a coroutine otherwise, with its traceback, and the calls into
a context and out of it.
"""

import asyncio

from cpython.object cimport PyObject

cdef extern from "Python.h":
    ctypedef enum PySendResult:
        PYGEN_RETURN
        PYGEN_ERROR
        PYGEN_NEXT
    PySendResult PyIter_Send(object iterator, object value, PyObject **result)
    int PyContext_Enter(object context) except -1
    int PyContext_Exit(object context) except -1
    void Py_DecRef(PyObject *item)

cdef extern from *:
    """
    static PyObject *antiphon_owned(PyObject *item) { return item; }
    """
    object antiphon_owned(PyObject *item)

# asyncio has no public call for it: a dictionary up to Python 3.11, a function since.
cdef object swap = getattr(asyncio.tasks, "_swap_current_task", None)
cdef dict tasks = {} if swap is not None else asyncio.tasks._current_tasks

DONE = object()
cdef object done = DONE


cdef class Stepper:
    def __init__(self, context, loop, task):
        self._context = context
        self._loop = loop
        self._task = task

    cpdef step(self, coroutine):
        cdef PyObject *result = NULL
        cdef PySendResult outcome
        cdef object outer
        if swap is None:
            outer = tasks.get(self._loop)
            tasks[self._loop] = self._task
        else:
            outer = swap(self._loop, self._task)
        try:
            PyContext_Enter(self._context)
            try:
                outcome = PyIter_Send(coroutine, None, &result)
                if outcome == PYGEN_ERROR:
                    reraise()
            finally:
                PyContext_Exit(self._context)
        finally:
            if swap is not None:
                swap(self._loop, outer)
            elif outer is None:
                del tasks[self._loop]
            else:
                tasks[self._loop] = outer
        if outcome == PYGEN_RETURN:
            Py_DecRef(result)
            return done
        return antiphon_owned(result)


cdef extern from *:
    """
    #define antiphon_reraise() (-1)
    """
    int reraise "antiphon_reraise" () except -1
