"""Compares JSON with the types of a provider's SDK: TypedDicts, or models of pydantic. No field may be unknown, or missing.

pydantic alone does not do that: it reads iterables of TypedDicts only when they are used, and lets models have more fields.
"""

import base64
import enum
import inspect
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin

import typing_extensions
from pydantic import BaseModel

_URL_SAFE = str.maketrans("-_", "+/")
"""The other alphabet of base64, which Google's APIs take as well."""

_LISTS = (list, Iterable, Sequence, tuple, set)
_MAPPINGS = (dict, Mapping)
_REQUIRED: tuple[Any, ...] = (typing.Required, typing_extensions.Required)
_NOT_REQUIRED: tuple[Any, ...] = (typing.NotRequired, typing_extensions.NotRequired)


def members(union: Any) -> list[type[BaseModel]]:
    """Return the models of a union of an SDK, unions within it included."""
    found: list[type[BaseModel]] = []
    for one in get_args(union):
        if isinstance(one, type) and issubclass(one, BaseModel):
            found.append(one)
        elif get_args(one):
            found += members(one)
    return found


def words(union: Any, field: str = "type") -> set[str]:
    """Return the values of a field, such as `type`, of all models of a union."""
    return {word for one in members(union) for word in get_args(one.model_fields[field].annotation)}


def problems(value: Any, kind: Any, path: str = "") -> list[str]:  # a match over the kinds of type
    """Return what is wrong with a value of JSON as a value of a type; empty if nothing is."""
    origin, arguments = get_origin(kind), get_args(kind)
    if type(value).__name__ == "Omit" or kind in (Any, object) or isinstance(kind, typing.TypeVar):
        return []
    if origin is typing.Annotated or origin in (*_REQUIRED, *_NOT_REQUIRED):
        return problems(value, arguments[0], path)
    if origin in (Union, types.UnionType):
        found = [problems(value, one, path) for one in arguments]
        return [] if [] in found else max(found, key=lambda one: (_depth(one), -len(one)))
    if origin is Literal:
        return [] if value in arguments else [f"{path} is {value!r}, not {arguments}"]
    if hasattr(kind, "__supertype__"):
        return problems(value, kind.__supertype__, path)
    if origin in _LISTS or (getattr(origin, "__name__", "") == "SequenceNotStr"):
        if not isinstance(value, list):
            return [f"{path} is no list"]
        return [one for at, inner in enumerate(value) for one in problems(inner, arguments[0], f"{path}[{at}]")]
    if origin in _MAPPINGS:
        return [] if isinstance(value, dict) else [f"{path} is no object"]
    if typing_extensions.is_typeddict(kind) or (isinstance(kind, type) and issubclass(kind, BaseModel)):
        return _object_problems(value, kind, path)
    return [] if _is_plain(value, kind) else [f"{path} is no {kind}"]


def _object_problems(value: Any, kind: Any, path: str) -> list[str]:
    if not isinstance(value, dict):
        return [f"{path} is no object"]
    known, required = _fields(kind)
    found = [f"{path}.{name} is unknown to {kind.__name__}" for name in value.keys() - known.keys()]
    found += [f"{path}.{name} is missing in {kind.__name__}" for name in required - value.keys()]
    return found + [one for name, inner in value.items() if name in known for one in problems(inner, known[name], f"{path}.{name}")]


@cache
def _fields(kind: Any) -> tuple[dict[str, Any], set[str]]:
    """Return the types of the fields by name, and the names of those that are required."""
    if typing_extensions.is_typeddict(kind):
        hints = typing_extensions.get_type_hints(kind, include_extras=True)
        # The SDKs' annotations are texts, in which `Required` is found only now.
        required = {name for name, hint in hints.items() if get_origin(hint) in _REQUIRED} | set(kind.__required_keys__)
        return hints, {name for name in required if get_origin(hints[name]) not in _NOT_REQUIRED and _is_required(kind, name)}
    hints = {field.alias or name: field.annotation for name, field in kind.model_fields.items()}
    return hints, {field.alias or name for name, field in kind.model_fields.items() if field.is_required()}


def _is_required(kind: Any, name: str) -> bool:
    """Return whether a field of a TypedDict is required, also where the class does not know because its annotations are texts."""
    for base in (kind, *getattr(kind, "__orig_bases__", ())):
        text = str(getattr(base, "__annotations__", {}).get(name, ""))
        if text:
            total = getattr(base, "__total__", True)
            return "NotRequired[" not in text and (total or "Required[" in text)
    return True


def _is_plain(value: Any, kind: Any) -> bool:
    if kind in (None, type(None)):
        return value is None
    if kind is bytes:
        try:
            base64.b64decode(value.translate(_URL_SAFE), validate=True)
        except (AttributeError, ValueError):
            return False
        return True
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return isinstance(value, str) and value in {one.value for one in kind}
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(kind, type) and isinstance(value, kind)


def _depth(found: list[str]) -> int:
    """Return how deep the first problem is: the deepest is that of the member of a union that was meant."""
    return min(one.split(" ", 1)[0].count(".") for one in found)


def body_problems(body: dict[str, Any], method: Any) -> list[str]:
    """Return what is wrong with a body for a method of an SDK whose arguments are the fields of the body."""
    hints = typing_extensions.get_type_hints(method, include_extras=True)
    names = inspect.signature(method).parameters.keys() - {"self", "request_options"}
    found = [f".{name} is unknown" for name in body.keys() - names]
    return found + [one for name, value in body.items() if name in names for one in problems(value, hints[name], f".{name}")]
