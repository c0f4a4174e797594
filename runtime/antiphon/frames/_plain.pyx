# cython: language_level=3
"""The short way for Antiphon's own frames that hold nothing but plain values; compiled only.

It writes and reads the same bytes as the general way (`_encode`, `_decode`), in one pass over the
fields. Whatever is not plain, not known or not right it leaves to that, which also says what is
wrong: then it returns None.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_GetItem
from cpython.float cimport PyFloat_AS_DOUBLE
from cpython.object cimport PyObject, PyTypeObject
from libc.string cimport memcpy

from antiphon.frames._plan cimport Plan

from antiphon.frames._plan import COMMON, HEAD, MISSING, SHORTEST_HEAD

cdef extern from "Python.h":
    object PyObject_GenericGetDict(object item, void *context)
    int PyObject_GenericSetAttr(object item, object name, object value) except -1
    object PyType_GenericAlloc(PyTypeObject *cls, Py_ssize_t count)
    long long PyLong_AsLongLongAndOverflow(object number, int *overflow) except? -1
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *size) except NULL
    object PyUnicode_DecodeUTF8(const char *text, Py_ssize_t size, const char *errors)
    object PyLong_FromUnsignedLongLong(unsigned long long number)
    object PyLong_FromLongLong(long long number)

ctypedef const unsigned char *Bytes

cdef enum:
    MOST_VALUES = 40
    SHORTEST = 3
    LONGEST_HEAD = 7

assert SHORTEST == SHORTEST_HEAD and LONGEST_HEAD == len(HEAD)

cdef object missing = MISSING
cdef tuple optional = COMMON[2:]


cdef class _Unplain(Exception):
    pass


cdef object unplain = _Unplain()


# -- writing -----------------------------------------------------------------------------------


cdef Py_ssize_t width(object value) except -1:
    """Bytes that a value takes; 0 if it is not plain."""
    cdef int overflow = 0
    cdef long long number
    cdef Py_ssize_t size = 0
    cdef object kind = type(value)
    if value is None or kind is bool:
        return 1
    if kind is int:
        number = PyLong_AsLongLongAndOverflow(value, &overflow)
        if overflow:
            return 0
        if -32 <= number < 128:
            return 1
        if -128 <= number < 256:
            return 2
        if -32768 <= number < 65536:
            return 3
        if -2147483648 <= number < 4294967296:
            return 5
        return 9
    if kind is bytes:
        size = PyBytes_GET_SIZE(value)
        return size + (2 if size < 256 else 3 if size < 65536 else 5)
    if kind is str:
        PyUnicode_AsUTF8AndSize(value, &size)
        return size + (1 if size < 32 else 2 if size < 256 else 3 if size < 65536 else 5)
    if kind is float:
        return 9
    return 0


cdef inline unsigned char *big_endian(
    unsigned char *at, unsigned long long value, int places
) noexcept:
    cdef int place
    for place in range(places - 1, -1, -1):
        at[place] = value & 0xFF
        value >>= 8
    return at + places


cdef unsigned char *sized(
    unsigned char *at, Py_ssize_t size, unsigned char one, Bytes content
) noexcept:
    """Writes text or bytes; `one` is the type whose length has one byte."""
    if size < 256:
        at[0] = one
        at = big_endian(at + 1, size, 1)
    elif size < 65536:
        at[0] = one + 1
        at = big_endian(at + 1, size, 2)
    else:
        at[0] = one + 2
        at = big_endian(at + 1, size, 4)
    memcpy(at, content, size)
    return at + size


cdef unsigned char *write(unsigned char *at, object value) except NULL:
    cdef int overflow = 0
    cdef long long number
    cdef Py_ssize_t size = 0
    cdef const char *text
    cdef double real
    cdef unsigned long long bits
    cdef object kind = type(value)
    if value is None:
        at[0] = 0xC0
        return at + 1
    if kind is bool:
        at[0] = 0xC3 if value is True else 0xC2
        return at + 1
    if kind is int:
        number = PyLong_AsLongLongAndOverflow(value, &overflow)
        if -32 <= number < 128:
            at[0] = number & 0xFF
            return at + 1
        if number >= 0:
            if number < 256:
                at[0] = 0xCC
                return big_endian(at + 1, number, 1)
            if number < 65536:
                at[0] = 0xCD
                return big_endian(at + 1, number, 2)
            if number < 4294967296:
                at[0] = 0xCE
                return big_endian(at + 1, number, 4)
            at[0] = 0xCF
            return big_endian(at + 1, number, 8)
        if number >= -128:
            at[0] = 0xD0
            return big_endian(at + 1, number & 0xFF, 1)
        if number >= -32768:
            at[0] = 0xD1
            return big_endian(at + 1, number & 0xFFFF, 2)
        if number >= -2147483648:
            at[0] = 0xD2
            return big_endian(at + 1, number & 0xFFFFFFFF, 4)
        at[0] = 0xD3
        return big_endian(at + 1, <unsigned long long>number, 8)
    if kind is bytes:
        return sized(at, PyBytes_GET_SIZE(value), 0xC4, <Bytes>PyBytes_AS_STRING(value))
    if kind is str:
        text = PyUnicode_AsUTF8AndSize(value, &size)
        if size < 32:
            at[0] = 0xA0 | size
            memcpy(at + 1, text, size)
            return at + 1 + size
        return sized(at, size, 0xD9, <Bytes>text)
    real = PyFloat_AS_DOUBLE(value)
    memcpy(&bits, &real, 8)
    at[0] = 0xCB
    return big_endian(at + 1, bits, 8)


cdef bint is_default(object value, object default) except -1:
    if value is default:
        return True
    if default is missing or type(value) is float or type(value) is not type(default):
        return False
    return value == default


cpdef bytes encode_plain(Plan plan, frame):
    """Returns the record of one of Antiphon's own frames, or None."""
    cdef dict attributes = PyObject_GenericGetDict(frame, NULL)
    cdef tuple names = plan.names
    cdef list rejected = plan.rejected
    cdef list defaults = plan.defaults
    cdef Py_ssize_t count = len(names)
    cdef Py_ssize_t position, size, total
    cdef PyObject *values[MOST_VALUES]
    cdef PyObject *found
    cdef unsigned char *at
    cdef bytes record
    cdef int kind = plan.kind
    if count + LONGEST_HEAD > MOST_VALUES - 1 or kind > 65535:
        return None
    for position in range(count):
        found = PyDict_GetItem(attributes, names[position])
        if found == NULL or type(<object>found) in <frozenset>rejected[position]:
            return None
        values[LONGEST_HEAD - 1 + position] = found
    while count > plan._required and is_default(
        <object>values[LONGEST_HEAD - 2 + count], defaults[count - 1]
    ):
        count -= 1
    found = PyDict_GetItem(attributes, "id")
    if found == NULL or type(<object>found) is not int:
        return None
    values[0] = found
    found = PyDict_GetItem(attributes, "_name")
    if found != NULL and <object>found is not None:
        if type(<object>found) is not str:
            return None
    else:
        found = PyDict_GetItem(attributes, "_count")
        if found == NULL or type(<object>found) is not int:
            return None
    values[1] = found
    for position in range(2, LONGEST_HEAD - 1):
        found = PyDict_GetItem(attributes, optional[position - 2])
        if found == NULL:
            found = <PyObject *>None
        elif position == 3 and <object>found is not None:
            if type(<object>found) is not dict or <dict>found:
                return None
            found = <PyObject *>None
        elif <object>found is not None and (
            type(<object>found) is not int if position == 2 else type(<object>found) is not str
        ):
            return None
        values[position] = found
    count += LONGEST_HEAD - 1
    if count == LONGEST_HEAD - 1:
        while count > SHORTEST - 1 and <object>values[count - 1] is None:
            count -= 1
    total = (1 if count + 1 < 16 else 3) + (1 if kind < 128 else 2 if kind < 256 else 3)
    try:
        for position in range(count):
            size = width(<object>values[position])
            if size == 0:
                return None
            total += size
    except UnicodeEncodeError:
        return None
    record = PyBytes_FromStringAndSize(NULL, total)
    at = <unsigned char *>PyBytes_AS_STRING(record)
    if count + 1 < 16:
        at[0] = 0x90 | (count + 1)
        at += 1
    else:
        at[0] = 0xDC
        at = big_endian(at + 1, count + 1, 2)
    at = write(at, kind)
    for position in range(count):
        at = write(at, <object>values[position])
    return record


# -- reading -----------------------------------------------------------------------------------


cdef struct Reader:
    Bytes at
    Bytes end


cdef inline unsigned long long number(Bytes at, int places) noexcept:
    cdef unsigned long long value = 0
    cdef int place
    for place in range(places):
        value = value << 8 | at[place]
    return value


cdef object text_of(Reader *reader, Py_ssize_t size):
    cdef object text
    if reader.end - reader.at < size:
        raise unplain
    text = PyUnicode_DecodeUTF8(<const char *>reader.at, size, "strict")
    reader.at += size
    return text


cdef object bytes_of(Reader *reader, Py_ssize_t size):
    cdef object content
    if reader.end - reader.at < size:
        raise unplain
    content = PyBytes_FromStringAndSize(<const char *>reader.at, size)
    reader.at += size
    return content


cdef unsigned long long taken(Reader *reader, int places) except? 0:
    cdef unsigned long long value
    if reader.end - reader.at < places:
        raise unplain
    value = number(reader.at, places)
    reader.at += places
    return value


cdef object read(Reader *reader):
    """The next value, if it is plain; raises otherwise."""
    cdef unsigned char head
    cdef unsigned long long bits
    cdef double real
    if reader.at >= reader.end:
        raise unplain
    head = reader.at[0]
    reader.at += 1
    if head < 0x80:
        return head
    if head >= 0xE0:
        return <int>head - 256
    if head == 0xC0:
        return None
    if 0xA0 <= head < 0xC0:
        return text_of(reader, head & 0x1F)
    if head == 0xC4:
        return bytes_of(reader, taken(reader, 1))
    if head == 0xC5:
        return bytes_of(reader, taken(reader, 2))
    if head == 0xC6:
        return bytes_of(reader, taken(reader, 4))
    if head == 0xCC:
        return PyLong_FromUnsignedLongLong(taken(reader, 1))
    if head == 0xCD:
        return PyLong_FromUnsignedLongLong(taken(reader, 2))
    if head == 0xCE:
        return PyLong_FromUnsignedLongLong(taken(reader, 4))
    if head == 0xCF:
        return PyLong_FromUnsignedLongLong(taken(reader, 8))
    if head == 0xC2:
        return False
    if head == 0xC3:
        return True
    if head == 0xCB:
        bits = taken(reader, 8)
        memcpy(&real, &bits, 8)
        return real
    if head == 0xD9:
        return text_of(reader, taken(reader, 1))
    if head == 0xDA:
        return text_of(reader, taken(reader, 2))
    if head == 0xDB:
        return text_of(reader, taken(reader, 4))
    if head == 0xD0:
        return PyLong_FromLongLong(<signed char>taken(reader, 1))
    if head == 0xD1:
        return PyLong_FromLongLong(<short>taken(reader, 2))
    if head == 0xD2:
        return PyLong_FromLongLong(<int>taken(reader, 4))
    if head == 0xD3:
        return PyLong_FromLongLong(<long long>taken(reader, 8))
    raise unplain


cpdef decode_plain(dict plans, data):
    """Returns the frame whose record `data` is if it is one of Antiphon's own, or None.

    `plans` are the layouts by the numbers of their kinds.
    """
    if type(data) is not bytes:
        return None
    try:
        return frame_of(plans, data)
    except (_Unplain, UnicodeDecodeError):
        return None


cdef frame_of(dict plans, bytes data):
    cdef Reader reader
    cdef Plan plan
    cdef Py_ssize_t count, position, known
    cdef object value, frame
    cdef tuple names
    cdef list rejected
    reader.at = <Bytes>PyBytes_AS_STRING(data)
    reader.end = reader.at + PyBytes_GET_SIZE(data)
    if reader.at == reader.end:
        return None
    if reader.at[0] & 0xF0 == 0x90:
        count = reader.at[0] & 0x0F
        reader.at += 1
    elif reader.at[0] == 0xDC:
        reader.at += 1
        count = taken(&reader, 2)
    else:
        return None
    if count < SHORTEST:
        return None
    value = plans.get(read(&reader))
    if value is None:
        return None
    plan = value
    frame = PyType_GenericAlloc(<PyTypeObject *>plan.cls, 0)
    value = read(&reader)
    if type(value) is not int:
        return None
    PyObject_GenericSetAttr(frame, "id", value)
    value = read(&reader)
    if type(value) is int:
        PyObject_GenericSetAttr(frame, "_count", value)
    elif type(value) is str:
        PyObject_GenericSetAttr(frame, "_count", 0)
        PyObject_GenericSetAttr(frame, "_name", value)
    else:
        return None
    for position in range(SHORTEST, min(count, LONGEST_HEAD)):
        value = read(&reader)
        if value is None:
            continue
        if position == 3:
            if type(value) is not int:
                return None
            PyObject_GenericSetAttr(frame, "pts", value)
        elif position == 4 or type(value) is not str:
            return None
        elif position == 5:
            PyObject_GenericSetAttr(frame, "transport_source", value)
        else:
            PyObject_GenericSetAttr(frame, "transport_destination", value)
    names = plan.names
    rejected = plan.rejected
    known = len(names)
    for position in range(count - LONGEST_HEAD):
        value = read(&reader)
        if position < known:
            if type(value) in <frozenset>rejected[position]:
                return None
            PyObject_GenericSetAttr(frame, names[position], value)
    if reader.at != reader.end:
        return None
    position = max(count - LONGEST_HEAD, 0)
    while position < known:
        value = plan.defaults[position]
        if value is missing:
            value = plan.factories[position]
            if value is missing:
                return None
            value = value()
        PyObject_GenericSetAttr(frame, names[position], value)
        position += 1
    return frame
