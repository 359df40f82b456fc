"""Parsing and validation of JSON request bodies, for all dialects. It knows no dialect."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import Any, Final, TypeAlias, TypeVar

import msgspec
import orjson
from msgspec.structs import replace
from pydantic import BaseModel, ConfigDict, ValidationError

from antiphon import domain
from antiphon.domain.errors import InvalidRequest, Violation
from antiphon.domain.fairness import yield_to_other_calls
from antiphon.net import json_bounds

MAX_DEPTH = 100
"""The most levels of objects and arrays within a field. A deeper value can be parsed, but not serialised again."""

MAX_VIOLATIONS = 100
"""The most wrong fields that an error lists."""

_MAX_DESCRIBED: Final = 5000
"""The most violations that pydantic is asked to describe. Each takes it more than a microsecond."""

_KEPT_ENTRIES: Final = 20
"""If there are more violations than that, the body is validated again with only this many entries of each list."""

_KEPT_FIELDS: Final = 1000
"""And with only this many fields of each object within the body: more than any object with required fields has."""


class Fields(BaseModel):
    """A JSON object. Unknown fields are kept. Types are strict: a number in quotes is not a number, and 1 is not true."""

    model_config = ConfigDict(extra="allow", strict=True)


Path: TypeAlias = "tuple[str | int, ...]"
"""The path of a field: field names and list indexes, from the outside in."""

B = TypeVar("B", bound=BaseModel)


def parse(data: bytes, schema: type[B]) -> B:
    """Parse and validate a body. Raises `InvalidRequest` with a violation for each wrong field."""
    try:
        json_bounds.check(data)
    except json_bounds.TooMuch as error:
        raise _too_much(error) from None
    return validate(_loads(data), schema, may_be_deep=data.count(b"{") + data.count(b"[") > MAX_DEPTH)


async def parse_in_turns(data: bytes, schema: type[B]) -> B:
    """Parse as `parse` does, but let other calls run between the steps if the body is large. For servicers."""
    if len(data) <= json_bounds.SMALL:
        return parse(data, schema)
    await yield_to_other_calls()  # receiving and copying it has just taken time
    try:
        await json_bounds.check_in_turns(data)
    except json_bounds.TooMuch as error:
        raise _too_much(error) from None
    raw = _loads(data)
    await yield_to_other_calls()
    body = validate(raw, schema)
    await yield_to_other_calls()
    return body


def validate(raw: Any, schema: type[B], *, may_be_deep: bool = True) -> B:
    """Validate parsed JSON against a schema. Raises `InvalidRequest` with a violation for each wrong field.

    Lists with too many entries and fields nested deeper than `MAX_DEPTH` are refused before pydantic reads them. `may_be_deep`:
    the JSON has enough brackets for that.
    """
    if isinstance(raw, dict):
        large = [name for name, value in raw.items() if isinstance(value, list) and len(value) > domain.MAX_ENTRIES]
        if large:
            raise invalid(
                *(Violation((name,), f"must not have more than {domain.MAX_ENTRIES} entries", "too_long") for name in large)
            )
        if may_be_deep and (deep := [name for name, value in raw.items() if _is_deep(value)]):
            raise invalid(*(Violation((name,), f"must not be nested deeper than {MAX_DEPTH} levels", "too_deep") for name in deep))
    try:
        return schema.model_validate(raw)
    except ValidationError as error:
        found = _faults(error, raw, schema)
    raise invalid(*found)


def _faults(error: ValidationError, raw: Any, schema: type[BaseModel]) -> list[Violation]:
    """Return the violations in the order of the fields, at most `MAX_VIOLATIONS`.

    If there are more than `_MAX_DESCRIBED`, only the first entries of each list are examined. If those have too many as well, the
    result is one violation with the count.
    """
    if error.error_count() > _MAX_DESCRIBED:
        count = error.error_count()
        try:
            schema.model_validate({name: _shortened(value) for name, value in raw.items()} if isinstance(raw, dict) else raw)
        except ValidationError as shorter:
            error = shorter
        if error.error_count() > _MAX_DESCRIBED:
            return [Violation((), f"The body has {count} errors, too many to list.", "too_many_faults")]
    found = error.errors(include_url=False, include_context=False, include_input=False)[:MAX_VIOLATIONS]
    return [_violation(raw, e["loc"], e["msg"], e["type"]) for e in found]


def _shortened(value: Any) -> Any:
    """Return a JSON value with only the first entries of each list and of each large object."""
    match value:
        case dict():
            return {name: _shortened(inner) for name, inner in islice(value.items(), _KEPT_FIELDS)}
        case list():
            return [_shortened(inner) for inner in value[:_KEPT_ENTRIES]]
        case _:
            return value


def _loads(data: bytes) -> Any:
    """Parse JSON. Integers stay exact, however many digits they have. Raises `InvalidRequest`."""
    try:
        return msgspec.json.decode(data)
    except (ValueError, RecursionError) as error:
        if len(data) > json_bounds.SMALL:  # a second parser would block other calls as long again
            raise invalid(Violation((), f"JSON decode error: {error}", "json_invalid")) from None
    try:
        return orjson.loads(data)  # its errors say what is wrong, and where
    except orjson.JSONDecodeError as error:
        raise invalid(Violation((error.pos,), f"JSON decode error: {error.msg}", "json_invalid")) from None


def _violation(raw: Any, path: tuple[str | int, ...], message: str, kind: str) -> Violation:
    """Return a violation in terms of the caller's JSON; `path`, `message` and `kind` are pydantic's.

    The names of Python classes, and those of the alternatives of a union in the path, are removed.
    """
    steps: list[str | int] = []
    for place, step in enumerate(path):
        match raw, step:
            case dict(), str() if step in raw:
                raw = raw[step]
            case list(), int():
                raw = raw[step]
            case dict(), str() if kind == "missing" and place == len(path) - 1:
                pass
            case _ if place:  # the name of an alternative of a union
                continue
            case _:
                pass
        steps.append(step)
    return Violation(tuple(steps), "Input should be an object" if kind == "model_type" else message, kind)


def _is_deep(value: Any) -> bool:
    """Return whether a value has more than `MAX_DEPTH` levels.

    It goes level by level, because recursion would fail on the very values that it looks for.
    """
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(MAX_DEPTH):
        if not level:
            return False
        values = (inner for outer in level for inner in (outer.values() if type(outer) is dict else outer))
        level = [inner for inner in values if type(inner) is dict or type(inner) is list]
    return bool(level)


def required_field(body: Mapping[str, Any], name: str, kind: type, path: tuple[str | int, ...]) -> Any:
    """Return a field that must exist and be of the type `kind`; `path` is the path of `body`. Raises `InvalidRequest`."""
    if name not in body:
        raise invalid(Violation((*path, name), "Field required", "missing"))
    if not isinstance(body[name], kind):
        wanted = "string" if kind is str else "object"
        raise invalid(Violation((*path, name), f"Input should be a valid {wanted}", f"{wanted}_type"))
    return body[name]


def other_fields(body: Mapping[str, Any], *known: str) -> domain.JsonObject:
    """Return the fields of `body` except `type` and the `known` ones."""
    if len(body) == 2 and len(known) == 1:  # "type" and the known one
        return domain.NOTHING
    return {name: value for name, value in body.items() if name != "type" and name not in known}


def _too_much(error: json_bounds.TooMuch) -> InvalidRequest:
    return invalid(Violation((), f"The body {error}.", "too_large"))


def invalid(*violations: Violation) -> InvalidRequest:
    """Return the `InvalidRequest` error for these violations."""
    return InvalidRequest("The request is not valid: see the detail list.", violations)


@contextmanager
def renaming(name: Callable[[Path], Path]) -> Iterator[None]:
    """Convert the paths of an `InvalidRequest` that is raised inside the block into paths of the caller's body, with `name`."""
    try:
        yield
    except InvalidRequest as error:
        raise renamed(error, name) from error.__cause__


def renamed(error: InvalidRequest, name: Callable[[Path], Path]) -> InvalidRequest:
    """Convert the paths of an error into paths of the caller's body, with `name`, and return it."""
    error.violations = tuple(replace(violation, path=name(violation.path)) for violation in error.violations)
    return error


_OPTION_NAMES: Final[Mapping[Path, Path]] = {
    ("sampling", "choices"): ("n",),
    ("reasoning", "effort"): ("reasoning_effort",),
    ("audio_output",): ("audio",),
    ("end_user",): ("user",),
}


def option_path(path: Path) -> Path:
    """Convert the path of an option of the domain request into its name in chat completions, which most dialects use as well."""
    match path:
        case _ if path in _OPTION_NAMES:
            return _OPTION_NAMES[path]
        case ("sampling" | "extra", *inner) if inner:
            return tuple(inner)
        case _:
            return path


def message_paths(field: str, before: int = 0) -> Callable[[Path], Path]:
    """Return a function that converts the path of a message into its path in the caller's body.

    `field` is the name of the messages in the body. `before` is the number of messages that the gateway put in front of the
    caller's.
    """

    def name(path: Path) -> Path:
        match path:
            case ("messages", int(index), *inner):
                return (field, max(0, index - before), *inner)
            case ("messages", *inner):
                return (field, *inner)
            case _:
                return option_path(path)

    return name
