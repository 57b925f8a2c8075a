"""Bodies made smaller, and made large again within a limit.

Knows algorithms and bytes; not what is in them, nor how a message says what was done to it. ``zstd`` needs the package
zstandard, which ``amphora[zstd]`` brings.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

#: algorithms by the names that messages bear in ``content_encoding``
ALGORITHMS = ('gzip', 'zstd')
#: what a body compressed with zstd begins with (RFC 8878, section 3.1.1)
ZSTD_MAGIC = b'\x28\xb5\x2f\xfd'

# zlib's number for the largest window, plus what makes it speak gzip.
_GZIP = 16 + zlib.MAX_WBITS
# The most memory that a zstd body may make its reader use beside the result: RFC 8878 recommends to support 8 MB.
_ZSTD_WINDOW = 1 << 23
_ZSTD_LEVEL = 3


def check_algorithm(algorithm: object, what: str = 'compression') -> str:
    """The name of an algorithm that can be used here.

    :raises ValueError: there is none of that name.
    :raises ImportError: its package is not installed.
    """
    if algorithm not in ALGORITHMS:
        raise ValueError('%s must be one of %s, not %r' % (what, ', '.join(ALGORITHMS), algorithm))
    if algorithm == 'zstd':
        _zstandard()
    return str(algorithm)


def compress(algorithm: str, body: bytes) -> bytes:
    """A body made smaller."""
    if algorithm == 'gzip':
        packing = zlib.compressobj(wbits=_GZIP)
        return packing.compress(body) + packing.flush()
    packed: bytes = _zstandard().ZstdCompressor(level=_ZSTD_LEVEL).compress(body)
    return packed


def decompress(algorithm: str, body: bytes, limit: int) -> bytes:
    """A body as it was before `compress`.

    :param limit: how many bytes it may have.
    :raises ValueError: it has more; or it is broken, or nothing of the kind.
    :raises ImportError: the algorithm's package is not installed.
    """
    try:
        large = _READERS[algorithm](body, limit)
    except (zlib.error, EOFError) as error:
        raise ValueError('the body is no %s: %s' % (algorithm, error)) from error
    if len(large) > limit:
        raise _too_large(limit)
    return large


def _too_large(limit: int) -> ValueError:
    return ValueError('the body has more than %d bytes when it is decompressed' % limit)


def _read_gzip(body: bytes, limit: int) -> bytes:
    unpacking = zlib.decompressobj(_GZIP)
    large = unpacking.decompress(body, limit + 1)
    if len(large) <= limit and (not unpacking.eof or unpacking.unused_data):
        raise EOFError('it is cut, or followed by something else')
    return large


def _read_zstd(body: bytes, limit: int) -> bytes:
    zstandard = _zstandard()
    unpacking = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
    try:
        size = zstandard.get_frame_parameters(body).content_size
        if size == zstandard.CONTENTSIZE_UNKNOWN:
            with unpacking.stream_reader(body) as reader:
                size = len(reader.read(limit + 1))
        if size > limit:
            raise _too_large(limit)
        # That a body is cut the reader does not say, and this does.
        large: bytes = unpacking.decompress(body, max_output_size=size or 1, allow_extra_data=False)
        return large
    except zstandard.ZstdError as error:
        raise EOFError(str(error)) from error


_READERS: dict[str, Callable[[bytes, int], bytes]] = {'gzip': _read_gzip, 'zstd': _read_zstd}


def _zstandard() -> Any:
    try:
        import zstandard
    except ImportError as error:
        raise ImportError('zstd needs the package zstandard: install amphora[zstd]') from error
    return zstandard
