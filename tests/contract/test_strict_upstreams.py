"""The strict upstreams refuse what providers refuse: each change of a good request has one fault."""

import copy
import json
from typing import Any

import pytest

from tests.odd_upstream import Received
from tests.strict.upstream import StrictUpstream

SCHEMA = {"type": "object", "properties": {"q": {"type": "string"}}, "required": ["q"], "additionalProperties": False}
FUNCTION = {"name": "f", "parameters": SCHEMA}
PNG = {"type": "base64", "media_type": "image/jpeg", "data": "iVBORw0KGgo="}
TREE = {**SCHEMA, "properties": {"q": {"$ref": "#"}}}
SIGNATURE = "c2lnbmVkIGhlcmU="

GOOD: dict[str, tuple[str, dict[str, Any]]] = {
    "anthropic": (
        "/v1/messages",
        {
            "model": "claude-sonnet-4-5",
            "max_tokens": 3000,
            "thinking": {"type": "enabled", "budget_tokens": 1024},
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "a"}]},
                {
                    "role": "assistant",
                    "content": [
                        {"type": "thinking", "thinking": "", "signature": SIGNATURE},
                        {"type": "tool_use", "id": "1", "name": "f", "input": {}},
                    ],
                },
                {
                    "role": "user",
                    "content": [{"type": "tool_result", "tool_use_id": "1", "content": "x"}, {"type": "text", "text": "b"}],
                },
            ],
            "tools": [{"name": "f", "input_schema": SCHEMA, "strict": True}],
            "output_config": {"format": {"type": "json_schema", "schema": SCHEMA}},
        },
    ),
    "bedrock": (
        "/model/anthropic.claude-sonnet-4-5/converse",
        {
            "messages": [{"role": "user", "content": [{"text": "a"}]}],
            "toolConfig": {"tools": [{"toolSpec": {"name": "f", "inputSchema": {"json": SCHEMA}, "strict": True}}]},
        },
    ),
    "cohere": (
        "/v2/chat",
        {
            "model": "command-a-03-2025",
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "a"}]},
                {
                    "role": "assistant",
                    "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
                },
                {"role": "tool", "tool_call_id": "1", "content": "x"},
            ],
            "tools": [{"type": "function", "function": FUNCTION}],
            "strict_tools": True,
        },
    ),
    "gemini": (
        "/v1beta/models/gemini-3-pro:generateContent",
        {
            "contents": [
                {"role": "user", "parts": [{"text": "a"}]},
                {"role": "model", "parts": [{"functionCall": {"name": "f", "args": {}}, "thoughtSignature": SIGNATURE}]},
                {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {"output": "x"}}}]},
            ],
            "tools": [{"functionDeclarations": [{"name": "f", "parametersJsonSchema": SCHEMA}]}],
            "generationConfig": {"responseMimeType": "application/json", "responseJsonSchema": SCHEMA},
        },
    ),
    "openai-responses": (
        "/v1/responses",
        {
            "model": "gpt-5.2",
            "include": ["reasoning.encrypted_content"],
            "input": [
                {"role": "user", "content": [{"type": "input_text", "text": "a"}]},
                {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": SIGNATURE},
                {"type": "function_call", "id": "fc_1", "call_id": "1", "name": "f", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "1", "output": "x"},
            ],
            "tools": [{"type": "function", **FUNCTION, "strict": True}],
            "text": {"format": {"type": "json_schema", "name": "n", "schema": SCHEMA, "strict": True}},
        },
    ),
}
"""By protocol: a path, and a request."""

BLOCK, CALL, RESULTS = "messages.0.content.0", "messages.1.content.1", "messages.2.content"
TOOL, FORM = "tools.0.input_schema", "output_config.format.schema"
CONFIG, DECLARATION = "generationConfig", "tools.0.functionDeclarations.0"
FAULTS: dict[str, list[dict[str, Any]]] = {
    "anthropic": [
        {"temperature": 0.5},
        {"top_k": 1},
        {"thinking": {"type": "disabled"}, "temperature": 2},
        {"thinking": {"type": "disabled"}, "temperature": 1, "top_p": 1},
        {"max_tokens": 1024},
        {"max_tokens": -1, "thinking": {"type": "disabled"}},
        {"thinking.budget_tokens": 1023},
        {"speed": "fast"},
        {"zzz": 1},
        {"stop_sequences": [" "]},
        {"tool_choice": {"type": "any"}},
        {"tool_choice": {"type": "tool", "name": "g"}, "thinking": {"type": "disabled"}},
        {"tools": [], "tool_choice": {"type": "auto"}},
        {"tools.0.name": "f g"},
        {"tools.0.defer_loading": True},
        {"tools": [{"name": "f", "input_schema": SCHEMA}] * 2},
        {"tools": [{"name": f"f{at}", "input_schema": SCHEMA, "strict": True} for at in range(21)]},
        {f"{TOOL}.type": "string"},
        {TOOL: {"type": "object", "anyOf": [SCHEMA]}, "tools.0.strict": False},
        {TOOL: {"type": "object", "properties": {"a b": {}}}, "tools.0.strict": False},
        {f"{TOOL}.additionalProperties": True},
        {f"{FORM}.properties.q": {"type": "string", "pattern": "x"}},
        {f"{FORM}.properties.q": {"type": "array", "minItems": 2}},
        {f"{FORM}.properties.q": {"enum": [{}]}},
        {f"{FORM}.properties.q": {"$ref": "#/$defs/x"}},
        {f"{FORM}.properties.q": {"allOf": [{"$ref": "#/$defs/x"}]}, f"{FORM}.$defs": {"x": {"type": "string"}}},
        {f"{FORM}.properties.q": 5},
        {FORM: TREE},
        {FORM: {**SCHEMA, "properties": {"q": {"$ref": "#/$defs/x"}}, "$defs": {"x": {"anyOf": [{"$ref": "#/$defs/x"}]}}}},
        {"messages.0.role": "assistant"},
        {"messages.0.content": []},
        {f"{BLOCK}.text": " "},
        {
            f"{BLOCK}.cache_control": {"type": "ephemeral"},
            "tools": [],
            "system": [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}] * 4,
        },
        {BLOCK: {"type": "search_result", "source": "x", "title": "x", "content": [{"type": "text", "text": "x"}]}},
        {BLOCK: {"type": "image", "source": PNG}},
        {BLOCK: {"type": "image", "source": {"type": "url", "url": "http://x"}}},
        {"messages.1.content.0": {"type": "text", "text": "x"}},
        {"messages.1.content.0.signature": "YWJj"},
        {f"{CALL}.id": "a.b", f"{RESULTS}.0.tool_use_id": "a.b"},
        {f"{CALL}.input": []},
        {f"{CALL}.caller": {"type": "direct"}},
        {
            f"{CALL}": {"type": "image", "source": {"type": "url", "url": "https://x"}},
            f"{RESULTS}.0": {"type": "text", "text": "x"},
        },
        {
            "messages.1.content": [
                {"type": "thinking", "thinking": "", "signature": SIGNATURE},
                *[{"type": "tool_use", "id": "1", "name": "f", "input": {}}] * 2,
            ],
            RESULTS: [{"type": "tool_result", "tool_use_id": "1", "content": "x"}] * 2,
        },
        {f"{RESULTS}.0.tool_use_id": "2"},
        {f"{RESULTS}.0.is_error": True, f"{RESULTS}.0.content": ""},
        {f"{RESULTS}.0.content": [{"type": "text", "text": ""}]},
        {RESULTS: [{"type": "text", "text": "b"}, {"type": "tool_result", "tool_use_id": "1", "content": "x"}]},
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
        {
            "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
            "thinking": {"type": "disabled"},
            "model": "claude-opus-4-6",
        },
        {"messages": [{"role": "user", "content": "a"}, {"role": "system", "content": "b"}, {"role": "user", "content": "c"}]},
        {"messages": [{"role": "user", "content": "ap1.x"}]},
    ],
    "bedrock": [
        {"zzz": 1},
        {"messages.0.role": "assistant"},
        {"messages.0.content.0.text": " "},
        {"toolConfig.tools": [{"toolSpec": {"name": "f", "inputSchema": {"json": SCHEMA}}}] * 2},
        {
            "toolConfig.tools": [
                {"toolSpec": {"name": f"f{at}", "inputSchema": {"json": SCHEMA}, "strict": True}} for at in range(21)
            ]
        },
        {"toolConfig.tools.0.toolSpec": {"name": "f", "inputSchema": {"json": {"type": "string"}}}},
        {"toolConfig.tools.0.toolSpec": {"name": "f", "inputSchema": {"json": {"type": "object", "anyOf": [SCHEMA]}}}},
        {"toolConfig.tools.0.toolSpec.inputSchema.json.properties.q.pattern": "x"},
    ],
    "cohere": [
        {"p": 1},
        {"k": 501},
        {"temperature": -1},
        {"seed": -1},
        {"presence_penalty": 2},
        {"stop_sequences": ["a"] * 6},
        {"tool_choice": "AUTO"},
        {"tools": [], "tool_choice": "REQUIRED"},
        {"response_format": {"type": "json_object"}},
        {"response_format": {"type": "json_object", "json_schema": {"type": "object"}}, "tools": [], "strict_tools": False},
        {"response_format": {"type": "json_object", "json_schema": {**SCHEMA, "maxProperties": 1}}, "tools": []},
        {"zzz": 1},
        {"tools.0.function.name": "1f"},
        {"tools.0.function.parameters": {"type": "object"}},
        {"tools.0.function.parameters.properties.q": {"type": "string", "maxLength": 3}},
        {"tools.0.function.parameters.properties.q": {"type": "array", "minItems": 2}},
        {"messages.0.content": " "},
        {"messages.0.content.0.text": ""},
        {"messages.0.content.0": {"type": "document", "document": {"data": {}}}},
        {"messages.1.tool_calls": []},
        {"messages.1.tool_calls.0.function.arguments": "[]"},
        {"messages.1.tool_calls.0.function.arguments": "{"},
        {"messages.2.tool_call_id": "2"},
        {"messages.2": {"role": "user", "content": "x"}},
        {"messages": [{"role": "system", "content": "a"}]},
    ],
    "gemini": [
        {"zzz": 1},
        {"safetySettings": []},
        {"path": "/v1beta/models/gemini-2.5-pro:generateContent"},
        {f"{CONFIG}.routingConfig": {}},
        {f"{CONFIG}.stopSequences": ["a"] * 6},
        {f"{CONFIG}.stopSequences": []},
        {f"{CONFIG}.stopSequences": [""]},
        {f"{CONFIG}.presencePenalty": 2},
        {f"{CONFIG}.logprobs": 1},
        {f"{CONFIG}.maxOutputTokens": 0},
        {f"{CONFIG}.thinkingConfig": {"thinkingLevel": "MINIMAL"}},
        {f"{CONFIG}.responseJsonSchema.zzz": 1},
        {f"{CONFIG}.responseJsonSchema": TREE},
        {f"{CONFIG}.responseJsonSchema": {**SCHEMA, "properties": {"q": {"$ref": "#/$defs/x", "title": "x"}}, "$defs": {"x": {}}}},
        {f"{DECLARATION}.name": "1f"},
        {f"{DECLARATION}.parametersJsonSchema.zzz": 1},
        {"tools.0.functionDeclarations": [{"name": "f"}] * 2},
        {"tools": [], "toolConfig": {"functionCallingConfig": {"mode": "ANY"}}},
        {"toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["g"]}}},
        {"toolConfig": {"functionCallingConfig": {"mode": "AUTO", "allowedFunctionNames": ["f"]}}},
        {"contents": []},
        {"contents.0.role": "model"},
        {"contents.0.role": "tool"},
        {"contents.0.parts": []},
        {"contents.0.parts.0.text": ""},
        {"contents.0.parts.0": {"thought": True}},
        {"contents.0.parts.0": {"text": "a", "videoMetadata": {}}},
        {"contents.1.parts.0.thoughtSignature": "YWJj"},
        {"contents.1.parts.0": {"functionCall": {"name": "f", "args": {}}}},
        {"contents.2.parts.0.functionResponse.name": "g"},
        {"contents.2.parts.0.functionResponse.response": "x"},
        {"contents.2.parts.0.functionResponse.response": {"$ref": "x"}},
        {"contents.2.parts": [{"functionResponse": {"name": "f", "response": {}}}, {"text": "b"}]},
        {"contents.2.parts": [{"text": "b"}]},
        {
            "contents": [
                *[{"role": role, "parts": [{"text": "a"}]} for role in ("user", "model")],
                {"role": "model", "parts": [{"functionCall": {"name": "f", "args": {}}, "thoughtSignature": SIGNATURE}]},
                {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {}}}]},
            ]
        },
    ],
    "openai-responses": [
        {"zzz": 1},
        {"moderation": {}},
        {"max_output_tokens": 15},
        {"temperature": 1},
        {"model": "gpt-4.1"},
        {"top_logprobs": 1},
        {"tool_choice": {"type": "function", "name": "g"}},
        {"tools": [], "tool_choice": "required"},
        {"tools.0.name": "f.g"},
        {"tools.0.defer_loading": True},
        {"tools.0.parameters": {"type": "string"}},
        {"tools.0.parameters.required": []},
        {"tools.0.parameters.properties.q": {"type": "object", "properties": {}}},
        {"text.format.name": "a b"},
        {"text.format.schema.additionalProperties": True},
        {"text.format": {"type": "json_object"}},
        {"input": []},
        {"input.0.content": []},
        {"input.0.content.0.type": "output_text"},
        {"input.0.content.0.prompt_cache_breakpoint": {"type": "x"}},
        {"input.0.content.0": {"type": "input_file", "file_data": "x"}},
        {"input.0": {"type": "item_reference", "id": "x"}},
        {"input.1.id": "x"},
        {"input.1.id": "rs_2", "input.2.id": "rs_2"},
        {"input.1.encrypted_content": "YWJj"},
        {"input.1": {"type": "reasoning", "summary": [], "encrypted_content": SIGNATURE}},
        {"input.2.id": "x"},
        {"input.2.namespace": "x"},
        {"input.2.name": "f.g"},
        {"input.2.call_id": "x" * 65, "input.3.call_id": "x" * 65},
        {"input.3.call_id": "2"},
        {"input.3.output": [{"type": "output_text", "text": "x"}]},
        {"input": [{"role": "user", "content": "a"}, {"type": "reasoning", "summary": [], "encrypted_content": SIGNATURE}]},
        {"input": [{"role": "user", "content": "a"}, {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"}]},
    ],
}
"""By protocol: values by their places, or another path, each for one request."""


def changed(body: dict[str, Any], fault: dict[str, Any]) -> dict[str, Any]:
    """Return a request with other values at some places."""
    found = copy.deepcopy(body)
    for place, value in fault.items():
        if place == "path":
            continue
        *steps, last = [int(step) if step.isdigit() else step for step in place.split(".")]
        target: Any = found
        for step in steps:
            target = target[step]
        target[last] = copy.deepcopy(value)
    return found


def problems(protocol: str, body: dict[str, Any], path: str = "", **headers: str) -> list[str]:
    """Return what an upstream finds in a request."""
    api = StrictUpstream(in_loop=False).apis[protocol]
    api.issued.add(SIGNATURE)
    keys = {"authorization": "Bearer x", "x-api-key": "x", "x-goog-api-key": "x", "anthropic-version": "2023-06-01"}
    return api.problems(Received(f"/{protocol}{path or GOOD[protocol][0]}", keys | headers, json.dumps(body).encode(), 1))


@pytest.mark.parametrize(
    ("protocol", "fault"), [pytest.param(name, one, id=f"{name} {one}"[:80]) for name, some in FAULTS.items() for one in some]
)
def test_a_fault(protocol: str, fault: dict[str, Any]) -> None:
    """One fault is noticed, where the request without it is good."""
    assert problems(protocol, changed(GOOD[protocol][1], fault), fault.get("path", "")) != []


@pytest.mark.parametrize("protocol", GOOD)
def test_a_good_request(protocol: str) -> None:
    """It is accepted at its path, with its headers, and nowhere else."""
    body = GOOD[protocol][1]
    assert problems(protocol, body) == []
    assert problems(protocol, body, "/v1/models") != []
    assert problems(protocol, body, authorization="", **{"x-api-key": "", "x-goog-api-key": ""}) != []


def test_the_version() -> None:
    """Anthropic refuses a request without the version of its API."""
    assert problems("anthropic", GOOD["anthropic"][1], **{"anthropic-version": ""}) == ["anthropic-version"]
