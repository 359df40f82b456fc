"""Decoding of bodies in gzip or deflate: some hosts encode although no encoding was requested. No I/O."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Final

_PIECE: Final = 1024 * 1024
"""Bytes decoded at a time: a few encoded bytes can stand for very many."""


class Inflater:
    """Decodes one body: call `feed` with what arrives, and `end` at the end."""

    def __init__(self) -> None:
        self._unpack = zlib.decompressobj(zlib.MAX_WBITS | 32)  # gzip or zlib, according to the header
        self._begun = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the decoded bytes in pieces of a limited size; take them all before the next call.

        Raises `zlib.error` if the data is not in such an encoding.
        """
        if not self._begun and data:
            self._begun = True
            if data[0] & 0x0F != 8 and data[0] != 0x1F:  # the header of neither: raw deflate
                self._unpack = zlib.decompressobj(-zlib.MAX_WBITS)
        left = data
        while not self._unpack.eof or left.startswith(b"\x1f"):
            if self._unpack.eof:  # another member of a gzip file
                self._unpack = zlib.decompressobj(zlib.MAX_WBITS | 32)
            piece = self._unpack.decompress(left, _PIECE)
            left = self._unpack.unused_data if self._unpack.eof else self._unpack.unconsumed_tail
            if piece:
                yield piece
            elif not left:
                break

    def end(self) -> None:
        """Raise `EOFError` if the body ended before its encoding did."""
        if self._begun and not self._unpack.eof:
            raise EOFError("the body ends before its encoding")


def inflater(content_encoding: str) -> Inflater | None:
    """Return the decoder for a `Content-Encoding`; None if the body is used as it is."""
    return Inflater() if content_encoding.strip().lower() in ("gzip", "x-gzip", "deflate") else None
