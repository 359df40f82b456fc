"""Generates the mappers of `listeners.yaml`, which give Envoy's own refusals the error format of the dialect that was called.

Envoy uses the first mapper that matches. For each error format there are, in this order: 405 for paths that only have other
methods, for which the transcoder says 404; 400 for a query that it cannot parse; statuses whose body has other fields; and
everything else.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, Final

from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor

from antiphon.rest.registry import Dialect
from antiphon.rest.shared.dialect import ErrorShape
from antiphon.rest.shared.paths import bindings, has_variables, pattern_of, query_of

STATUSES: Final = (500, 400, 401, 403, 404, 405, 408, 413, 415, 426, 429, 431, 502, 503, 504)
"""The statuses with which Envoy refuses requests. Any other status gets the body of 400 or 500."""

MESSAGE: Final = "*message"
"""The YAML alias of the message for each status; `listeners.yaml` defines its anchor by hand, like that of `*leave`."""

_ANCHORS: Final = {
    "not_found": "{status_code_filter: {comparison: {value: {default_value: 404, runtime_key: antiphon.404}}}}",
    "headers": "[*request_id, *retry_after, *should_retry, *authenticate, *leave]",
    # Used only if the request is refused before it has an id.
    "request_id": '{header: {key: x-request-id, value: "%UNIQUE_ID%"}, append_action: ADD_IF_ABSENT}',
    # Envoy omits the others if their value is empty.
    "retry_after": """{header: {key: retry-after, value: "%CEL(response.code == 503 ? '1' : '')%"}}""",
    "should_retry": """{header: {key: x-should-retry, """
    """value: "%CEL(response.code < 500 && response.code != 408 ? 'false' : '')%"}}""",
    "authenticate": """{header: {key: www-authenticate, value: "%CEL(response.code == 401 ? 'Bearer' : '')%"}, """
    "append_action: OVERWRITE_IF_EXISTS_OR_ADD}",
}

_WRONG_VALUES: Final = {
    FieldDescriptor.TYPE_INT32: ("([+-]?[0-9]{10,}|[+-]?[0-9]*[^0-9&+-][^&]*)?(&|$)", "must be a whole number"),
    FieldDescriptor.TYPE_BOOL: ("", "must be true or false"),
}
"""By type of a field: a pattern of the values in a query that the transcoder cannot parse, and the message about it."""


def mappers(dialects: Sequence[Dialect]) -> list[str]:
    """Return the lines of the mappers. Repeated parts, and parts that other lines use, get an anchor at their first use."""
    text = "\n".join(_mappers(dialects))
    for name, value in _ANCHORS.items():
        text = text.replace(f"*{name}", f"&{name} {value}", 1)
    for shape in (shape for dialect in dialects for shape, _ in by_shape(dialect)):
        text = text.replace(f"*{shape.name}_paths", f"&{shape.name}_paths {_path('safe_regex', shape.paths)}", 1)
        text = text.replace(f"override: *{shape.name}\n", f"override: &{shape.name}\n{_body(shape, STATUSES, MESSAGE)}\n", 1)
    return text.split("\n")


def _mappers(dialects: Sequence[Dialect]) -> Iterator[str]:
    for dialect in dialects:
        for shape, methods in by_shape(dialect):
            yield f"# {shape.name}"
            yield from _wrong_methods(shape, methods)
            yield from _wrong_queries(shape, methods)
            if shape is dialect.errors:
                called = [_path("prefix", f"/{dialect.service.full_name}/")]
            else:
                called = [_path("exact", _grpc_path(method)) for method in methods]
            yield from _other_errors(shape, [*called, f"*{shape.name}_paths"])


def _wrong_methods(shape: ErrorShape, methods: Sequence[MethodDescriptor]) -> Iterator[str]:
    for allow, pattern in allowed(methods):
        yield from _filter("and", "*not_found", _path("safe_regex", pattern), f"*{shape.name}_paths")
        yield "  status_code: 405"
        yield f"  headers_to_add: [{{header: {{key: allow, value: {json.dumps(allow)}}}}}, *should_retry, *request_id]"
        yield f"  body_format_override: *{shape.name}"


def _wrong_queries(shape: ErrorShape, methods: Sequence[MethodDescriptor]) -> Iterator[str]:
    for method in methods:
        if words := query_message(method):
            yield from _filter("and", _status(400), _path("exact", _grpc_path(method)))
            yield from ("  headers_to_add: *headers", "  body_format_override:", _body(shape, [400], words))


def _other_errors(shape: ErrorShape, here: Sequence[str]) -> Iterator[str]:
    """Yield the mappers for all other errors; `here` are the filters of the paths that have this format."""
    for status in special_statuses(shape):
        yield from _filter("and", _status(status), f"{{or_filter: {{filters: [{', '.join(here)}]}}}}")
        yield from ("  headers_to_add: *headers", "  body_format_override:", _body(shape, [status], MESSAGE))
    yield from _filter("or", *here)
    yield from ("  headers_to_add: *headers", f"  body_format_override: *{shape.name}")


def by_shape(dialect: Dialect) -> list[tuple[ErrorShape, list[MethodDescriptor]]]:
    """Return each error format of a dialect with its methods; the dialect's own, whose paths are wider, is last."""
    found: dict[str, tuple[ErrorShape, list[MethodDescriptor]]] = {}
    for method in dialect.service.methods:
        shape = dialect.errors_of(method.name)
        found.setdefault(shape.name, (shape, []))[1].append(method)
    return sorted(found.values(), key=lambda entry: entry[0] is dialect.errors)


def allowed(methods: Sequence[MethodDescriptor]) -> Iterator[tuple[str, str]]:
    """Yield the value of the `allow` header, and an RE2 pattern of the paths that have it; the first match is right."""
    verbs: dict[str, list[str]] = {}
    for method in methods:
        for verb, path in bindings(method):
            verbs.setdefault(path, []).extend(("GET", "HEAD") if verb == "get" else (verb.upper(),))
    paths = sorted(verbs, key=lambda path: (_specificity(path), verbs[path]))
    for allow, same in groupby(paths, key=lambda path: ", ".join(verbs[path])):
        yield allow, f"({'|'.join(map(pattern_of, same))})(\\?.*)?"


def _specificity(path: str) -> list[bool]:
    """Return a sort key for path templates: a fixed name sorts before a variable in the same place."""
    return [has_variables(segment) for segment in path.split("/")] if has_variables(path) else []


def query_message(method: MethodDescriptor) -> str | None:
    """Return the message for a query that cannot be parsed, which names the field; None if all fields are text."""
    path = "request.headers['x-envoy-original-path']"
    choices = [
        f"{path}.matches('[?&]({'|'.join(dict.fromkeys((field.name, field.json_name)))})={_WRONG_VALUES[field.type][0]}') ? "
        f"'{field.name}: {_WRONG_VALUES[field.type][1]}' :"
        for field in query_of(method)
        if field.type in _WRONG_VALUES
    ]
    if not choices:
        return None
    otherwise = "'The request is not valid.'"
    return _cel(f"!('x-envoy-original-path' in request.headers) ? {otherwise} :", *choices, otherwise)


def special_statuses(shape: ErrorShape) -> list[int]:
    """Return the statuses whose body has other fields than usual."""
    usual = shape.refusal(500, MESSAGE).keys()
    return [status for status in STATUSES if shape.refusal(status, MESSAGE).keys() != usual]


# YAML.


def _body(shape: ErrorShape, statuses: Sequence[int], message: str) -> str:
    """Return the JSON format of a body, as the value of `body_format_override`."""
    bodies = {status: shape.refusal(status, MESSAGE) for status in statuses}
    return "\n".join(("    json_format:", *_fields(bodies, message, "      ")))


def _fields(objects: Mapping[int, Mapping[str, Any]], message: str, indent: str) -> Iterator[str]:
    """Yield the lines of an object that is given once for each status; the first one decides the fields."""
    for name in next(iter(objects.values())):
        values = {status: fields[name] for status, fields in objects.items()}
        if all(isinstance(value, Mapping) for value in values.values()):
            yield f"{indent}{name}:"
            yield from _fields(values, message, f"{indent}  ")
        else:
            yield f"{indent}{name}: {_value(values, message)}"


def _value(values: Mapping[int, Any], message: str) -> str:
    """Return a value that may differ by status."""
    one = next(iter(values.values()))
    if all(value == status for status, value in values.items()):
        return '"%RESPONSE_CODE%"'
    if all(value == one for value in values.values()):
        return message if one == MESSAGE else json.dumps(one)
    statuses: dict[str, list[int]] = {}
    for status, value in values.items():
        if value != values[500 if status >= 500 else 400]:
            statuses.setdefault(value, []).append(status)
    choices = (f"{' || '.join(f'response.code == {status}' for status in same)} ? '{value}' :" for value, same in statuses.items())
    return _cel(*choices, f"response.code >= 500 ? '{values[500]}' :", f"'{values[400]}'")


def _cel(*lines: str) -> str:
    return '"%CEL(' + "".join(f"\n          {line}" for line in lines) + ')%"'


def _grpc_path(method: MethodDescriptor) -> str:
    return f"/{method.containing_service.full_name}/{method.name}"


def _filter(kind: str, *filters: str) -> Iterator[str]:
    """Yield the start of a mapper for what one ("or") or all ("and") of the filters match."""
    yield from ("- filter:", f"    {kind}_filter:", "      filters:", *(f"      - {each}" for each in filters))


def _path(kind: str, value: str) -> str:
    match = f"safe_regex: {{regex: {json.dumps(value)}}}" if kind == "safe_regex" else f"{kind}: {value}"
    return f'{{header_filter: {{header: {{name: ":path", string_match: {{{match}}}}}}}}}'


def _status(status: int) -> str:
    return f"{{status_code_filter: {{comparison: {{value: {{default_value: {status}, runtime_key: antiphon.{status}}}}}}}}}"
