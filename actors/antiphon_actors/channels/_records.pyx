# cython: language_level=3, boundscheck=False, wraparound=False
"""`pack_data_head`, `pack_frame` and `cut_frames` of `framing`, compiled."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.string cimport memcpy

from antiphon_actors.channels.outbox cimport receiving

cdef enum:
    LENGTH_BYTES = 4
    HEAD_BYTES = 34
    BODY_BYTES = 30
    CAUSE_BYTES = 14


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
    bytes payload, unsigned long long cause=0, unsigned int ordinal=0
):
    cdef Py_ssize_t size = len(payload)
    cdef Py_ssize_t tail = CAUSE_BYTES if cause else 0
    cdef bytes record = PyBytes_FromStringAndSize(NULL, HEAD_BYTES + size + tail)
    cdef unsigned char *at = <unsigned char *>PyBytes_AS_STRING(record)
    head(at, kind, stream, seq, sent_ns, size, tail)
    memcpy(at + HEAD_BYTES, PyBytes_AS_STRING(payload), size)
    if tail:
        at += HEAD_BYTES + size
        at[0] = 0xCF
        big_endian(at + 1, cause, 8)
        at[9] = 0xCE
        big_endian(at + 10, ordinal, 4)
    return record


cpdef bytes pack_data_head(
    int kind, unsigned int stream, unsigned long long seq, unsigned long long sent_ns,
    Py_ssize_t size, unsigned long long cause=0
):
    cdef bytes record = PyBytes_FromStringAndSize(NULL, HEAD_BYTES)
    head(
        <unsigned char *>PyBytes_AS_STRING(record), kind, stream, seq, sent_ns, size,
        CAUSE_BYTES if cause else 0,
    )
    return record


cdef void head(
    unsigned char *at, int kind, unsigned int stream, unsigned long long seq,
    unsigned long long sent_ns, Py_ssize_t size, Py_ssize_t tail
) noexcept:
    cdef Py_ssize_t length = size + BODY_BYTES + tail
    at[0] = length & 0xFF
    at[1] = (length >> 8) & 0xFF
    at[2] = (length >> 16) & 0xFF
    at[3] = (length >> 24) & 0xFF
    at[4] = 0x97 if tail else 0x95
    at[5] = kind
    at[6] = 0xCE
    big_endian(at + 7, stream, 4)
    at[11] = 0xCF
    big_endian(at + 12, seq, 8)
    at[20] = 0xCF
    big_endian(at + 21, sent_ns, 8)
    at[29] = 0xC6
    big_endian(at + 30, size, 4)


cpdef Py_ssize_t cut_frames(data, Py_ssize_t start, parser) except -1:
    cdef const unsigned char *at
    cdef const unsigned char *begin
    cdef Py_ssize_t end, size, largest, length, tail
    cdef unsigned long long cause
    cdef unsigned int ordinal
    cdef bytes payload
    cdef object on_frame
    if type(data) is not bytes:
        return cut_view(data, start, parser)
    begin = <const unsigned char *>PyBytes_AS_STRING(data)
    end = len(<bytes>data)
    largest = parser.max_record_bytes
    on_frame = parser.on_frame
    while start + LENGTH_BYTES + BODY_BYTES <= end:
        at = begin + start
        size = at[0] | at[1] << 8 | at[2] << 16 | <Py_ssize_t>at[3] << 24
        at += LENGTH_BYTES
        if (
            size < BODY_BYTES or size > largest or start + LENGTH_BYTES + size > end
            or (at[0] != 0x95 and at[0] != 0x97) or (at[1] != 20 and at[1] != 21)
            or at[2] != 0xCE or at[7] != 0xCF or at[16] != 0xCF or at[25] != 0xC6
        ):
            break
        tail = CAUSE_BYTES if at[0] == 0x97 else 0
        length = <Py_ssize_t>number(at + 26, 4)
        if length + BODY_BYTES + tail != size:
            break
        cause = ordinal = 0
        if tail:
            if at[BODY_BYTES + length] != 0xCF or at[BODY_BYTES + length + 9] != 0xCE:
                break
            cause = number(at + BODY_BYTES + length + 1, 8)
            ordinal = number(at + BODY_BYTES + length + 10, 4)
        start += LENGTH_BYTES + size
        parser.records += 1
        receiving(start + LENGTH_BYTES < end)
        payload = PyBytes_FromStringAndSize(<const char *>at + BODY_BYTES, length)
        on_frame(
            at[1] == 21, number(at + 3, 4), number(at + 8, 8), number(at + 17, 8), payload,
            cause, ordinal,
        )
    return start


cdef Py_ssize_t cut_view(data, Py_ssize_t start, parser) except -1:
    # What was not complete before, and is now: rare.
    from antiphon_actors.channels.framing import pure_cut_frames

    return pure_cut_frames(data, start, parser)
