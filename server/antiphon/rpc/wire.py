"""Limits how many values a protobuf message holds, before it is parsed; `antiphon.net.json_bounds` does the same for JSON.

Parsing 32 MiB of empty values takes half a second and 1 GB, and converting them in Python half a minute. Counting skips a large
field in one step, so its time depends only on the number of fields. https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from typing import Final, TypeAlias

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError

from antiphon.net.json_bounds import MAX_VALUES, SMALL, TooMuch

_Shape: TypeAlias = "dict[int, _Shape | None]"
"""The fields of a message type to look into, by number: the shape of a submessage, or None for packed numbers."""

_TEXTS: Final = (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES)


def shape_of(descriptor: Descriptor, known: dict[str, _Shape] | None = None) -> _Shape:
    """Return the shape of a message type, for `check`. `known` has the shapes made so far, as types may contain themselves."""
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
    """Raise `TooMuch` if the message holds more than `MAX_VALUES` values, and `DecodeError` if it is cut off or malformed."""
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
                if kind == 2:  # length-delimited: bytes, string, message or packed numbers
                    size, at = data[at], at + 1
                    if size > 0x7F:
                        size, at = _varint(data, at - 1)
                    if size and tag >> 3 in shape:
                        inner = shape[tag >> 3]
                        if inner is None:
                            left -= size  # each packed number takes at least a byte
                        else:
                            waiting.append((at, min(at + size, end), inner))
                    at += size
                elif kind == 0:  # varint
                    _, at = _varint(data, at)
                elif kind == 1:  # 64 bits
                    at += 8
                elif kind == 5:  # 32 bits
                    at += 4
                elif kind > 5:
                    raise DecodeError("Unknown wire type.")
                # Else the start or end of a group: the fields in it are counted as if they were in this message.
    except IndexError:
        raise DecodeError("The message ends within a field.") from None
    if left < 0:
        raise TooMuch(f"must not hold more than {MAX_VALUES} values")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return the variable-length number at offset `at`, and the offset behind it."""
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
