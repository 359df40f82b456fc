"""What is wrong with a configuration, in the words of an operator: the setting by its path, and what is wanted there.

pydantic checks; its own words speak of Python. Knows no setting by name: what there is to set is read from the models.
"""

from __future__ import annotations

import difflib
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, Final, TypeAlias, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

Path: TypeAlias = tuple[str | int, ...]
"""Where a setting is: the names of its sections, and its place in a list, from 0."""

_CLOSE: Final = 0.7
"""How much alike a misspelt name and a setting have to be, for the one to be taken for the other."""

_WHOLE_NUMBER: Final = "must be a whole number"
_NUMBER: Final = "must be a number"
_TEXT: Final = "must be a text: put it in quotes"
_LIST: Final = "must be a list, such as [one, other]"
_SECTION: Final = "must be a section of settings, such as {name: value}"
_TIME: Final = "must be a time, such as 2026-12-31T00:00:00Z"

_WANTED: Final[Mapping[str, str]] = {
    "missing": "is required",
    "model_type": _SECTION,
    "model_attributes_type": _SECTION,
    "dict_type": _SECTION,
    "mapping_type": _SECTION,
    "tuple_type": _LIST,
    "list_type": _LIST,
    "string_type": _TEXT,
    "string_unicode": "must be UTF-8",
    "int_type": _WHOLE_NUMBER,
    "int_parsing": _WHOLE_NUMBER,
    "int_from_float": _WHOLE_NUMBER,
    "int_parsing_size": "is too large a number",
    "float_type": _NUMBER,
    "float_parsing": _NUMBER,
    "finite_number": "must be a number that is not infinite",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "path_type": "must be the path of a file",
    "datetime_type": _TIME,
    "datetime_parsing": _TIME,
    "datetime_from_date_parsing": _TIME,
    "datetime_object_invalid": _TIME,
    "string_too_short": "must not be empty",
    "too_short": "must not be empty",
}

_WANTED_OF: Final[Mapping[str, Callable[[Mapping[str, Any]], str]]] = {
    "greater_than": lambda told: f"must be more than {told['gt']:g}",
    "greater_than_equal": lambda told: f"must be {told['ge']:g} or more",
    "less_than": lambda told: f"must be less than {told['lt']:g}",
    "less_than_equal": lambda told: f"must be {told['le']:g} or less",
    "string_too_long": lambda told: f"must not have more than {told['max_length']} characters",
    "too_long": lambda told: f"must not have more than {told['max_length']} entries",
    "string_pattern_mismatch": lambda told: f"must fit the pattern {told['pattern']}",
    "literal_error": lambda told: f"must be {told['expected']}",
    "enum": lambda told: f"must be {told['expected']}",
    "value_error": lambda told: str(told["error"]),
}


def mistakes(error: ValidationError, root: type[BaseModel]) -> list[tuple[Path, str]]:
    """Each setting of `root` at fault, once, and what is wanted; neither holds what was given."""
    found: dict[Path, list[str]] = {}
    for details in error.errors(include_input=False, include_url=False):
        # What pydantic adds to the path, such as which kind of a union it tried, is none of the operator's.
        path, kind = find(root, details["loc"])
        if details["type"] == "extra_forbidden":
            name = str(details["loc"][-1])
            path, kind = tuple(details["loc"]), (find(root, details["loc"][:-1])[1] if len(details["loc"]) > 1 else root)
            wanted = f"there is no such setting{suggestion(name, settings(kind))}"
        else:
            wanted = _wanted(details)
        told = found.setdefault(path, [])
        if wanted not in told:
            told.append(wanted)
    return [(path, ", or ".join(told)) for path, told in found.items()]


def dotted(path: Iterable[str | int]) -> str:
    """A path as it is written for people."""
    return ".".join(map(str, path))


def find(root: Any, path: Sequence[str | int]) -> tuple[Path, Any]:
    """As much of `path` as leads to a setting, and the type that this has."""
    kind = root
    for at, step in enumerate(path):
        kind = _plain(kind)
        if isinstance(kind, type) and issubclass(kind, BaseModel) and step in kind.model_fields:
            kind = kind.model_fields[str(step)].annotation
        elif _is_kind(kind, Mapping):
            kind = get_args(kind)[1]
        elif _is_kind(kind, tuple) and isinstance(step, int):
            kind = get_args(kind)[0]
        else:
            return tuple(path[:at]), kind
    return tuple(path), _plain(kind)


def is_text(kind: Any) -> bool:
    """Whether a setting of this type is a text or a number, and no list, mapping or section."""
    kind = _plain(kind)
    return not (_is_kind(kind, Mapping) or _is_kind(kind, tuple) or (isinstance(kind, type) and issubclass(kind, BaseModel)))


def settings(kind: Any) -> list[str]:
    """The names of a section's settings."""
    return list(kind.model_fields) if isinstance(kind, type) and issubclass(kind, BaseModel) else []


def suggestion(name: str, known: Iterable[str]) -> str:
    """What somebody may have meant who wrote `name`, if any of `known` is like it, as the rest of a sentence."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=_CLOSE)
    return f"; is {close[0]} meant?" if close else ""


def _wanted(details: ErrorDetails) -> str:
    kind, told = details["type"], details.get("ctx", {})
    if kind in _WANTED_OF:
        return _WANTED_OF[kind](told)
    return _WANTED.get(kind) or details["msg"]


def _plain(kind: Any) -> Any:
    """A type without what it is annotated with, and without the None that it may be."""
    while True:
        if get_origin(kind) is Annotated:
            kind = get_args(kind)[0]
            continue
        others = (
            [one for one in get_args(kind) if one is not types.NoneType] if get_origin(kind) in (Union, types.UnionType) else []
        )
        if len(others) != 1:
            return kind
        kind = others[0]


def _is_kind(kind: Any, wanted: type) -> bool:
    origin = get_origin(kind)
    return isinstance(origin, type) and issubclass(origin, wanted)
