"""What becomes of well-formed bytes: changed, cut, repeated, and put elsewhere, as bytes and as frames."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from tests.amqp.scripted import raw_frame

Frame = tuple[int, int, bytes]

# Numbers around which code goes wrong, of every width that AMQP has.
_NUMBERS = [
    number.to_bytes(width, 'big')
    for width in (1, 2, 4, 8)
    for number in sorted({0, 1, 1 << 8 * width - 1, (1 << 8 * width - 1) - 1, (1 << 8 * width) - 1})
]
# Types of a field table's values, each with a value that is too short for most.
_FIELDS = [bytes((kind,)) + b'\x00\x00\x00\x02\x01a' for kind in b'tbBUusIiLlfdDSATFVx\x00\xff']
_pieces = st.sampled_from(_NUMBERS + _FIELDS) | st.binary(max_size=9)
# Positions and indexes are taken modulo what there is.
_at = st.integers(0, 65535)

#: a change of some bytes: which, where, how far, and with what
Change = tuple[str, int, int, bytes]
_changes = st.tuples(st.sampled_from(['put', 'put', 'put', 'insert', 'remove', 'cut', 'repeat']), _at, _at, _pieces)


def change(data: bytes, changes: list[Change]) -> bytes:
    """The bytes after some changes."""
    for what, where, far, piece in changes:
        at = where % (len(data) + 1)
        end = min(len(data), at + far % 64)
        if what == 'put':
            data = data[:at] + piece + data[at + len(piece) :]
        elif what == 'insert':
            data = data[:at] + piece + data[at:]
        elif what == 'remove':
            data = data[:at] + data[end:]
        elif what == 'cut':
            data = data[:at]
        else:
            data = data[:end] + data[at:end] + data[end:]
    return data


def changed(data: bytes, most: int = 4) -> st.SearchStrategy[bytes]:
    """These bytes after up to so many changes."""
    return st.lists(_changes, max_size=most).map(lambda changes: change(data, changes))


_channels = st.sampled_from([0, 1, 2, 3, 65535])
_frame_changes: st.SearchStrategy[tuple[Any, ...]] = st.one_of(
    # Most changes leave a frame a frame, so that what is behind the splitter has something to do.
    st.tuples(st.just('payload'), _at, st.lists(_changes, min_size=1, max_size=3)),
    st.tuples(st.just('payload'), _at, st.lists(_changes, min_size=1, max_size=3)),
    st.tuples(st.just('kind'), _at, st.integers(0, 9)),
    st.tuples(st.just('channel'), _at, _channels),
    st.tuples(st.just('remove'), _at, st.none()),
    st.tuples(st.just('copy'), _at, _at),
    st.tuples(st.just('move'), _at, _at),
    st.tuples(st.just('end'), _at, st.integers(0, 255)),
)


def _change_frames(frames: list[Frame], changes: list[tuple[Any, ...]]) -> bytes:
    said = [(frame, b'\xce') for frame in frames]
    for what, where, how in changes:
        if not said:
            break
        at = where % len(said)
        (kind, channel, payload), end = said[at]
        if what == 'payload':
            said[at] = (kind, channel, change(payload, how)), end
        elif what == 'kind':
            said[at] = (how, channel, payload), end
        elif what == 'channel':
            said[at] = (kind, how, payload), end
        elif what == 'end':
            said[at] = (kind, channel, payload), bytes((how,))
        else:
            if what in ('remove', 'move'):
                del said[at]
            if what in ('copy', 'move'):
                said.insert(how % (len(said) + 1), ((kind, channel, payload), end))
    return b''.join(raw_frame(*frame, end=end) for frame, end in said)


def changed_frames(frames: list[Frame], most: int = 4) -> st.SearchStrategy[bytes]:
    """These frames after up to so many changes, most of which leave a frame a frame; as bytes."""
    return st.lists(_frame_changes, min_size=1, max_size=most).map(lambda changes: _change_frames(frames, changes))


def mutated(data: bytes, split: Callable[[bytes], list[Frame]]) -> st.SearchStrategy[bytes]:
    """A stream of frames that was changed as frames, as bytes, or as both.

    :param split: bytes to frames.
    """
    frames = split(data)
    either = changed_frames(frames) | changed(data)
    return either | st.tuples(changed_frames(frames, 2), st.lists(_changes, max_size=2)).map(lambda both: change(*both))
