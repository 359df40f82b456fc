"""Decodes bodies that come in gzip or deflate, although no encoding is asked for: some hosts do as they like. No I/O."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Final

_PIECE: Final = 1024 * 1024
"""Bytes that are decoded at a time: a few encoded ones can stand for very many."""


class Inflater:
    """One body: feed it what comes, take what it decodes to, and call `end` at its end."""

    def __init__(self) -> None:
        self._unpack = zlib.decompressobj(zlib.MAX_WBITS | 32)  # gzip or zlib, as its head says
        self._begun = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield what `data` decodes to, in pieces of a bounded size; take them all before the next call.

        Raises `zlib.error` for what is in no such encoding.
        """
        if not self._begun and data:
            self._begun = True
            if data[0] & 0x0F != 8 and data[0] != 0x1F:  # neither's head: deflate without one
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
        """Raise `EOFError` if the body ends before its encoding does."""
        if self._begun and not self._unpack.eof:
            raise EOFError("the body ends before its encoding")


def inflater(content_encoding: str) -> Inflater | None:
    """Return what decodes a body with this `Content-Encoding`; None: it is taken as it is."""
    return Inflater() if content_encoding.strip().lower() in ("gzip", "x-gzip", "deflate") else None
