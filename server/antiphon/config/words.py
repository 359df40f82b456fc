"""Error messages for a wrong configuration, in an operator's terms: the path of the setting, and what it must be.

pydantic checks the values, but its messages speak of Python. No setting is known by name here: the models list them.
"""

from __future__ import annotations

import difflib
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, Final, TypeAlias, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

Path: TypeAlias = tuple[str | int, ...]
"""The path of a setting: the names of its sections, and indices in lists, from 0."""

_MIN_SIMILARITY: Final = 0.7
"""How similar a misspelt name and a setting must be (0 to 1) for the setting to be suggested."""

_WHOLE_NUMBER: Final = "must be a whole number"
_NUMBER: Final = "must be a number"
_TEXT: Final = "must be a text: put it in quotes"
_LIST: Final = "must be a list, such as [one, other]"
_SECTION: Final = "must be a section of settings, such as {name: value}"
_TIME: Final = "must be a time, such as 2026-12-31T00:00:00Z"

_EXPECTED: Final[Mapping[str, str]] = {
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
    "finite_number": "must be a finite number",
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

_EXPECTED_WITH: Final[Mapping[str, Callable[[Mapping[str, Any]], str]]] = {
    "greater_than": lambda context: f"must be more than {context['gt']:g}",
    "greater_than_equal": lambda context: f"must be {context['ge']:g} or more",
    "less_than": lambda context: f"must be less than {context['lt']:g}",
    "less_than_equal": lambda context: f"must be {context['le']:g} or less",
    "string_too_long": lambda context: f"must not have more than {context['max_length']} characters",
    "too_long": lambda context: f"must not have more than {context['max_length']} entries",
    "string_pattern_mismatch": lambda context: f"must fit the pattern {context['pattern']}",
    "literal_error": lambda context: f"must be {context['expected']}",
    "enum": lambda context: f"must be {context['expected']}",
    "value_error": lambda context: str(context["error"]),
}


def mistakes(error: ValidationError, root: type[BaseModel]) -> list[tuple[Path, str]]:
    """Return each wrong setting of `root` once, and what it must be. Neither contains the value that was given."""
    found: dict[Path, list[str]] = {}
    for details in error.errors(include_input=False, include_url=False):
        # pydantic adds steps to the path, such as the member of a union that it tried; they are dropped.
        path, kind = find(root, details["loc"])
        if details["type"] == "extra_forbidden":
            name = str(details["loc"][-1])
            path, kind = tuple(details["loc"]), (find(root, details["loc"][:-1])[1] if len(details["loc"]) > 1 else root)
            expected = f"there is no such setting{_new_name(name, kind) or suggestion(name, settings(kind))}"
        else:
            expected = _expected(details)
        messages = found.setdefault(path, [])
        if expected not in messages:
            messages.append(expected)
    return [(path, ", or ".join(messages)) for path, messages in found.items()]


def dotted(path: Iterable[str | int]) -> str:
    """Return a path in the form for people: its steps joined by dots."""
    return ".".join(map(str, path))


def find(root: Any, path: Sequence[str | int]) -> tuple[Path, Any]:
    """Return the part of `path` that leads to a setting, and the type of that setting."""
    kind = root
    for at, step in enumerate(path):
        kind = _plain(kind)
        inner = _setting(kind, str(step)) if isinstance(kind, type) and issubclass(kind, BaseModel) else None
        if inner is not None:
            kind = inner
        elif _is_kind(kind, Mapping):
            kind = get_args(kind)[1]
        elif _is_kind(kind, tuple) and isinstance(step, int):
            kind = get_args(kind)[0]
        else:
            return tuple(path[:at]), kind
    return tuple(path), _plain(kind)


def is_text(kind: Any) -> bool:
    """Return whether a setting of this type is a text or number, and not a list, mapping or section."""
    kind = _plain(kind)
    return not (_is_kind(kind, Mapping) or _is_kind(kind, tuple) or (isinstance(kind, type) and issubclass(kind, BaseModel)))


def settings(kind: Any) -> list[str]:
    """Return the names of a section's settings, as they stand in the file."""
    if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
        return []
    return [field.alias or name for name, field in kind.model_fields.items()]


def free_names(kind: type[BaseModel]) -> Any:
    """Return the type of the settings that an operator names in this section; None if there can be none."""
    extra = get_type_hints(kind, include_extras=True).get("__pydantic_extra__")
    return get_args(extra)[1] if kind.model_config.get("extra") == "allow" and get_args(extra) else None


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return the end of a sentence that suggests the name in `known` most similar to `name`; empty if none is."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=_MIN_SIMILARITY)
    return f"; is {close[0]} meant?" if close else ""


def _new_name(name: str, kind: Any) -> str:
    """Return the end of a sentence that says what a setting of the section `kind` is called now; empty if it had no other name."""
    found = getattr(kind, "renamed", {}).get(name)
    return f"; it is called {found} now" if found else ""


def _setting(kind: type[BaseModel], name: str) -> Any:
    """Return the type of a section's setting; None if it has no such setting."""
    found = (field.annotation for own, field in kind.model_fields.items() if (field.alias or own) == name)
    return next(found, None) or free_names(kind)


def _expected(details: ErrorDetails) -> str:
    kind, context = details["type"], details.get("ctx", {})
    if kind in _EXPECTED_WITH:
        return _EXPECTED_WITH[kind](context)
    return _EXPECTED.get(kind) or details["msg"]


def _plain(kind: Any) -> Any:
    """Return a type without its annotations, and without the None that it may be."""
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


def _is_kind(kind: Any, expected: type) -> bool:
    origin = get_origin(kind)
    return isinstance(origin, type) and issubclass(origin, expected)
