# cython: language_level=3, boundscheck=False, wraparound=False
"""`pack_frame` and `read_frame_head` of `framing`, compiled."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.string cimport memcpy

cdef enum:
    HEAD_BYTES = 34
    BODY_BYTES = 30


cdef inline void big_endian(unsigned char *at, unsigned long long value, int width) noexcept:
    cdef int place
    for place in range(width - 1, -1, -1):
        at[place] = value & 0xFF
        value >>= 8


cdef inline unsigned long long number(const unsigned char *at, int width) noexcept:
    cdef unsigned long long value = 0
    cdef int place
    for place in range(width):
        value = value << 8 | at[place]
    return value


cpdef bytes pack_frame(
    int kind, unsigned int stream, unsigned long long seq, unsigned long long sent_ns,
    bytes payload
):
    cdef Py_ssize_t size = len(payload)
    cdef bytes record = PyBytes_FromStringAndSize(NULL, HEAD_BYTES + size)
    cdef unsigned char *at = <unsigned char *>PyBytes_AS_STRING(record)
    head(at, kind, stream, seq, sent_ns, size)
    memcpy(at + HEAD_BYTES, PyBytes_AS_STRING(payload), size)
    return record


cpdef bytes pack_data_head(
    int kind, unsigned int stream, unsigned long long seq, unsigned long long sent_ns,
    Py_ssize_t size
):
    cdef bytes record = PyBytes_FromStringAndSize(NULL, HEAD_BYTES)
    head(<unsigned char *>PyBytes_AS_STRING(record), kind, stream, seq, sent_ns, size)
    return record


cdef void head(
    unsigned char *at, int kind, unsigned int stream, unsigned long long seq,
    unsigned long long sent_ns, Py_ssize_t size
) noexcept:
    cdef Py_ssize_t length = size + BODY_BYTES
    at[0] = length & 0xFF
    at[1] = (length >> 8) & 0xFF
    at[2] = (length >> 16) & 0xFF
    at[3] = (length >> 24) & 0xFF
    at[4] = 0x95
    at[5] = kind
    at[6] = 0xCE
    big_endian(at + 7, stream, 4)
    at[11] = 0xCF
    big_endian(at + 12, seq, 8)
    at[20] = 0xCF
    big_endian(at + 21, sent_ns, 8)
    at[29] = 0xC6
    big_endian(at + 30, size, 4)


cpdef tuple read_frame_head(data, Py_ssize_t start, Py_ssize_t size):
    cdef const unsigned char *at
    cdef bytes rest
    if type(data) is bytes:
        rest = data
    else:
        rest = bytes(data[start : start + BODY_BYTES])
        start = 0
    if size < BODY_BYTES or start < 0 or start + BODY_BYTES > len(rest):
        return None
    at = <const unsigned char *>PyBytes_AS_STRING(rest) + start
    if (
        at[0] != 0x95 or (at[1] != 20 and at[1] != 21) or at[2] != 0xCE or at[7] != 0xCF
        or at[16] != 0xCF or at[25] != 0xC6 or number(at + 26, 4) != size - BODY_BYTES
    ):
        return None
    return at[1], number(at + 3, 4), number(at + 8, 8), number(at + 17, 8)
