"""Protobuf's wire format (https://protobuf.dev/programming-guides/encoding/), for the messages that are written by hand."""

from __future__ import annotations

from functools import lru_cache


@lru_cache(4096)  # nearly all are sizes and counts of tokens
def varint(value: int) -> bytes:
    """Return an integer of at least 0 in seven bits a byte, the lowest ones first."""
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def tag(number: int, kind: int = 2) -> bytes:
    """Return what a field with this number begins with. `kind` is that of its value: 2 for what has a size in front."""
    return varint(number << 3 | kind)


def sized(tag: bytes, data: bytes) -> bytes:
    """Return a field whose value has its size in front: a text, bytes or a message."""
    return tag + varint(len(data)) + data
