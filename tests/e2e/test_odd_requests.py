"""Requests that are legal and rare, of a client that knows chat completions alone, to providers of other protocols."""

import asyncio
import base64
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from tests.e2e.conftest import READY, Gateway
from tests.strict.upstream import ANSWER, StrictUpstream

MODELS = (
    "anthropic/claude-sonnet-4-5",
    "anthropic/claude-opus-4-6",
    "anthropic/claude-opus-5",
    "bedrock/us.anthropic.claude-sonnet-4-5-20250929-v1:0",
    "bedrock/us.amazon.nova-lite-v1:0",
    "gemini/gemini-3-flash",
    "gemini/gemini-3.8-flash",
)
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(8)).decode()
USER = {"role": "user", "content": "hi"}
POINT = {"$defs": {"P": {"type": "object", "properties": {"x": {"type": "number", "minimum": 0}}}}}
NODE = {"type": "object", "properties": {"next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}}, "required": ["next"]}


def user(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"role": "user", "content": [*parts]}


def said(text: str | None, role: str = "assistant", **fields: Any) -> dict[str, Any]:
    return {"role": role, "content": text, **fields}


def tool(name: str, parameters: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": parameters, **fields}}


def call(*ids: str, arguments: str = "{}") -> dict[str, Any]:
    calls = [{"id": one, "type": "function", "function": {"name": "f", "arguments": arguments}} for one in ids]
    return {"role": "assistant", "content": None, "tool_calls": calls}


def result(call_id: str, content: Any = "ok") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": content}


def referring() -> dict[str, Any]:
    """Return a schema as pydantic makes it: with something beside a reference."""
    properties = {"p": {"$ref": "#/$defs/P", "description": "a point"}, "n": {"type": ["string", "null"]}, "k": {"const": 5}}
    return {"type": "object", "properties": properties, "required": ["p", "n", "k"], **POINT}


PARAMETERS = {"type": "object", "properties": {"q": {"type": "string"}}, "required": ["q"], "additionalProperties": False}
MARK = {"cache_control": {"type": "ephemeral"}}
TOOLS = [tool("f", PARAMETERS)]
CASES: dict[str, dict[str, Any]] = {
    "50 strict tools": {"tools": [tool(f"t{number}", PARAMETERS, strict=True) for number in range(50)]},
    "references": {"tools": [tool("f", referring())]},
    "a format with references": {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": referring()}}},
    "recursion": {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": NODE, "strict": True}}},
    "a format without a name": {"response_format": {"type": "json_schema", "json_schema": {"schema": PARAMETERS}}},
    "a custom tool": {"tools": [*TOOLS, {"type": "custom", "custom": {"name": "c"}}]},
    "allowed tools": {
        "tools": [*TOOLS, tool("g")],
        "tool_choice": {
            "type": "allowed_tools",
            "allowed_tools": {"mode": "required", "tools": [{"type": "function", "function": {"name": "g"}}]},
        },
    },
    "a tool in cyrillic": {
        "tools": [tool("поиск 🌦")],
        "tool_choice": {"type": "function", "function": {"name": "поиск 🌦"}},
    },
    "no parallel calls": {"tools": TOOLS, "parallel_tool_calls": False},
    "stops": {"stop": ["", "a", "b", "c", "d", "e", "f"]},
    "no output": {"max_tokens": 0},
    "what others have": {
        "n": 2,
        "seed": 1,
        "temperature": 2,
        "top_p": 0.5,
        "logit_bias": {"1": 2},
        "prediction": {"type": "content", "content": "x"},
        "modalities": ["text"],
        "user": "u",
    },
    "a call without a result": {"messages": [USER, call("1", "2"), result("2"), USER], "tools": TOOLS},
    "a late result": {
        "messages": [USER, call("1"), USER, {"role": "assistant", "content": "x"}, result("1"), USER],
        "tools": TOOLS,
    },
    "a result without a call": {"messages": [USER, result("9"), USER], "tools": TOOLS},
    "results in another order": {"messages": [USER, call("1", "2"), result("2"), result("1")], "tools": TOOLS},
    "arguments that are a list": {"messages": [USER, call("1", arguments="[1]"), result("1", "")], "tools": TOOLS},
    "a result that is a schema": {"messages": [USER, call("1"), result("1", '{"$ref": "#/x"}')], "tools": TOOLS},
    "a custom call": {
        "messages": [
            USER,
            {"role": "assistant", "tool_calls": [{"id": "1", "type": "custom", "custom": {"name": "c", "input": "x"}}]},
            result("1"),
        ],
        "tools": TOOLS,
    },
    "a picture with another type": {
        "messages": [user({"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{PNG}", "detail": "low"}})]
    },
    "many marks": {"messages": [user(*({"type": "text", "text": f"{at}", **MARK} for at in range(6)))]},
    "instructions in the middle": {"messages": [USER, said("s", "system"), said(None), said("d", "developer"), USER]},
    "the assistant first": {"messages": [said("x"), said("", "user", name="bob"), USER]},
    "a reply to be continued": {"messages": [USER, said("1, 2,")], "reasoning_effort": "high"},
    "little thinking": {"reasoning_effort": "minimal"},
    "no thinking": {"reasoning_effort": "none"},
    "fields of one provider": {"cache_control": {"type": "ephemeral"}, "thinking": {"type": "disabled"}},
}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def upstream() -> AsyncIterator[StrictUpstream]:
    async with StrictUpstream(in_loop=False) as started:
        yield started


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def http(upstream: StrictUpstream, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[httpx2.AsyncClient]:
    config = {
        "auth": {"keys": [{"name": "test", "key_env": "TEST_KEY"}]},
        "models": {"default": "anthropic/claude-sonnet-4-5"},
        "providers": upstream.providers(),
    }
    gateway = Gateway(tmp_path_factory.mktemp("odd"), config)
    await asyncio.to_thread(gateway.wait_for, READY)
    async with gateway.client() as client:
        yield client
    assert await asyncio.to_thread(gateway.stop) == 0
    assert "call_failed" not in gateway.output_text, "the server had an unexpected exception"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("case", list(CASES))
@pytest.mark.parametrize("model", MODELS)
async def test_a_rare_request(http: httpx2.AsyncClient, upstream: StrictUpstream, model: str, case: str, stream: bool) -> None:
    """The provider accepts what it gets, and its answer arrives."""
    answer = await http.post("/chat/completions", json={"messages": [USER], **CASES[case], "model": model, "stream": stream})
    assert answer.status_code == 200, answer.text
    if stream:
        assert answer.text.endswith("data: [DONE]\n\n")
    else:
        said = upstream.apis[model.partition("/")[0]].turn(ANSWER).text
        assert answer.json()["choices"][0]["message"]["content"] == said


@pytest.mark.parametrize(
    ("model", "status"),
    [
        ("gemini/gemini-3.8-flash", 200),
        ("bedrock/us.amazon.nova-lite-v1:0", 200),
        ("anthropic/claude-opus-5", 400),
    ],
)
async def test_a_video(http: httpx2.AsyncClient, model: str, status: int) -> None:
    """Those that take videos get it; the others refuse the request, as without it, it would be another one."""
    video = {"type": "video_url", "video_url": {"url": "data:video/mp4;base64,AAAA"}}
    asked = {"model": model, "messages": [user({"type": "text", "text": "What is it?"}, video)]}
    answer = await http.post("/chat/completions", json=asked)
    assert answer.status_code == status, answer.text


async def test_a_reply_that_was_continued_has_a_warning(http: httpx2.AsyncClient) -> None:
    """Claude from 4.6 on is asked to continue, and the caller reads of it in a header."""
    for model, expected in (("claude-sonnet-4-5", False), ("claude-opus-5", True)):
        asked = {"model": f"anthropic/{model}", "messages": [USER, said("1, 2,")]}
        answer = await http.post("/chat/completions", json=asked)
        assert ("messages" in answer.headers.get("x-antiphon-warnings", "")) is expected
