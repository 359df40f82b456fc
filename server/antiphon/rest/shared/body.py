"""The JSON body of a request, checked. What the dialects share of it; no dialect is known here."""

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
"""The most levels of objects and arrays within a field: what is deeper can be read, but not written again."""

MAX_VIOLATIONS = 100
"""The most fields at fault that are told."""

_MAX_TOLD: Final = 5000
"""Faults that pydantic is asked to describe, which takes it more than a microsecond each."""

_BEGINNING: Final = 20
"""Entries of each list that are validated again, where there are more faults than that."""

_LARGEST_OBJECT: Final = 1000
"""The same of an object that is not the body itself: more than any has that must have certain fields."""


class Fields(BaseModel):
    """A JSON object; what is not known is kept beside it. A number in quotes is none, nor is 1 for true."""

    model_config = ConfigDict(extra="allow", strict=True)


Path: TypeAlias = "tuple[str | int, ...]"
"""Where a field stands."""

B = TypeVar("B", bound=BaseModel)


def parse(data: bytes, schema: type[B]) -> B:
    """The body. Raises `InvalidRequest` with every field at fault."""
    try:
        json_bounds.check(data)
    except json_bounds.TooMuch as error:
        raise _too_much(error) from None
    return validate(_loads(data), schema)


async def parse_in_turns(data: bytes, schema: type[B]) -> B:
    """The same for servicers: a large body is parsed step by step, between which other calls have their turn."""
    if len(data) <= json_bounds.SMALL:
        return parse(data, schema)
    await yield_to_other_calls()  # it was received and copied just now
    try:
        await json_bounds.check_in_turns(data)
    except json_bounds.TooMuch as error:
        raise _too_much(error) from None
    raw = _loads(data)
    await yield_to_other_calls()
    body = validate(raw, schema)
    await yield_to_other_calls()
    return body


def validate(raw: Any, schema: type[B]) -> B:
    """The body as the schema has it. Raises `InvalidRequest` with every field at fault."""
    if isinstance(raw, dict):
        large = [name for name, value in raw.items() if isinstance(value, list) and len(value) > domain.MAX_ENTRIES]
        if large:
            raise invalid(
                *(Violation((name,), f"must not have more than {domain.MAX_ENTRIES} entries", "too_long") for name in large)
            )
        if deep := [name for name, value in raw.items() if _is_deep(value)]:
            raise invalid(*(Violation((name,), f"must not be nested deeper than {MAX_DEPTH} levels", "too_deep") for name in deep))
    try:
        return schema.model_validate(raw)
    except ValidationError as error:
        found = _faults(error, raw, schema)
    raise invalid(*found)


def _faults(error: ValidationError, raw: Any, schema: type[BaseModel]) -> list[Violation]:
    """What is wrong, in the order of the fields; of very many faults those among the first entries of each list."""
    if error.error_count() > _MAX_TOLD:
        count = error.error_count()
        try:
            schema.model_validate({name: _beginning(value) for name, value in raw.items()} if isinstance(raw, dict) else raw)
        except ValidationError as shorter:
            error = shorter
        if error.error_count() > _MAX_TOLD:
            return [Violation((), f"The body has {count} faults, too many to tell.", "too_many_faults")]
    found = error.errors(include_url=False, include_context=False, include_input=False)[:MAX_VIOLATIONS]
    return [_violation(raw, e["loc"], e["msg"], e["type"]) for e in found]


def _beginning(value: Any) -> Any:
    """A JSON value with the first entries of each list and large object alone."""
    match value:
        case dict():
            return {name: _beginning(inner) for name, inner in islice(value.items(), _LARGEST_OBJECT)}
        case list():
            return [_beginning(inner) for inner in value[:_BEGINNING]]
        case _:
            return value


def _loads(data: bytes) -> Any:
    """JSON whose whole numbers are what they are, of however many digits."""
    try:
        return msgspec.json.decode(data)
    except (ValueError, RecursionError) as error:
        if len(data) > json_bounds.SMALL:  # another parser would take as long again, with nobody else served
            raise invalid(Violation((), f"JSON decode error: {error}", "json_invalid")) from None
    try:
        return orjson.loads(data)  # which tells what is wrong, and where
    except orjson.JSONDecodeError as error:
        raise invalid(Violation((error.pos,), f"JSON decode error: {error.msg}", "json_invalid")) from None


def _violation(raw: Any, path: tuple[str | int, ...], message: str, kind: str) -> Violation:
    """In the caller's words: without the names of our classes, nor in paths those of the types that a field may have."""
    steps: list[str | int] = []
    for place, step in enumerate(path):
        match raw, step:
            case dict(), str() if step in raw:
                raw = raw[step]
            case list(), int():
                raw = raw[step]
            case dict(), str() if kind == "missing" and place == len(path) - 1:
                pass
            case _ if place:  # one of several types
                continue
            case _:
                pass
        steps.append(step)
    return Violation(tuple(steps), "Input should be an object" if kind == "model_type" else message, kind)


def _is_deep(value: Any) -> bool:
    """Whether a value has more than `MAX_DEPTH` levels. Level by level, as a recursion would end where it is to be found."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(MAX_DEPTH):
        if not level:
            return False
        values = (inner for outer in level for inner in (outer.values() if type(outer) is dict else outer))
        level = [inner for inner in values if type(inner) is dict or type(inner) is list]
    return bool(level)


def get(body: Mapping[str, Any], name: str, kind: type, path: tuple[str | int, ...]) -> Any:
    """A field that must be there, and of that kind; `path` is where `body` stands. Raises `InvalidRequest`."""
    if name not in body:
        raise invalid(Violation((*path, name), "Field required", "missing"))
    if not isinstance(body[name], kind):
        wanted = "string" if kind is str else "object"
        raise invalid(Violation((*path, name), f"Input should be a valid {wanted}", f"{wanted}_type"))
    return body[name]


def rest(body: Mapping[str, Any], *known: str) -> domain.JsonObject:
    """The fields beside `type` and those that are known."""
    if len(body) == 2 and len(known) == 1:  # "type" and the one that is known
        return domain.NOTHING
    return {name: value for name, value in body.items() if name != "type" and name not in known}


def _too_much(error: json_bounds.TooMuch) -> InvalidRequest:
    return invalid(Violation((), f"The body {error}.", "too_large"))


def invalid(*violations: Violation) -> InvalidRequest:
    """The error for fields at fault."""
    return InvalidRequest("The request is not valid: see the detail list.", violations)


@contextmanager
def renaming(name: Callable[[Path], Path]) -> Iterator[None]:
    """Within it, what is told of the domain's request is told of the caller's body: `name` makes the one's paths the other's."""
    try:
        yield
    except InvalidRequest as error:
        error.violations = tuple(replace(violation, path=name(violation.path)) for violation in error.violations)
        raise


def messages_as(field: str, before: int = 0) -> Callable[[Path], Path]:
    """The name of messages that are `field` in the body, and have as many before them as are not the caller's."""

    def name(path: Path) -> Path:
        match path:
            case ("messages", int(index), *inner):
                return (field, max(0, index - before), *inner)
            case ("messages", *inner):
                return (field, *inner)
            case _:
                return path

    return name
