"""JSON objects as protobuf has them, and back."""

from __future__ import annotations

import json
from typing import Any, Final

from google.protobuf import json_format, struct_pb2

from antiphon.messages import JsonObject

_LARGEST_WHOLE: Final = 2.0**63


def struct_of(fields: JsonObject) -> struct_pb2.Struct | None:
    """A JSON object as a Struct; None for an empty one, so that the field stays unset."""
    if not fields:
        return None
    struct = struct_pb2.Struct()
    try:
        struct.update(fields)
    except OverflowError:  # a whole number that no double holds; what else there is has to be read all the same
        struct.update(json.loads(json.dumps(fields), parse_int=float))
    return struct


def object_of(struct: struct_pb2.Struct) -> dict[str, Any]:
    """A Struct knows only doubles; whole numbers become integers again, for which providers ask."""
    return {name: _whole(value) for name, value in json_format.MessageToDict(struct).items()}


def _whole(value: Any) -> Any:
    match value:
        case float() if value.is_integer() and abs(value) < _LARGEST_WHOLE:
            return int(value)
        case dict():
            return {name: _whole(inner) for name, inner in value.items()}
        case list():
            return [_whole(inner) for inner in value]
        case _:
            return value
