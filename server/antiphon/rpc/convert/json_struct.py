"""Conversion between JSON objects and `google.protobuf.Struct`."""

from __future__ import annotations

import json
import math
from typing import Any, Final

from google.protobuf import struct_pb2

from antiphon.domain.content import JsonObject

_LARGEST_WHOLE: Final = 2.0**63

_MAX_DEPTH: Final = 100
"""The most levels of objects and lists. Deeper values can be parsed, but not written again."""


def is_deep(value: object) -> bool:
    """Return True if a JSON value has more than `_MAX_DEPTH` levels."""
    level: list[Any] = [value]
    for _ in range(_MAX_DEPTH + 1):
        level = [one for one in level if isinstance(one, dict | list)]
        if not level:
            return False
        level = [inner for one in level for inner in (one.values() if isinstance(one, dict) else one)]
    return True


def struct_of(fields: JsonObject) -> struct_pb2.Struct | None:
    """Return a JSON object as a Struct; None for an empty one, so that the field stays unset.

    An integer that no double can hold is rounded to a double.
    """
    if not fields:
        return None
    struct = struct_pb2.Struct()
    try:
        struct.update(fields)
    except OverflowError:  # an integer that no double can hold
        struct.update(json.loads(json.dumps(fields), parse_int=float))
    return struct


def object_of(struct: struct_pb2.Struct) -> dict[str, Any]:
    """Return a Struct as a JSON object. A Struct has only doubles; whole ones become integers, as providers require.

    Raises `ValueError` for NaN and infinity, which JSON does not have.
    """
    return {name: _value(value) for name, value in struct.fields.items()}


def _value(value: struct_pb2.Value) -> Any:
    match value.WhichOneof("kind"):
        case "string_value":
            return value.string_value
        case "number_value":
            return _number(value.number_value)
        case "bool_value":
            return value.bool_value
        case "struct_value":
            return object_of(value.struct_value)
        case "list_value":
            return [_value(inner) for inner in value.list_value.values]
        case _:  # null, or an unset value
            return None


def _number(number: float) -> int | float:
    if not math.isfinite(number):
        raise ValueError("NaN and Infinity are not valid JSON")
    return int(number) if number.is_integer() and abs(number) < _LARGEST_WHOLE else number
