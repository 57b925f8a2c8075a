# cython: boundscheck=False, wraparound=False
"""Long texts into JSON and out of it, for `amphora.codec`, which leaves them to msgspec where nothing is compiled.

JSON of a text without anything that must be escaped is the text itself, between quotes. msgspec looks at its characters
one by one to find that out; C can look at many at once.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.string cimport memchr, memcpy

from msgspec import Raw

cdef extern from "Python.h":
    unsigned char *PyUnicode_1BYTE_DATA(object text)
    Py_ssize_t PyUnicode_GET_LENGTH(object text)
    bint PyUnicode_IS_ASCII(object text)
    object PyUnicode_New(Py_ssize_t size, Py_UCS4 largest)

cdef enum:
    # Octets that are looked at together, and then copied while they are at hand: compilers make a few instructions of a
    # loop whose length they know, and what comes after it takes its time. A long text has at least as many.
    BLOCK = 2048
    # What may surround a long text, in bytes: so much is looked through for it, one by one.
    AROUND = 1024
    DELETE = 0x7F
    BACKSLASH = 0x5C
    QUOTE = 0x22

#: characters from which on a text is long
LONG = 4096
cdef Py_ssize_t _LONG = LONG
#: stands for the text in a value that `fill` gets the JSON of; any other octet 0 is escaped in JSON
HOLE = Raw(b'"\0"')
#: stands for the text in what `take_out` leaves
MARK = '\x7f'


cdef inline unsigned char is_special(unsigned char octet) noexcept nogil:
    # With a sign, all that is beyond ASCII is less than a blank too.
    return (<signed char> octet < 0x20) | (octet == QUOTE) | (octet == BACKSLASH)


cdef inline bint is_block_plain(const unsigned char *octets) noexcept nogil:
    """Whether a block is all ASCII, and nothing in it must be escaped."""
    cdef unsigned char special = 0
    cdef int place
    for place in range(BLOCK):
        special |= is_special(octets[place])
    return not special


cdef bint copy_plain(char *to, const unsigned char *octets, Py_ssize_t size) noexcept nogil:
    """Copy a text of a block or more; False when it is not all ASCII, or something in it must be escaped."""
    cdef Py_ssize_t at = 0, last = size - BLOCK
    while at < last:
        if not is_block_plain(octets + at):
            return False
        memcpy(to + at, octets + at, BLOCK)
        at += BLOCK
    # What is left, and as much of what comes before it as makes a block.
    if not is_block_plain(octets + last):
        return False
    memcpy(to + last, octets + last, BLOCK)
    return True


def begins_plain(str text not None):
    """Whether JSON of the beginning of a long text is that beginning itself; `fill` looks at the rest."""
    if PyUnicode_GET_LENGTH(text) < BLOCK:
        return False
    return PyUnicode_IS_ASCII(text) and is_block_plain(PyUnicode_1BYTE_DATA(text))


def fill(bytes body not None, str text not None):
    """Put a long text that begins plain into the only hole of a body.

    None when there is no hole, or there are more; or when something in the text must be escaped.
    """
    cdef Py_ssize_t size = PyBytes_GET_SIZE(body), length = PyUnicode_GET_LENGTH(text), before, after
    cdef const char *octets = PyBytes_AS_STRING(body)
    cdef const char *hole = <const char *> memchr(octets, 0, size)
    if hole is NULL or length < BLOCK:
        return None
    before = hole - octets
    after = size - before - 1
    if memchr(hole + 1, 0, after) is not NULL:
        return None
    cdef bytes filled = PyBytes_FromStringAndSize(NULL, before + length + after)
    cdef char *to = PyBytes_AS_STRING(filled)
    if not copy_plain(to + before, PyUnicode_1BYTE_DATA(text), length):
        return None
    memcpy(to, octets, before)
    memcpy(to + before + length, hole + 1, after)
    return filled


def take_out(body, int depth):
    """The body with `MARK` in place of its long text, and the text.

    None when there is none at that depth of arrays and objects, when something in it is escaped or not ASCII, or when
    there is much or a `MARK` around it: that is left to who reads any JSON.
    """
    if type(body) is not bytes:
        return None
    cdef const unsigned char *octets = <const unsigned char *> PyBytes_AS_STRING(body)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(body), at = 0, stop = 0, place
    cdef const unsigned char *quote
    cdef unsigned char octet
    while True:
        if at >= min(size, AROUND):
            return None
        octet = octets[at]
        at += 1
        if octet == QUOTE:
            quote = <const unsigned char *> memchr(octets + at, QUOTE, min(size - at, _LONG))
            if quote is NULL:
                break
            stop = quote - octets
            for place in range(at, stop):
                if octets[place] == BACKSLASH or octets[place] == DELETE:
                    return None
            at = stop + 1
        elif octet == DELETE:
            return None
        elif octet == c'[' or octet == c'{':
            depth -= 1
        elif octet == c']' or octet == c'}':
            depth += 1
    # It ends where little is left, or there is much around it: `copy_plain` finds a quote before that.
    stop = max(at + _LONG, size - AROUND)
    if depth or stop >= size:
        return None
    quote = <const unsigned char *> memchr(octets + stop, QUOTE, size - stop)
    if quote is NULL:
        return None
    stop = quote - octets
    if at + size - stop > AROUND:
        return None
    if memchr(octets + stop, DELETE, size - stop) is not NULL or memchr(octets + stop, BACKSLASH, size - stop) is not NULL:
        return None
    text = PyUnicode_New(stop - at, 0x7F)
    if not copy_plain(<char *> PyUnicode_1BYTE_DATA(text), octets + at, stop - at):
        return None
    cdef bytes rest = PyBytes_FromStringAndSize(NULL, at + 1 + size - stop)
    cdef char *to = PyBytes_AS_STRING(rest)
    memcpy(to, octets, at)
    to[at] = DELETE
    memcpy(to + at + 1, octets + stop, size - stop)
    return rest, text
