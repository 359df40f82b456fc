"""Tests of decoding bodies that are cut at any place."""

import gzip
import zlib

import pytest

from antiphon.net.inflate import inflater

DATA = b"data: hello\n\n" * 20


def bare(data: bytes) -> bytes:
    packing = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packing.compress(data) + packing.flush()


def decoded(encoding: str, *pieces: bytes) -> bytes:
    inflate = inflater(encoding)
    assert inflate is not None
    found = b"".join(piece for data in pieces for piece in inflate.feed(data))
    inflate.end()
    return found


@pytest.mark.parametrize(
    ("encoding", "packed"),
    [
        ("gzip", gzip.compress(DATA)),
        (" X-GZip ", gzip.compress(DATA[:50]) + gzip.compress(DATA[50:])),
        ("gzip", gzip.compress(DATA) + b"\0\0"),
        ("deflate", zlib.compress(DATA)),
        ("deflate", bare(DATA)),
    ],
    ids=["gzip", "two members", "padded", "deflate", "bare"],  # gzip has the time in its bytes, which would change the ids
)
def test_a_body_is_decoded_wherever_it_is_split(encoding: str, packed: bytes) -> None:
    """A body is decoded in one piece, in two pieces and byte by byte."""
    assert decoded(encoding, packed) == DATA
    assert decoded(encoding, *(packed[at : at + 1] for at in range(len(packed)))) == DATA
    for at in range(len(packed)):
        assert decoded(encoding, packed[:at], packed[at:]) == DATA


def test_a_body_that_ends_before_its_encoding_raises() -> None:
    """A cut body raises `EOFError` and an invalid one `zlib.error`; an empty body is valid."""
    packed = gzip.compress(DATA)
    for at in range(1, len(packed)):
        with pytest.raises(EOFError):
            decoded("gzip", packed[:at])
    assert decoded("gzip") == decoded("gzip", b"") == b""
    with pytest.raises(zlib.error):
        decoded("gzip", b"nonsense")


def test_much_that_few_bytes_stand_for_comes_in_pieces() -> None:
    """A highly compressed body is decoded in pieces of at most 1 MiB, so that a size limit holds in time."""
    inflate = inflater("gzip")
    assert inflate is not None
    sizes = [len(piece) for piece in inflate.feed(gzip.compress(bytes(5_000_000)))]
    assert sum(sizes) == 5_000_000
    assert max(sizes) <= 1024 * 1024


@pytest.mark.parametrize("encoding", ["", "identity", "br", "zstd"])
def test_other_bodies_are_taken_as_they_are(encoding: str) -> None:
    """An unknown encoding has no inflater; the body stays as it is."""
    assert inflater(encoding) is None
