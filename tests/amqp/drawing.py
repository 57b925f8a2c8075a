"""What several property tests draw from and ask."""

from __future__ import annotations

import struct
from collections.abc import Callable

from hypothesis import strategies as st

from amphora.amqp.errors import Closed

_scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.text(st.characters(codec='utf-8'), max_size=50)
    | st.binary(max_size=20).map(bytearray)
    | st.floats(allow_nan=False, allow_infinity=False)
)
_names = st.text(st.characters(codec='utf-8'), max_size=32)
_values = st.recursive(
    _scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_names, inner, max_size=4), max_leaves=12
)
#: field tables
tables = st.dictionaries(_names, _values, max_size=6)


def refused(read: Callable[..., object], *args: object) -> Closed | None:
    """The error of AMQP that reading ends with, if it does; any other error is the test's failure."""
    try:
        read(*args)
    except Closed as error:
        return error
    return None


def sized(payload: bytes) -> bytes:
    """A payload behind its length, as a table, an array or a long string has it."""
    return struct.pack('>I', len(payload)) + payload
