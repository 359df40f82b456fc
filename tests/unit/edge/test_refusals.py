"""Tests that Envoy's own errors have the shape of the dialect, for every path of the protos.

The tests evaluate `listeners.yaml` themselves; that Envoy does the same is tested in `tests/e2e`.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from antiphon.edge import refusals
from antiphon.edge.files import gateway_files
from antiphon.rest.registry import DIALECTS, Dialect
from antiphon.rest.shared.dialect import ErrorShape
from antiphon.rest.shared.paths import VARIABLE, bindings
from antiphon.rest.v1 import assistant_pb2, openai_pb2

(_LISTENER,) = yaml.safe_load((gateway_files() / "listeners.yaml").read_text(encoding="utf-8"))["resources"]
MAPPERS = _LISTENER["filter_chains"][0]["filters"][0]["typed_config"]["local_reply_config"]["mappers"]
_FORMATS = [mapper["body_format_override"] for mapper in MAPPERS]
WORDS = next(form["text_format_source"]["inline_string"] for form in _FORMATS if "text_format_source" in form)
"""The text for each status, which the tests replace by `*message`."""


def _called(template: str) -> str:
    return VARIABLE.sub(lambda found: "v1" if found[1] == "api_version" else "some", template)


PATHS = [
    (_called(path), dialect, dialect.errors_of(method.name))
    for dialect in DIALECTS
    for method in dialect.service.methods
    for _, path in bindings(method)
]
EVERY_PATH = pytest.mark.parametrize(("path", "dialect", "shape"), PATHS, ids=[path for path, _, _ in PATHS])


def _fits(condition: dict[str, Any], path: str, status: int) -> bool:
    """Return whether a filter of a mapper matches an error of a REST request."""
    ((kind, value),) = condition.items()
    match kind:
        case "and_filter":
            return all(_fits(each, path, status) for each in value["filters"])
        case "or_filter":
            return any(_fits(each, path, status) for each in value["filters"])
        case "status_code_filter":
            comparison = value["comparison"]
            wanted: int = comparison["value"]["default_value"]
            return status >= wanted if comparison.get("op") == "GE" else status == wanted
        case _:
            if value["header"]["name"] != ":path":
                return False  # for gRPC callers
            ((how, wanted),) = value["header"]["string_match"].items()
            if how == "safe_regex":
                return re.fullmatch(wanted["regex"], path) is not None
            return path == wanted if how == "exact" else path.startswith(wanted)


def _mapper(path: str, status: int) -> dict[str, Any]:
    found: dict[str, Any] = next(mapper for mapper in MAPPERS if _fits(mapper["filter"], path, status))
    return found


def _body(value: Any, status: int) -> Any:
    """Return what a `json_format` makes of a status, with `*message` in place of the text."""
    match value:
        case dict():
            return {name: _body(inner, status) for name, inner in value.items()}
        case "%RESPONSE_CODE%":
            return status
        case str() if value == WORDS:
            return refusals.MESSAGE
        case str() if value.startswith("%CEL("):
            *choices, otherwise = value.removeprefix("%CEL(").removesuffix(")%").split(" : ")
            for condition, result in (choice.split(" ? ") for choice in choices):
                compared = re.findall(r"(==|>=) (\d+)", condition)
                if any(status == int(code) if how == "==" else status >= int(code) for how, code in compared):
                    return result.strip("'")
            return otherwise.strip("'")
        case _:
            pass
    return value


@EVERY_PATH
def test_a_wrong_method_is_405(path: str, dialect: Dialect, shape: ErrorShape) -> None:
    """A wrong method gets a 405 with the allowed methods in the dialect's shape, though the transcoder answers 404."""
    verbs = {
        verb
        for each in DIALECTS
        for method in each.service.methods
        for verb, template in bindings(method)
        if _called(template) == path
    }
    for query in ("", "?a=b"):
        mapper = _mapper(path + query, 404)
        assert mapper["status_code"] == 405
        allow = next(each["header"]["value"] for each in mapper["headers_to_add"] if each["header"]["key"] == "allow")
        assert {verb.lower() for verb in allow.split(", ")} - {"head"} == verbs
        assert ("HEAD" in allow) == ("get" in verbs)
        assert _body(mapper["body_format_override"]["json_format"], 405) == shape.refusal(405, refusals.MESSAGE)


@EVERY_PATH
def test_a_path_is_among_those_of_its_shape(path: str, dialect: Dialect, shape: ErrorShape) -> None:
    """Each path matches the pattern of its error shape; otherwise Envoy's errors would have another dialect's shape."""
    assert re.fullmatch(shape.paths, path), f"let `paths` in rest/{dialect.name}/errors.py fit {path}"


@EVERY_PATH
@pytest.mark.parametrize("status", [status for status in refusals.STATUSES if status != 404])
def test_a_refusal_has_the_shape_of_the_dialect(path: str, dialect: Dialect, shape: ErrorShape, status: int) -> None:
    """Every status has the dialect's shape, on the REST path and on the gRPC path that a transcoded call has."""
    names = [method.name for method in dialect.service.methods if dialect.errors_of(method.name) == shape]
    for called in (path, *(f"/{dialect.service.full_name}/{name}" for name in names)):
        if (called.rpartition("/")[2], status) == ("ListChats", 400):
            continue  # its message names the field
        body = _mapper(called, status)["body_format_override"]["json_format"]
        assert _body(body, status) == shape.refusal(status, refusals.MESSAGE)


def test_a_query_that_cannot_be_read_names_the_field() -> None:
    """A query parameter that cannot be parsed is reported by name, in either spelling.

    A method with text parameters alone needs no message.
    """
    methods = assistant_pb2.DESCRIPTOR.services_by_name["AssistantService"].methods_by_name
    words = refusals.query_message(methods["ListChats"])
    assert words is not None
    assert "(page_size|pageSize)=" in words
    assert "'page_size: must be a whole number'" in words
    assert "'pinned: must be true or false'" in words
    assert refusals.query_message(methods["Generate"]) is None
    mapper = _mapper("/antiphon.rest.v1.AssistantService/ListChats", 400)
    assert "page_size: must be a whole number" in mapper["body_format_override"]["json_format"]["message"]


def test_methods_of_one_path_are_allowed_together() -> None:
    """All methods of a path are in `allow`, GET with HEAD. A fixed path comes before one with a variable at the same place."""
    methods = assistant_pb2.DESCRIPTOR.services_by_name["AssistantService"].methods
    allowed = list(refusals.allowed(methods))
    assert [allow for allow, _ in allowed] == ["GET, HEAD", "POST", "GET, HEAD", "PATCH, DELETE", "PUT"]
    assert next(allow for allow, pattern in allowed if re.fullmatch(pattern, "/api/v1/chat/history?page_size=1")) == "GET, HEAD"
    models = list(refusals.allowed(openai_pb2.DESCRIPTOR.services_by_name["OpenAIService"].methods))
    assert next(allow for allow, pattern in models if re.fullmatch(pattern, "/v1/models/a/b")) == "GET, HEAD"


def test_a_shape_of_some_methods_comes_before_that_of_the_service() -> None:
    """The error shape of some methods comes before that of the service, whose pattern of paths is wider."""
    (proxy,) = (dialect for dialect in DIALECTS if dialect.name == "proxy")
    assert [shape.name for shape, _ in refusals.by_shape(proxy)] == ["gemini_proxy", "openai_proxy"]


def test_a_status_may_have_other_fields() -> None:
    """A status with extra fields is found, such as 400 with `details` in the analytics dialect."""
    (analytics,) = (dialect for dialect in DIALECTS if dialect.name == "analytics")
    assert refusals.special_statuses(analytics.errors) == [400]


@pytest.mark.parametrize(("version", "name"), [("v1beta", "gemini_proxy"), ("sk-x", "openai_proxy")])
def test_a_key_in_a_path_is_no_version_of_gemini(version: str, name: str) -> None:
    """A proxied path with another API version than Gemini's gets the error shape of the OpenAI proxy."""
    (shape,) = (shape for dialect in DIALECTS for shape, _ in refusals.by_shape(dialect) if shape.name == name)
    mapper = _mapper(f"/api/v1/proxy/host/{version}/models/m", 404)
    status = mapper.get("status_code", 404)
    assert status == (405 if version == "v1beta" else 404)
    assert _body(mapper["body_format_override"]["json_format"], status) == shape.refusal(status, refusals.MESSAGE)
