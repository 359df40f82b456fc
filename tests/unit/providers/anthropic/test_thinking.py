"""Tests of how much a Claude model is asked to think, where that is not simply an effort."""

import json
from typing import Any

import pytest

from antiphon.domain.content import Message, Role, Text
from antiphon.domain.request import ChatRequest, JsonSchemaFormat, Reasoning, Sampling, Tool, ToolChoice, ToolChoiceMode
from antiphon.domain.warnings import Treatment
from antiphon.providers.anthropic.request import encode
from antiphon.providers.parameters import Parameters

FORCED = {"tools": (Tool("f"),), "tool_choice": ToolChoice(ToolChoiceMode.REQUIRED)}


def sent(model: str, effort: str | None, policy: Any = "map", **fields: Any) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """Return the body, and the names of the parameters with what was done."""
    parameters = Parameters("acme", policy)
    request = ChatRequest(model, (Message(Role.USER, (Text("hi"),)),), True, reasoning=Reasoning(effort), **fields)
    body = json.loads(encode(request, "acme", parameters))
    return body, [(warning.path[-1], str(warning.treatment)) for warning in parameters.warnings]


@pytest.mark.parametrize(
    ("model", "effort", "fields", "reason"),
    [
        ("claude-3-5-haiku", "high", {}, "cannot think"),
        ("claude-sonnet-4-5", "extreme", {}, "does not know"),
        ("claude-sonnet-4-5", "high", FORCED, "must call a tool"),
        ("claude-sonnet-4-5", "high", {"sampling": Sampling(max_tokens=100)}, "no room"),
        ("claude-opus-4-8", "high", {"extra": {"thinking": {"type": "disabled"}}}, "own parameter"),
    ],
)
def test_an_effort_that_cannot_be_sent(model: str, effort: str, fields: dict[str, Any], reason: str) -> None:
    """The warning says why the model is not asked to think."""
    parameters = Parameters("acme")
    request = ChatRequest(model, (Message(Role.USER, (Text("hi"),)),), True, reasoning=Reasoning(effort), **fields)
    body = json.loads(encode(request, "acme", parameters))
    assert body.get("thinking") in (None, {"type": "disabled"})
    (warning,) = parameters.warnings
    assert (warning.path, warning.treatment) == (("reasoning", "effort"), Treatment.DROPPED)
    assert reason in warning.reason


def test_nearest_efforts() -> None:
    """A model gets the nearest effort that it has; under `drop`, none."""
    body, warnings = sent("claude-opus-4-6", "xhigh")
    assert (body["output_config"], warnings) == ({"effort": "high"}, [("effort", "mapped")])
    body, warnings = sent("claude-opus-4-6", "xhigh", "drop")
    assert "output_config" not in body
    assert "thinking" not in body
    assert warnings == [("effort", "dropped")]
    body, warnings = sent("claude-opus-5-5", "none")
    assert (body["output_config"], warnings) == ({"effort": "low"}, [("effort", "mapped")])


def test_sampling_while_it_thinks() -> None:
    """A model that thinks accepts no sampling, which it otherwise does."""
    body, warnings = sent("claude-sonnet-4-5", "low", sampling=Sampling(temperature=0.5, top_k=3))
    assert not body.keys() & {"temperature", "top_k"}
    assert warnings == [("effort", "mapped"), ("temperature", "dropped"), ("top_k", "dropped")]
    body, warnings = sent("claude-sonnet-4-5", None, sampling=Sampling(temperature=0.5, top_k=3))
    assert (body["temperature"], body["top_k"], warnings) == (0.5, 3, [])


def test_keywords_of_a_schema_that_are_not_enforced() -> None:
    """They are put into the description, and under `drop` left out."""
    form = JsonSchemaFormat("n", {"type": "object", "properties": {"age": {"type": "integer", "minimum": 3}}})
    body, warnings = sent("claude-opus-4-8", None, response_format=form)
    assert body["output_config"]["format"]["schema"]["properties"]["age"] == {"type": "integer", "description": "{minimum: 3}"}
    assert warnings == [("schema", "mapped")]
    body, warnings = sent("claude-opus-4-8", None, "drop", response_format=form)
    assert body["output_config"]["format"]["schema"]["properties"]["age"] == {"type": "integer"}
    assert warnings == [("schema", "dropped")]


def test_the_range_of_the_temperature() -> None:
    """A temperature above that of the API becomes its highest."""
    body, warnings = sent("claude-sonnet-4-5", None, sampling=Sampling(temperature=1.8))
    assert (body["temperature"], warnings) == (1, [("temperature", "mapped")])
    body, warnings = sent("claude-sonnet-4-5", None, "drop", sampling=Sampling(temperature=1.8))
    assert "temperature" not in body
