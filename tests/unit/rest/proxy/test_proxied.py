"""Tests of the checks of bodies on the two proxy paths."""

import json
from typing import Any

import pytest

from antiphon.domain.errors import InvalidRequest
from antiphon.domain.request import MAX_ENTRIES
from antiphon.net.json_bounds import MAX_VALUES
from antiphon.rest.proxy import proxied


def refused(check: Any, data: bytes, **options: Any) -> tuple[str, str]:
    """Return the wrong field and the kind of the first violation."""
    with pytest.raises(InvalidRequest) as caught:
        check(data, **options)
    violation = caught.value.violations[0]
    return proxied.field_of(violation), violation.kind


@pytest.mark.parametrize(
    "data",
    [
        b'{"model":"m","messages":[]}',
        b' \r\n\t{ "messages" : [ null , 1e999 ] , "model" : "" }\n',
        rb'{"model":"\ud83c","messages":["\udfbc\ud83c", "\\ud83c"],"x":"\uD83C"}',
        b'{"model":1,"messages":{},"model":"m","messages":[]}',  # the last one counts, as in nearly every parser
        b'{"model":"m","messages":["\xff"]}',  # the provider's matter
        b'{"model":"m","messages":' + b"[" * 50 + b"]" * 50 + b"}",
    ],
)
def test_a_body_with_the_required_fields_passes(data: bytes) -> None:
    """The checks require what the API documents, and no more."""
    proxied.check_openai(data)
    proxied.check_gemini(data.replace(b"{", b'{"contents":[{"parts":[]}],', 1), count=False)


@pytest.mark.parametrize(
    "data",
    [b"", b" ", b"{", b"}", b'{"model":"m","messages":[]', b'{"model":"m","messages":[]}x', b'{"model":"m","messages":[01]}',
     b'{"model":"m","messages":[NaN]}', b"\xef\xbb\xbf{}", b'{"\xff":1}', b"{'model':'m'}", '{"model":"m"}'.encode("utf-16"),
     rb'{"model":"\ud8","messages":[]}', b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"],
)  # fmt: skip
def test_what_is_not_json_is_refused(data: bytes) -> None:
    """A body that is not JSON, or is nested too deep, is refused."""
    assert refused(proxied.check_openai, data) == ("body", "invalid_json")
    assert refused(proxied.check_gemini, data, count=False) == ("body", "invalid_json")


@pytest.mark.parametrize("data", [b"[]", b"null", b'"x"', b"1", b"true"])
def test_what_is_not_an_object_is_refused(data: bytes) -> None:
    """JSON that is not an object is refused."""
    assert refused(proxied.check_openai, data) == ("body", "invalid_type")


def test_counting_tokens_may_have_a_whole_request() -> None:
    """Counting tokens accepts a whole request in place of `contents`, which is checked in the same way."""
    whole = {"model": "models/m", "contents": [{"parts": []}]}
    for name in ("generateContentRequest", "generate_content_request"):
        proxied.check_gemini(json.dumps({name: whole}).encode(), count=True)
        assert refused(proxied.check_gemini, json.dumps({name: whole}).encode(), count=False)[0] == "contents"
        assert refused(proxied.check_gemini, json.dumps({name: {}}).encode(), count=True)[0] == f"{name}.contents"
        assert refused(proxied.check_gemini, json.dumps({name: []}).encode(), count=True)[0] == name
    proxied.check_gemini(b'{"contents":[{"parts":[]}]}', count=True)


@pytest.mark.parametrize("name", ["generationConfig", "generation_config", "safetySettings", "safety_settings"])
def test_options_have_their_types_in_either_spelling(name: str) -> None:
    """Options have strict types in both spellings; null is the same as unset."""
    good: Any = {} if name.startswith("g") else [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}]
    bad: Any = [] if name.startswith("g") else {}
    for value in (good, None):
        proxied.check_gemini(json.dumps({"contents": [{"parts": []}], name: value}).encode(), count=False)
    for value in (bad, "x", 1, True):
        body = json.dumps({"contents": [{"parts": []}], name: value}).encode()
        assert refused(proxied.check_gemini, body, count=False) == (name, "invalid_type")


GOOD_CONFIG = {
    "temperature": 0.5,
    "topP": 1,
    "top_k": 4e1,
    "candidateCount": 1.0,
    "max_output_tokens": 8e0,
    "seed": -7,
    "logprobs": None,
    "responseLogprobs": True,
    "response_mime_type": "application/json",
    "stopSequences": ["a", ""],
    "response_schema": {"type": 5},
    "responseJsonSchema": True,
    "thinkingConfig": {"thinkingBudget": -1, "include_thoughts": False, "unknown": {}},
    "temperatures": "unknown",
    "speechConfig": {"voiceConfig": 7},
}


def gemini(**fields: Any) -> bytes:
    return json.dumps({"contents": [{"parts": [{"text": "Hi"}]}]} | fields).encode()


def test_a_full_body_passes() -> None:
    """A full body passes, with any form of numbers, both spellings and unknown fields."""
    parts = [{"text": "Hi"}, {"text": None, "inlineData": 5}, {}, {"functionCall": {"name": "f"}}]
    settings = [{"category": "X", "threshold": "Y", "method": 5}]
    body = {"contents": [{"parts": parts, "role": "user", "more": 1}], "safetySettings": settings, "generationConfig": GOOD_CONFIG}
    proxied.check_gemini(json.dumps(body).encode(), count=False)
    proxied.check_gemini(json.dumps({"generate_content_request": body}).encode(), count=True)
    proxied.check_gemini(gemini(generation_config=GOOD_CONFIG, safety_settings=settings, contents=body["contents"]), count=False)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"contents": [5]}, "contents[0]"),
        ({"contents": [{"parts": []}, {"parts": {}}]}, "contents[1].parts"),
        ({"contents": [{"parts": ["Hi"]}]}, "contents[0].parts[0]"),
        ({"contents": [{"parts": [{}, {"text": 5}]}]}, "contents[0].parts[1].text"),
        ({"contents": [{"parts": [{"text": ["Hi"]}]}]}, "contents[0].parts[0].text"),
        ({"contents": [{"parts": [], "role": 1}]}, "contents[0].role"),
        ({"safetySettings": [None]}, "safetySettings[0]"),
        (
            {"safetySettings": [{"category": "X", "threshold": "Y"}, {"category": 5, "threshold": "Y"}]},
            "safetySettings[1].category",
        ),
        ({"safety_settings": [{"category": "X", "threshold": {}}]}, "safety_settings[0].threshold"),
        ({"generationConfig": {"temperature": "hot"}}, "generationConfig.temperature"),
        ({"generationConfig": {"temperature": "0.5"}}, "generationConfig.temperature"),
        ({"generationConfig": {"topK": True}}, "generationConfig.topK"),
        ({"generation_config": {"top_p": []}}, "generation_config.top_p"),
        ({"generationConfig": {"maxOutputTokens": 1.5}}, "generationConfig.maxOutputTokens"),
        ({"generationConfig": {"max_output_tokens": "9"}}, "generationConfig.max_output_tokens"),
        ({"generationConfig": {"candidateCount": {}}}, "generationConfig.candidateCount"),
        ({"generationConfig": {"responseLogprobs": 1}}, "generationConfig.responseLogprobs"),
        ({"generationConfig": {"stopSequences": "END"}}, "generationConfig.stopSequences"),
        ({"generationConfig": {"stopSequences": ["END", 5]}}, "generationConfig.stopSequences[1]"),
        ({"generationConfig": {"responseMimeType": 5}}, "generationConfig.responseMimeType"),
        ({"generationConfig": {"responseSchema": "x"}}, "generationConfig.responseSchema"),
        ({"generationConfig": {"thinkingConfig": {"thinking_budget": "many"}}}, "generationConfig.thinkingConfig.thinking_budget"),
    ],
)
def test_a_field_of_a_wrong_type_is_reported(fields: dict[str, Any], field: str) -> None:
    """A field of a wrong type is reported by its path in the caller's spelling, also within a request to count."""
    assert refused(proxied.check_gemini, gemini(**fields), count=False) == (field, "invalid_type")
    whole = json.loads(gemini(**fields))
    counted = json.dumps({"generateContentRequest": whole}).encode()
    assert refused(proxied.check_gemini, counted, count=True) == (f"generateContentRequest.{field}", "invalid_type")


@pytest.mark.parametrize("missing", ["category", "threshold"])
def test_a_safety_setting_has_both_its_fields(missing: str) -> None:
    """A safety setting needs both `category` and `threshold`, and neither may be null."""
    setting = {"category": "X", "threshold": "Y"}
    del setting[missing]
    body = gemini(safetySettings=[setting])
    assert refused(proxied.check_gemini, body, count=False) == (f"safetySettings[0].{missing}", "missing_required_parameter")
    setting[missing] = None  # type: ignore[assignment]
    body = gemini(safetySettings=[setting])
    assert refused(proxied.check_gemini, body, count=False) == (f"safetySettings[0].{missing}", "invalid_type")


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"contents": [{"parts": []}] * (MAX_ENTRIES + 1)}, "contents"),
        ({"contents": [{"parts": [{}] * MAX_ENTRIES}]}, "contents"),
        ({"contents": [{"parts": [{}] * (MAX_ENTRIES // 2)}] * 2}, "contents"),
        ({"safetySettings": [{}] * (MAX_ENTRIES + 1)}, "safetySettings"),
        ({"generationConfig": {"stopSequences": [""] * (MAX_ENTRIES + 1)}}, "generationConfig.stopSequences"),
    ],
)
def test_too_many_entries_are_refused(fields: dict[str, Any], field: str) -> None:
    """More than MAX_ENTRIES entries are refused, because checking each takes time from other calls."""
    assert refused(proxied.check_gemini, gemini(**fields), count=False) == (field, "too_long")


async def test_too_many_values_are_refused_before_parsing() -> None:
    """A body with more than MAX_VALUES values is refused before it is parsed."""
    data = b'{"model":"m","messages":[],"x":[' + b"[]," * MAX_VALUES + b"0]}"
    with pytest.raises(InvalidRequest) as caught:
        await proxied.check_size(data)
    assert [(proxied.field_of(found), found.kind) for found in caught.value.violations] == [("body", "too_large")]
    await proxied.check_size(b'{"model":"m","messages":["' + b"[]," * MAX_VALUES + b'"]}')
