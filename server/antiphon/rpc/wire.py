"""Bounds how many values a protobuf message holds, counted before it is parsed, as `antiphon.net.json_bounds` does for JSON.

Parsing 32 MiB of empty values takes half a second and a gigabyte, and converting them in Python half a minute. A large field is
skipped in one step, so the time that counting takes depends on the number of fields alone. https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from typing import Final, TypeAlias

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError

from antiphon.net.json_bounds import MAX_VALUES, SMALL, TooMuch

_Shape: TypeAlias = "dict[int, _Shape | None]"
"""By number the fields that hold others: a message, or, as None, numbers side by side."""

_TEXTS: Final = (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES)


def shape_of(descriptor: Descriptor, known: dict[str, _Shape] | None = None) -> _Shape:
    """Return what `check` has to know of a kind of message. `known` has those that it may be within."""
    known = {} if known is None else known
    if descriptor.full_name in known:
        return known[descriptor.full_name]
    shape: _Shape = {}
    known[descriptor.full_name] = shape
    for field in descriptor.fields:
        if field.message_type is not None:
            shape[field.number] = shape_of(field.message_type, known)
        elif field.is_repeated and field.type not in _TEXTS:
            shape[field.number] = None
    return shape


def check(data: bytes, shape: _Shape) -> None:  # noqa: C901  # a branch a wire type; a call for each field would cost more
    """Raise `TooMuch` for a message that holds too much, and `DecodeError` for one that ends too early, or is none."""
    if len(data) <= SMALL:
        return
    left = MAX_VALUES
    waiting = [(0, len(data), shape)]
    try:
        while waiting and left >= 0:
            at, end, shape = waiting.pop()
            while at < end and left >= 0:
                left -= 1
                tag, at = data[at], at + 1
                if tag > 0x7F:
                    tag, at = _varint(data, at - 1)
                kind = tag & 7
                if kind == 2:  # bytes, a text, a message or numbers
                    size, at = data[at], at + 1
                    if size > 0x7F:
                        size, at = _varint(data, at - 1)
                    if size and tag >> 3 in shape:
                        inner = shape[tag >> 3]
                        if inner is None:
                            left -= size  # a byte each, or more
                        else:
                            waiting.append((at, min(at + size, end), inner))
                    at += size
                elif kind == 0:  # a number of variable length
                    _, at = _varint(data, at)
                elif kind == 1:  # 64 bits
                    at += 8
                elif kind == 5:  # 32 bits
                    at += 4
                elif kind > 5:
                    raise DecodeError("There is no such kind of field.")
                # Else the beginning or the end of a group: what is between is counted as if it stood here.
    except IndexError:
        raise DecodeError("The message ends within a field.") from None
    if left < 0:
        raise TooMuch(f"must not hold more than {MAX_VALUES} values")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return the number that begins at `at`, and where it ends."""
    byte = data[at]
    if byte < 0x80:
        return byte, at + 1
    number, shift = byte & 0x7F, 7
    while True:
        at += 1
        byte = data[at]
        number |= (byte & 0x7F) << shift
        if byte < 0x80 or shift > 63:
            return number, at + 1
        shift += 7
