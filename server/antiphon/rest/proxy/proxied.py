"""Checks of the bodies that the proxies pass on, for the fields that the APIs document. No I/O.

https://platform.openai.com/docs/api-reference/chat/create and https://ai.google.dev/api/generate-content. A body is never
rewritten, so most of it is not decoded: an object is decoded only as far as it has known fields. Unknown fields are not checked.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final, TypeAlias

import msgspec

from antiphon import domain
from antiphon.domain.errors import InvalidRequest, Violation
from antiphon.net import json_bounds

Path: TypeAlias = "tuple[str | int, ...]"

_OBJECT: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ARRAY: Final = msgspec.json.Decoder(list[msgspec.Raw])
_KINDS: Final = {b'"': "string", b"[": "array", b"{": "object", b"t": "boolean", b"f": "boolean", b"n": "null"}


def _both_spellings(kinds: Mapping[str, str]) -> Mapping[str, str]:
    """Return the fields under both of their names: Google's API accepts the JSON name and the proto name."""
    snake = {re.sub("[A-Z]", lambda letter: f"_{letter[0].lower()}", name): kind for name, kind in kinds.items()}
    return {**kinds, **snake}


_CONFIG: Final = _both_spellings({
    "temperature": "number",
    "topP": "number",
    "topK": "number",
    "presencePenalty": "number",
    "frequencyPenalty": "number",
    "candidateCount": "integer",
    "maxOutputTokens": "integer",
    "seed": "integer",
    "logprobs": "integer",
    "responseLogprobs": "boolean",
    "enableEnhancedCivicAnswers": "boolean",
    "responseMimeType": "string",
    "mediaResolution": "string",
    "stopSequences": "strings",
    "responseModalities": "strings",
    "responseSchema": "object",
    "speechConfig": "object",
    "thinkingConfig": "object",
    "imageConfig": "object",
})  # fmt: skip
"""The types of the fields of `generationConfig`. `responseJsonSchema` may have any type, so it is not listed."""

_THINKING: Final = _both_spellings({"includeThoughts": "boolean", "thinkingBudget": "integer", "thinkingLevel": "string"})
_CONTENT: Final = {"role": "string"}
_PART: Final = {"text": "string"}


async def check_size(data: bytes) -> None:
    """Check the number of values in a body, which is limited although most are not decoded. Raises `InvalidRequest`."""
    try:
        await json_bounds.check_in_turns(data)
    except json_bounds.TooMuch as error:
        raise invalid("body", str(error), "too_large") from None


def check_openai(data: bytes) -> None:
    """Check the two fields that the OpenAI protocol requires. Raises `InvalidRequest`.

    They are `model`, a string, and `messages`, an array.
    """
    body = _object(data, ())
    _require(body, "model", "string", ())
    _require(body, "messages", "array", ())


def check_gemini(data: bytes, *, count: bool) -> None:
    """Check the documented fields of the Gemini protocol, under their JSON or proto names. Raises `InvalidRequest`.

    `count`: the body is one of countTokens, which may have `generateContentRequest` instead of `contents`.
    """
    body = _object(data, ())
    path: Path = ()
    for name, whole in _present_fields(body, "generateContentRequest", "generate_content_request") if count else ():
        path = (name,)
        body = _object(_require_kind(whole, "object", path), path)
        break
    contents = _array(_require(body, "contents", "array", path), (*path, "contents"))
    if not contents:
        raise invalid((*path, "contents"), "must hold at least one content")
    room = domain.MAX_ENTRIES - len(contents)
    for index, content in enumerate(contents):
        if room >= 0:
            room -= _check_content(content, (*path, "contents", index), room)
    if room < 0:
        raise invalid((*path, "contents"), f"must not have more than {domain.MAX_ENTRIES} entries and parts", "too_long")
    for name, config in _present_fields(body, "generationConfig", "generation_config"):
        here = (*path, name)
        inner = _object(_require_kind(config, "object", here), here)
        _check(inner, _CONFIG, here)
        for thinking, fields in _present_fields(inner, "thinkingConfig", "thinking_config"):
            _check(_object(fields, (*here, thinking)), _THINKING, (*here, thinking))
    for name, settings in _present_fields(body, "safetySettings", "safety_settings"):
        for index, setting in enumerate(_array(settings, (*path, name))):
            here = (*path, name, index)
            inner = _object(_require_kind(setting, "object", here), here)
            _require(inner, "category", "string", here)
            _require(inner, "threshold", "string", here)


def _check_content(content: msgspec.Raw, path: Path, room: int) -> int:
    """Check a content, and return the number of its parts. More than `room` parts are only counted.

    Raises `InvalidRequest`.
    """
    body = _object(_require_kind(content, "object", path), path)
    _check(body, _CONTENT, path)
    parts = _ARRAY.decode(_require(body, "parts", "array", path))
    for index, part in enumerate(parts if len(parts) <= room else ()):
        here = (*path, "parts", index)
        _check(_object(_require_kind(part, "object", here), here), _PART, here)
    return len(parts)


def _check(body: Mapping[str, msgspec.Raw], kinds: Mapping[str, str], path: Path) -> None:
    for name, raw in _present_fields(body, *(name for name in body if name in kinds)):
        _require_kind(raw, kinds[name], (*path, name))


def _present_fields(body: Mapping[str, msgspec.Raw], *names: str) -> Iterator[tuple[str, msgspec.Raw]]:
    """Yield the named fields that are present, with their values. Null is the same as not sent."""
    for name in names:
        if name in body and _kind(body[name]) != "null":
            yield name, body[name]


def _object(data: bytes | msgspec.Raw, path: Path) -> dict[str, msgspec.Raw]:
    """Return the fields of a JSON object, their values not decoded. Raises `InvalidRequest`."""
    try:
        try:
            return _OBJECT.decode(data)
        except msgspec.ValidationError:
            raise
        except msgspec.DecodeError:
            written = bytes(data)
            if b"\\" not in written or (rb"\ud" not in written and rb"\uD" not in written):
                raise
            # JSON allows half of a surrogate pair, and JavaScript writes it, but this parser refuses it. Texts are not used here,
            # so they may be changed. Replacing bytes is much faster than a regular expression.
            return _OBJECT.decode(written.replace(rb"\ud", rb"\u0").replace(rb"\uD", rb"\u0"))
    except msgspec.ValidationError:
        raise invalid(path or "body", "must be a JSON object", "invalid_type") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise invalid(path or "body", "is not JSON", "invalid_json") from None


def _array(raw: msgspec.Raw, path: Path) -> list[msgspec.Raw]:
    """Return the items of a JSON array, not decoded. Raises `InvalidRequest`.

    Their number is limited, because no other call is served while they are checked.
    """
    items = _ARRAY.decode(_require_kind(raw, "array", path))
    if len(items) > domain.MAX_ENTRIES:
        raise invalid(path, f"must not have more than {domain.MAX_ENTRIES} entries", "too_long")
    return items


def _require(body: Mapping[str, msgspec.Raw], name: str, kind: str, path: Path) -> msgspec.Raw:
    if name not in body:
        raise invalid((*path, name), "is required", "missing_required_parameter")
    return _require_kind(body[name], kind, (*path, name))


def _require_kind(raw: msgspec.Raw, kind: str, path: Path) -> msgspec.Raw:
    """Return the value if it is of that kind. Raises `InvalidRequest`."""
    if kind == "strings":
        for index, item in enumerate(_array(raw, path)):
            _require_kind(item, "string", (*path, index))
    elif _kind(raw) != ("number" if kind == "integer" else kind) or (kind == "integer" and not _is_whole(raw)):
        raise invalid(path, f"must be {'an' if kind[0] in 'aio' else 'a'} {kind}", "invalid_type")
    return raw


def _kind(raw: msgspec.Raw) -> str:
    return _KINDS.get(bytes(memoryview(raw)[:1]), "number")


def _is_whole(number: msgspec.Raw) -> bool:
    """Return whether a number is whole, however it is written: 8, 8.0 and 8e0 are the same."""
    return float(bytes(number)).is_integer()


def invalid(path: str | Path, message: str, kind: str = "invalid_value") -> InvalidRequest:
    """Return the error for a wrong field."""
    violation = Violation((path,) if isinstance(path, str) else path, message, kind)
    return InvalidRequest(f"{field_of(violation)} {message}.", (violation,))


def field_of(violation: Violation) -> str:
    """Return the path of a violation as text, such as "contents[0].parts"."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in violation.path).removeprefix(".")
