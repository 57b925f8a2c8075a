# cython: boundscheck=False, wraparound=False
"""The hot frames in C, for `amphora.amqp.frames`, `properties`, `content`, `body` and `deliveries`, which do the
same where nothing is compiled.

What encodes or decodes a message gives None for whatever is not usual, right or wrong: those modules know all of it, and
say what is wrong.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_Copy
from cpython.long cimport PyLong_AsLongLongAndOverflow
from cpython.object cimport PyObject
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport uint64_t
from libc.string cimport memcmp, memcpy

from operator import index

from amphora.amqp.errors import FrameError

cdef extern from "Python.h":
    const unsigned char *PyUnicode_1BYTE_DATA(object text)
    Py_ssize_t PyUnicode_GET_LENGTH(object text)
    bint PyUnicode_IS_ASCII(object text)

cdef enum:
    METHOD = 1
    HEADER = 2
    BODY = 3
    FRAME_END = 0xCE
    BASIC = 60
    PUBLISH = 40
    DELIVER = 60
    ACK = 80
    # What surrounds a frame's payload.
    OVERHEAD = 8
    # Of a publish's method, without its two names: class, method, the two reserved octets, the names' lengths, the bits.
    METHOD_SIZE = 9
    # Of an ack's method: class, method, delivery tag, bits.
    ACK_SIZE = 13
    # Of a header without its properties: class, weight, body size, flags.
    HEADER_SIZE = 14
    COUNT = 14
    # So much room, in bytes, is made for a body that is only announced.
    ROOM = 1 << 22
    HEADERS = 2
    DELIVERY_MODE = 3
    PRIORITY = 4
    CORRELATION_ID = 5
    MESSAGE_ID = 8
    TIMESTAMP = 9

# In the order of their flags, highest flag first.
cdef tuple NAMES = (
    'content_type',
    'content_encoding',
    'headers',
    'delivery_mode',
    'priority',
    'correlation_id',
    'reply_to',
    'expiration',
    'message_id',
    'timestamp',
    'type',
    'user_id',
    'app_id',
    'cluster_id',
)
cdef dict PLACES = {name: place for place, name in enumerate(NAMES)}
cdef PyObject *POINTERS[COUNT]
for _place in range(COUNT):
    POINTERS[_place] = <PyObject *> NAMES[_place]


# Octets one by one: compilers make a single instruction of these, and none of a loop.


cdef inline unsigned char *put_1(unsigned char *to, int value) noexcept nogil:
    to[0] = <unsigned char> value
    return to + 1


cdef inline unsigned char *put_2(unsigned char *to, int value) noexcept nogil:
    to[0] = <unsigned char> (value >> 8)
    to[1] = <unsigned char> value
    return to + 2


cdef inline unsigned char *put_4(unsigned char *to, uint64_t value) noexcept nogil:
    to[0] = <unsigned char> (value >> 24)
    to[1] = <unsigned char> (value >> 16)
    to[2] = <unsigned char> (value >> 8)
    to[3] = <unsigned char> value
    return to + 4


cdef inline unsigned char *put_8(unsigned char *to, uint64_t value) noexcept nogil:
    return put_4(put_4(to, value >> 32), value)


cdef inline int take_2(const unsigned char *data) noexcept nogil:
    return data[0] << 8 | data[1]


cdef inline uint64_t take_4(const unsigned char *data) noexcept nogil:
    return <uint64_t> data[0] << 24 | <uint64_t> data[1] << 16 | <uint64_t> data[2] << 8 | data[3]


cdef inline uint64_t take_8(const unsigned char *data) noexcept nogil:
    return take_4(data) << 32 | take_4(data + 4)


cdef inline unsigned char *put_text(unsigned char *to, const char *text, Py_ssize_t size) noexcept nogil:
    to[0] = <unsigned char> size
    memcpy(to + 1, text, size)
    return to + 1 + size


cdef inline unsigned char *begin_frame(unsigned char *to, int kind, int channel, Py_ssize_t size) noexcept nogil:
    return put_4(put_2(put_1(to, kind), channel), size)


cdef inline bytes part(const unsigned char *data, Py_ssize_t start, Py_ssize_t stop):
    # Without the two numbers and the slice that data[start:stop] makes first.
    return PyBytes_FromStringAndSize(<const char *> data + start, stop - start)


cdef inline const char *short_text(object text, Py_ssize_t *size):
    """The bytes of a text that may be a short string; NULL for anything else."""
    if type(text) is not str or not PyUnicode_IS_ASCII(text):
        return NULL
    size[0] = PyUnicode_GET_LENGTH(text)
    return <const char *> PyUnicode_1BYTE_DATA(text) if size[0] <= 255 else NULL


cdef inline int place_of(object name) except -2:
    """The place of a property among the fourteen; -1: there is none of that name."""
    cdef int place
    # Nearly always the very object: names that stand in a program are the same wherever they stand.
    for place in range(COUNT):
        if <PyObject *> name == POINTERS[place]:
            return place
    found = PLACES.get(name)
    return -1 if found is None else found


cdef inline bint is_text(object text, const unsigned char *data, Py_ssize_t length):
    """Whether these bytes are that text, which is ASCII or None."""
    return (
        text is not None
        and PyUnicode_GET_LENGTH(text) == length
        and memcmp(PyUnicode_1BYTE_DATA(text), data, length) == 0
    )


def encode_message(
    int channel,
    exchange,
    routing_key,
    bint mandatory,
    properties,
    body,
    Py_ssize_t frame_max,
    Py_ssize_t max_message_size,
):
    """See `amphora.amqp.content.encode_message`; None unless everything fits into one frame each, and all text is
    ASCII."""
    if type(properties) is not dict or type(body) is not bytes:
        return None
    cdef Py_ssize_t body_size = PyBytes_GET_SIZE(body), header_size = HEADER_SIZE
    cdef Py_ssize_t exchange_size = 0, key_size = 0
    cdef Py_ssize_t sizes[COUNT]
    cdef const char *texts[COUNT]
    cdef const char *exchange_text
    cdef const char *key_text
    cdef uint64_t numbers[COUNT]
    cdef int place, overflow, flags = 0
    cdef long long number
    cdef double seconds
    if body_size > max_message_size or body_size + OVERHEAD > frame_max:
        return None
    exchange_text = short_text(exchange, &exchange_size)
    key_text = short_text(routing_key, &key_size)
    if exchange_text is NULL or key_text is NULL:
        return None
    for name, value in (<dict> properties).items():
        place = place_of(name)
        if place < 0:
            return None
        if value is None:
            continue
        if place == HEADERS:
            return None
        if place == DELIVERY_MODE or place == PRIORITY:
            if type(value) is not int:
                return None
            number = PyLong_AsLongLongAndOverflow(value, &overflow)
            if overflow or not 0 <= number <= 255:
                return None
            numbers[place] = number
            header_size += 1
        elif place == TIMESTAMP:
            if type(value) is not float and type(value) is not int:
                return None
            if type(value) is int:
                number = PyLong_AsLongLongAndOverflow(value, &overflow)
                if overflow:
                    return None
                seconds = number
            else:
                seconds = value
            if not 0 <= seconds < 9007199254740992.0:  # what a double counts one by one
                return None
            numbers[place] = <uint64_t> seconds
            header_size += 8
        else:
            texts[place] = short_text(value, &sizes[place])
            if texts[place] is NULL:
                return None
            header_size += 1 + sizes[place]
        flags |= 0x8000 >> place
    if header_size + OVERHEAD > frame_max:
        return None

    cdef Py_ssize_t method_size = METHOD_SIZE + exchange_size + key_size
    cdef Py_ssize_t size = OVERHEAD + method_size + OVERHEAD + header_size
    if body_size:
        size += OVERHEAD + body_size
    cdef bytes message = PyBytes_FromStringAndSize(NULL, size)
    cdef unsigned char *to = <unsigned char *> PyBytes_AS_STRING(message)
    to = begin_frame(to, METHOD, channel, method_size)
    to = put_2(put_2(put_2(to, BASIC), PUBLISH), 0)
    to = put_text(put_text(to, exchange_text, exchange_size), key_text, key_size)
    to = put_1(put_1(to, mandatory), FRAME_END)
    to = begin_frame(to, HEADER, channel, header_size)
    to = put_2(put_8(put_2(put_2(to, BASIC), 0), body_size), flags)
    for place in range(COUNT):
        if flags & 0x8000 >> place:
            if place == DELIVERY_MODE or place == PRIORITY:
                to = put_1(to, <int> numbers[place])
            elif place == TIMESTAMP:
                to = put_8(to, numbers[place])
            else:
                to = put_text(to, texts[place], sizes[place])
    to = put_1(to, FRAME_END)
    if body_size:
        to = begin_frame(to, BODY, channel, body_size)
        memcpy(to, PyBytes_AS_STRING(body), body_size)
        put_1(to + body_size, FRAME_END)
    return message


# What came last, place by place: from one message to the next most texts are the same, such as the content type, and so
# is the set of properties. The dict is copied: that is quicker than to let a new one grow.
cdef list LAST = [None] * COUNT
cdef dict LAST_PROPERTIES = {}
cdef int LAST_FLAGS = 0
cdef bytes LAST_TAG = b''


cdef inline object text_at(int place, const unsigned char *data, Py_ssize_t length):
    """The text of a property."""
    last = LAST[place]
    if is_text(last, data, length):
        return last
    if place == MESSAGE_ID:
        last = LAST[CORRELATION_ID]
        if is_text(last, data, length):
            return last
    text = PyUnicode_DecodeUTF8(<const char *> data, length, 'surrogateescape')
    LAST[place] = text if PyUnicode_IS_ASCII(text) else None
    return text


cdef dict read_properties(const unsigned char *data, Py_ssize_t size):
    """The properties in a content header; None where there are headers, or something is wrong."""
    global LAST_FLAGS, LAST_PROPERTIES
    cdef Py_ssize_t length, at = HEADER_SIZE
    cdef int place, flags
    if size < HEADER_SIZE or take_2(data) != BASIC:
        return None
    flags = take_2(data + 12)
    if flags & (1 | 0x8000 >> HEADERS):
        return None
    if flags != LAST_FLAGS:
        LAST_PROPERTIES = {NAMES[place]: None for place in range(COUNT) if flags & 0x8000 >> place}
        LAST_FLAGS = flags
    cdef dict properties = PyDict_Copy(LAST_PROPERTIES)
    for place in range(COUNT):
        if not flags & 0x8000 >> place:
            continue
        if place == TIMESTAMP:
            if at + 8 > size:
                return None
            properties[NAMES[place]] = take_8(data + at)
            at += 8
            continue
        if at >= size:
            return None
        length = data[at]
        at += 1
        if place == DELIVERY_MODE or place == PRIORITY:
            properties[NAMES[place]] = length
        else:
            if at + length > size:
                return None
            properties[NAMES[place]] = text_at(place, data + at, length)
            at += length
    return properties


def decode_header(payload):
    """See `amphora.amqp.properties.decode_header`; None where there are headers, or something is wrong."""
    if type(payload) is not bytes:
        return None
    cdef const unsigned char *data = <const unsigned char *> PyBytes_AS_STRING(payload)
    properties = read_properties(data, PyBytes_GET_SIZE(payload))
    return None if properties is None else (take_8(data + 4), properties)


def read_delivery(bytes data not None, Py_ssize_t at, Py_ssize_t frame_max):
    """See `amphora.amqp.deliveries.read_delivery`."""
    global LAST_TAG
    cdef Py_ssize_t end = PyBytes_GET_SIZE(data), size, header, header_size, body, stop, tag_size
    cdef uint64_t body_size
    cdef const unsigned char *octets = <const unsigned char *> PyBytes_AS_STRING(data)
    cdef const unsigned char *method = octets + at + 7
    if end - at < 11 or take_4(method) != (BASIC << 16 | DELIVER) or octets[at] != METHOD:
        return None
    size = take_4(octets + at + 3)
    header = at + size + OVERHEAD
    if end - header < 7 + HEADER_SIZE or octets[header] != HEADER:
        return None
    header_size = take_4(octets + header + 3)
    body_size = take_8(octets + header + 11)
    body = header + header_size + OVERHEAD
    if max(size, header_size) + OVERHEAD > frame_max or body_size + OVERHEAD > <uint64_t> frame_max or end - body < 7:
        return None
    stop = body + 7 + <Py_ssize_t> body_size
    if (
        stop >= end
        or octets[body] != BODY
        or take_4(octets + body + 3) != body_size
        or take_2(octets + header + 1) != take_2(octets + at + 1)
        or take_2(octets + body + 1) != take_2(octets + at + 1)
        or octets[header - 1] != FRAME_END
        or octets[body - 1] != FRAME_END
        or octets[stop] != FRAME_END
    ):
        return None
    # Class, method, the tag and its length, and after it a number and a bit.
    if size < 5 or size < 5 + method[4] + 9:
        return None
    tag_size = method[4]
    properties = read_properties(octets + header + 7, header_size)
    if properties is None:
        return None
    if PyBytes_GET_SIZE(LAST_TAG) != tag_size or memcmp(PyBytes_AS_STRING(LAST_TAG), method + 5, tag_size):
        LAST_TAG = part(method, 5, 5 + tag_size)
    return (
        stop + 1,
        take_2(octets + at + 1),
        part(method, 0, size),
        LAST_TAG,
        take_8(method + 5 + tag_size),
        method[13 + tag_size] == 1,
        14 + tag_size,
        properties,
        part(octets, body + 7, stop),
    )


def decode_deliver(bytes payload not None):
    """See `amphora.amqp.frames.decode_deliver`."""
    cdef Py_ssize_t size = PyBytes_GET_SIZE(payload), at = 5
    cdef const unsigned char *octets = <const unsigned char *> PyBytes_AS_STRING(payload)
    if size > 4:
        at += octets[4]
    if at + 9 > size:
        raise FrameError('a basic.deliver of %d bytes' % size)
    return part(octets, 5, at), take_8(octets + at), octets[at + 8] == 1, at + 9


def decode_ack(bytes payload not None):
    """See `amphora.amqp.frames.decode_ack`."""
    cdef const unsigned char *octets = <const unsigned char *> PyBytes_AS_STRING(payload)
    if PyBytes_GET_SIZE(payload) < 13:
        raise FrameError('a basic.ack or basic.nack of %d bytes' % PyBytes_GET_SIZE(payload))
    return take_8(octets + 4), octets[12]


def encode_ack(int channel, delivery_tag, bint multiple=False):
    """See `amphora.amqp.frames.encode_ack`."""
    cdef uint64_t tag
    try:
        tag = index(delivery_tag)
    except (TypeError, OverflowError) as error:
        raise ValueError('a delivery tag must be an integer from 0 to 2^64 - 1, not %r' % (delivery_tag,)) from error
    cdef bytes made = PyBytes_FromStringAndSize(NULL, OVERHEAD + ACK_SIZE)
    cdef unsigned char *to = <unsigned char *> PyBytes_AS_STRING(made)
    to = put_2(put_2(begin_frame(to, METHOD, channel, ACK_SIZE), BASIC), ACK)
    put_1(put_1(put_8(to, tag), multiple), FRAME_END)
    return made


def read_ack(bytes data not None, Py_ssize_t at):
    """See `amphora.amqp.frames.read_ack`."""
    cdef const unsigned char *octets = <const unsigned char *> PyBytes_AS_STRING(data) + at
    if (
        PyBytes_GET_SIZE(data) - at < OVERHEAD + ACK_SIZE
        or take_4(octets + 7) != (BASIC << 16 | ACK)
        or take_4(octets + 3) != ACK_SIZE
        or octets[0] != METHOD
        or octets[OVERHEAD + ACK_SIZE - 1] != FRAME_END
    ):
        return None
    return at + OVERHEAD + ACK_SIZE, take_2(octets + 1), take_8(octets + 11), octets[19]


cdef class Body:
    """See `amphora.amqp.body.Body`.

    What comes is copied at once: the memory that it was received into is used again while it is still in the caches.
    """

    cdef bytes _octets
    cdef Py_ssize_t _size, _filled

    def __init__(self, Py_ssize_t size):
        self._size = size

    def add(self, piece):
        """See `amphora.amqp.body.Body`."""
        cdef Py_buffer view
        PyObject_GetBuffer(piece, &view, PyBUF_SIMPLE)
        try:
            self._make_room(view.len)
            memcpy(PyBytes_AS_STRING(self._octets) + self._filled, view.buf, view.len)
            self._filled += view.len
        finally:
            PyBuffer_Release(&view)

    cdef _make_room(self, Py_ssize_t size):
        cdef Py_ssize_t room = 0 if self._octets is None else PyBytes_GET_SIZE(self._octets)
        cdef bytes larger
        if size > self._size - self._filled:
            raise ValueError('%d bytes are more than is missing of a body' % size)
        if self._octets is None or size > room - self._filled:
            larger = PyBytes_FromStringAndSize(NULL, min(self._size, max(self._filled + size, 2 * room, ROOM)))
            if self._octets is not None:
                memcpy(PyBytes_AS_STRING(larger), PyBytes_AS_STRING(self._octets), self._filled)
            self._octets = larger

    def take(self):
        """See `amphora.amqp.body.Body`."""
        if self._filled != self._size:
            raise ValueError('a body is taken that is not complete')
        octets, self._octets = self._octets, None
        # Nothing may be added to what somebody has.
        self._size = -1
        return b'' if octets is None else octets
