"""The hot frames in C, for `amphora.amqp.frames`, `properties` and `content`, which do the same where nothing is compiled.

What encodes or decodes a message gives None for whatever is not usual, right or wrong: those modules know all of it, and
say what is wrong.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport uint64_t
from libc.string cimport memcpy

from amphora.amqp.errors import FrameError

cdef extern from "Python.h":
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *size) except NULL
    bint PyUnicode_IS_ASCII(object text)

cdef enum:
    METHOD = 1
    HEADER = 2
    BODY = 3
    FRAME_END = 0xCE
    BASIC = 60
    PUBLISH = 40
    DELIVER = 60
    # What surrounds a frame's payload.
    OVERHEAD = 8
    # Of a publish's method, without its two names: class, method, the two reserved octets, the names' lengths, the bits.
    METHOD_SIZE = 9
    # Of a header without its properties: class, weight, body size, flags.
    HEADER_SIZE = 14
    COUNT = 14
    HEADERS = 2
    DELIVERY_MODE = 3
    PRIORITY = 4
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


cdef inline unsigned char *put(unsigned char *to, uint64_t value, int octets) noexcept nogil:
    cdef int octet
    for octet in range(octets):
        to[octet] = <unsigned char> (value >> 8 * (octets - 1 - octet))
    return to + octets


cdef inline uint64_t take(const unsigned char *data, int octets) noexcept nogil:
    cdef uint64_t value = 0
    cdef int octet
    for octet in range(octets):
        value = value << 8 | data[octet]
    return value


cdef inline unsigned char *put_text(unsigned char *to, const char *text, Py_ssize_t size) noexcept nogil:
    to[0] = <unsigned char> size
    memcpy(to + 1, text, size)
    return to + 1 + size


cdef inline unsigned char *begin_frame(unsigned char *to, int kind, int channel, Py_ssize_t size) noexcept nogil:
    return put(put(put(to, kind, 1), channel, 2), size, 4)


cdef inline const char *short_text(object text, Py_ssize_t *size) except? NULL:
    """The bytes of a text that may be a short string; NULL for anything else."""
    if type(text) is not str or not PyUnicode_IS_ASCII(text):
        return NULL
    cdef const char *raw = PyUnicode_AsUTF8AndSize(text, size)
    return raw if size[0] <= 255 else NULL


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
    cdef bint there[COUNT]
    cdef int place, flags = 0
    cdef double seconds
    if body_size > max_message_size or body_size + OVERHEAD > frame_max:
        return None
    exchange_text = short_text(exchange, &exchange_size)
    key_text = short_text(routing_key, &key_size)
    if exchange_text is NULL or key_text is NULL:
        return None
    for place in range(COUNT):
        there[place] = False
    for name, value in (<dict> properties).items():
        found = PLACES.get(name)
        if found is None:
            return None
        if value is None:
            continue
        place = found
        if place == HEADERS:
            return None
        if place == DELIVERY_MODE or place == PRIORITY:
            if type(value) is not int or not 0 <= value <= 255:
                return None
            numbers[place] = value
            header_size += 1
        elif place == TIMESTAMP:
            if type(value) is not float and type(value) is not int:
                return None
            if not 0 <= value < 9007199254740992:  # what a double counts one by one
                return None
            seconds = value
            numbers[place] = <uint64_t> seconds
            header_size += 8
        else:
            texts[place] = short_text(value, &sizes[place])
            if texts[place] is NULL:
                return None
            header_size += 1 + sizes[place]
        there[place] = True
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
    to = put(put(put(to, BASIC, 2), PUBLISH, 2), 0, 2)
    to = put_text(put_text(to, exchange_text, exchange_size), key_text, key_size)
    to = put(put(to, mandatory, 1), FRAME_END, 1)
    to = begin_frame(to, HEADER, channel, header_size)
    to = put(put(put(put(to, BASIC, 2), 0, 2), body_size, 8), flags, 2)
    for place in range(COUNT):
        if there[place]:
            if place == DELIVERY_MODE or place == PRIORITY:
                to = put(to, numbers[place], 1)
            elif place == TIMESTAMP:
                to = put(to, numbers[place], 8)
            else:
                to = put_text(to, texts[place], sizes[place])
    to = put(to, FRAME_END, 1)
    if body_size:
        to = begin_frame(to, BODY, channel, body_size)
        memcpy(to, PyBytes_AS_STRING(body), body_size)
        put(to + body_size, FRAME_END, 1)
    return message


def decode_header(payload):
    """See `amphora.amqp.properties.decode_header`; None where there are headers, or something is wrong."""
    if type(payload) is not bytes:
        return None
    cdef Py_ssize_t size = PyBytes_GET_SIZE(payload), at = HEADER_SIZE
    cdef const unsigned char *data = <const unsigned char *> PyBytes_AS_STRING(payload)
    cdef int place, flags
    cdef Py_ssize_t length
    if size < HEADER_SIZE or take(data, 2) != BASIC:
        return None
    flags = <int> take(data + 12, 2)
    if flags & (1 | 0x8000 >> HEADERS):
        return None
    cdef dict properties = {}
    for place in range(COUNT):
        if not flags & 0x8000 >> place:
            continue
        if place == TIMESTAMP:
            if at + 8 > size:
                return None
            properties[NAMES[place]] = take(data + at, 8)
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
            properties[NAMES[place]] = PyUnicode_DecodeUTF8(<const char *> data + at, length, 'surrogateescape')
            at += length
    return take(data + 4, 8), properties


def cut_delivery(bytes data not None, Py_ssize_t at, Py_ssize_t frame_max):
    """See `amphora.amqp.frames.cut_delivery`."""
    cdef Py_ssize_t end = PyBytes_GET_SIZE(data), size, header, header_size, body, stop
    cdef uint64_t body_size
    cdef const unsigned char *octets = <const unsigned char *> PyBytes_AS_STRING(data)
    if end - at < 11 or take(octets + at + 7, 4) != (BASIC << 16 | DELIVER) or octets[at] != METHOD:
        return None
    size = take(octets + at + 3, 4)
    header = at + size + OVERHEAD
    if end - header < 7 + HEADER_SIZE or octets[header] != HEADER:
        return None
    header_size = take(octets + header + 3, 4)
    body_size = take(octets + header + 11, 8)
    body = header + header_size + OVERHEAD
    if max(size, header_size) + OVERHEAD > frame_max or body_size + OVERHEAD > <uint64_t> frame_max or end - body < 7:
        return None
    stop = body + 7 + <Py_ssize_t> body_size
    if (
        stop >= end
        or octets[body] != BODY
        or take(octets + body + 3, 4) != body_size
        or take(octets + header + 1, 2) != take(octets + at + 1, 2)
        or take(octets + body + 1, 2) != take(octets + at + 1, 2)
        or octets[header - 1] != FRAME_END
        or octets[body - 1] != FRAME_END
        or octets[stop] != FRAME_END
    ):
        return None
    return (
        stop + 1,
        take(octets + at + 1, 2),
        data[at + 7 : header - 1],
        data[header + 7 : body - 1],
        data[body + 7 : stop],
    )


def decode_deliver(bytes payload not None):
    """See `amphora.amqp.frames.decode_deliver`."""
    cdef Py_ssize_t size = PyBytes_GET_SIZE(payload), at = 5
    cdef const unsigned char *octets = <const unsigned char *> PyBytes_AS_STRING(payload)
    if size > 4:
        at += octets[4]
    if at + 9 > size:
        raise FrameError('a basic.deliver of %d bytes' % size)
    return payload[5:at], take(octets + at, 8), octets[at + 8] == 1, at + 9


def decode_ack(bytes payload not None):
    """See `amphora.amqp.frames.decode_ack`."""
    cdef const unsigned char *octets = <const unsigned char *> PyBytes_AS_STRING(payload)
    if PyBytes_GET_SIZE(payload) < 13:
        raise FrameError('a basic.ack or basic.nack of %d bytes' % PyBytes_GET_SIZE(payload))
    return take(octets + 4, 8), octets[12]
