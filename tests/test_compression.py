"""Compression: what was compressed comes back, within a limit; what is broken is an error."""

import gzip
import zlib

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from amphora.compression import ALGORITHMS, ZSTD_MAGIC, check_algorithm, compress, decompress

BOTH = pytest.mark.parametrize('algorithm', ALGORITHMS)
LIMIT = 1_000_000


@BOTH
@given(body=st.binary(max_size=5000))
def test_bodies_come_back(algorithm: str, body: bytes) -> None:
    assert decompress(algorithm, compress(algorithm, body), LIMIT) == body


@BOTH
def test_what_repeats_itself_becomes_small(algorithm: str) -> None:
    assert len(compress(algorithm, b'amphora ' * 10_000)) < 1000


def test_others_write_and_read_the_same() -> None:
    body = b'amphora ' * 1000

    assert decompress('gzip', gzip.compress(body), LIMIT) == body == gzip.decompress(compress('gzip', body))
    packed = zstandard.ZstdCompressor().compress(body)
    assert decompress('zstd', packed, LIMIT) == body
    assert zstandard.ZstdDecompressor().decompress(compress('zstd', body)) == body
    assert packed.startswith(ZSTD_MAGIC)


@BOTH
def test_as_many_bytes_as_the_limit_allows(algorithm: str) -> None:
    assert len(decompress(algorithm, compress(algorithm, bytes(LIMIT)), LIMIT)) == LIMIT

    with pytest.raises(ValueError, match='more than 1000000 bytes'):
        decompress(algorithm, compress(algorithm, bytes(LIMIT + 1)), LIMIT)


@BOTH
@pytest.mark.parametrize('change', [lambda body: body[:-3], lambda body: b'', lambda body: b'nonsense'])
def test_what_is_broken_is_an_error(algorithm: str, change: object) -> None:
    with pytest.raises(ValueError, match=f'no {algorithm}'):
        decompress(algorithm, change(compress(algorithm, b'amphora ' * 1000)), LIMIT)  # type: ignore[operator]


@BOTH
@given(body=st.binary(max_size=300))
def test_anything_else_is_a_value_error(algorithm: str, body: bytes) -> None:
    try:
        decompress(algorithm, body, LIMIT)
    except ValueError:
        pass


def test_what_follows_a_body_is_an_error() -> None:
    with pytest.raises(ValueError, match='no gzip'):
        decompress('gzip', gzip.compress(b'a') + b'b', LIMIT)


def test_a_window_of_a_gigabyte_is_refused() -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=30, compression_level=1)
    packing = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    packed = packing.compress(bytes(2000)) + packing.flush()

    with pytest.raises(ValueError, match='no zstd'):
        decompress('zstd', packed, LIMIT)


@pytest.mark.parametrize('algorithm', ['', 'deflate', 'GZIP', None, 1])
def test_an_unknown_algorithm_is_an_error(algorithm: object) -> None:
    with pytest.raises(ValueError, match='gzip, zstd'):
        check_algorithm(algorithm)


def test_zlib_itself_is_not_gzip() -> None:
    with pytest.raises(ValueError, match='no gzip'):
        decompress('gzip', zlib.compress(b'a'), LIMIT)
