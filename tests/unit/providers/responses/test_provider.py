"""The Responses API over a real socket."""

import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from pydantic import SecretStr

from antiphon.config import ProviderConfig, TimeoutsConfig
from antiphon.domain.content import Message, Origin, Role, State, Text, Thinking, ToolCall, ToolResult
from antiphon.domain.errors import (
    ProviderCredentials,
    ProviderError,
    ProviderProtocolError,
    ProviderRateLimited,
    ProviderRejected,
    ProviderUnavailable,
)
from antiphon.domain.events import Batch, Finished, FinishReason, TextDelta
from antiphon.domain.reply import Reply
from antiphon.domain.request import ChatRequest, Tool
from antiphon.net.http import Transport
from antiphon.providers.responses.provider import ResponsesProvider
from tests.odd_upstream import CUT, HANG, LAST, OddUpstream, Step, answer, chunk, head, sse
from tests.unit.providers.responses.test_response import HELLO, added, done, end, event, summary

TURNS = 20


@pytest.fixture
async def upstream() -> AsyncIterator[OddUpstream]:
    async with OddUpstream() as server:
        yield server


def make(upstream: OddUpstream, name: str = "acme") -> ResponsesProvider:
    config = ProviderConfig(base_url=f"{upstream.base_url}?a={{model}}", timeouts=TimeoutsConfig(stall=5))
    return ResponsesProvider(name, config, SecretStr("sesame"), Transport(name, config))


@pytest.fixture
async def provider(upstream: OddUpstream) -> AsyncIterator[ResponsesProvider]:
    made = make(upstream)
    yield made
    await made.close()


async def ask(provider: ResponsesProvider, upstream: OddUpstream, *steps: Step, stream: bool = True) -> list[Batch]:
    upstream.script("m", steps)
    return [batch async for batch in provider.stream(ChatRequest("m", (Message(Role.USER, (Text("hello"),)),), stream=stream))]


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("last", [LAST, HANG, CUT], ids=["end", "held", "cut after the end"])
async def test_stream(upstream: OddUpstream, provider: ResponsesProvider, stream: bool, last: Step) -> None:
    """The last event is the end of the call, whatever the host does then."""
    batches = await ask(provider, upstream, head(), chunk(sse(*HELLO)), last, stream=stream)
    events = [event for batch in batches for event in batch]
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == "Hello"
    assert isinstance(events[-1], Finished)
    (sent,) = upstream.requests
    assert (sent.path, sent.headers["authorization"]) == ("/v1/responses?a=m", "Bearer sesame")
    assert sent.json == {
        "model": "m",
        "input": [{"role": "user", "content": "hello"}],
        "store": False,
        "include": ["reasoning.encrypted_content"],
        **({"stream": True} if stream else {}),
    }


def refusal(**fields: str | None) -> dict[str, Any]:
    return {"error": {"message": "no", "type": "invalid_request_error", "param": None, "code": None, **fields}}


@pytest.mark.parametrize(
    ("steps", "error", "wait"),
    [
        ([answer(refusal(code="invalid_api_key"), "401 Unauthorized")], ProviderCredentials, None),
        ([answer(refusal(code="model_not_found"), "404 Not Found")], ProviderCredentials, None),
        ([answer(refusal(param="input[0].id"), "400 Bad Request")], ProviderRejected, None),
        ([answer(refusal(), "429 Too Many Requests", "application/json", "retry-after: 3")], ProviderRateLimited, 3),
        ([answer(refusal(), "429 Too Many Requests", "application/json", "retry-after-ms: 1500")], ProviderRateLimited, 1.5),
        ([answer(refusal(type="server_error"), "500 Internal Server Error")], ProviderUnavailable, None),
        ([answer(refusal(), "503 Service Unavailable", "application/json", "retry-after: 2")], ProviderUnavailable, 2),
        ([head(), chunk(sse(*HELLO[:-1])), LAST], ProviderProtocolError, None),
        ([head(), chunk(sse(*HELLO[:-1])), CUT], ProviderError, None),
    ],
)
async def test_failures(
    upstream: OddUpstream, provider: ResponsesProvider, steps: list[Step], error: type[ProviderError], wait: float | None
) -> None:
    """Statuses mean what they mean elsewhere, and a reply without its end is a failure."""
    with pytest.raises(error) as caught:
        await ask(provider, upstream, *steps)
    assert caught.value.retry_after == wait
    if isinstance(caught.value, ProviderRejected):
        assert (caught.value.explanation, caught.value.param) == ("no", "input[0].id")


class ForgetfulUpstream(OddUpstream):
    """Refuses encrypted content, as an organisation does that did not make it."""

    def __init__(self, code: str) -> None:
        super().__init__()
        self.code = code

    def steps(self, body: bytes) -> Sequence[Step]:
        if b"encrypted_content" in json.dumps(json.loads(body)["input"]).encode():
            return [answer(refusal(code=self.code), "400 Bad Request")]
        return [head(), chunk(sse(*HELLO)), LAST]


async def test_encrypted_content_that_cannot_be_read() -> None:
    """The request is sent once more without it, and without the ids that need it. Any other refusal is a failure."""
    thought = Thinking("Hm.", state=State("gAAA", {"item": {"id": "rs_1", "type": "reasoning"}}, 0))
    call = ToolCall("c", "f", "{}", state=State(None, {"item": {"id": "fc_1", "type": "function_call"}}, 1))
    reply = Message(Role.ASSISTANT, (thought, call), origin=Origin("responses", "acme"))
    messages = (Message(Role.USER, (Text("go"),)), reply, Message(Role.TOOL, (ToolResult("c", (Text("42"),)),)))
    request = ChatRequest("m", messages, stream=True, tools=(Tool("f"),))
    async with ForgetfulUpstream("invalid_encrypted_content") as upstream:
        provider = make(upstream)
        batches = [batch async for batch in provider.stream(request)]
        assert isinstance(batches[-1][-1], Finished)
        first, second = upstream.requests
        assert [item.get("type") for item in first.json["input"]] == [None, "reasoning", "function_call", "function_call_output"]
        assert second.json["input"][1:] == [
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c", "output": "42"},
        ]
        await provider.close()
    async with ForgetfulUpstream("invalid_value") as upstream:
        provider = make(upstream)
        with pytest.raises(ProviderRejected):
            [batch async for batch in provider.stream(request)]
        assert len(upstream.requests) == 1
        await provider.close()


async def test_probe(upstream: OddUpstream, provider: ResponsesProvider) -> None:
    """The list of models is beside the responses."""
    upstream.default = [answer({"data": []})]
    assert await provider.probe() == 200
    assert upstream.requests[0].path == "/v1/models?a=model"


class StrictUpstream(OddUpstream):
    """Answers each turn with reasoning and two calls, and refuses a history that is not exactly what it sent itself."""

    def __init__(self) -> None:
        super().__init__()
        self.history: list[dict[str, Any]] = [{"role": "user", "content": "go"}]
        self.problems: list[str] = []

    def steps(self, body: bytes) -> Sequence[Step]:
        sent = json.loads(body)["input"]
        if sent != self.history:
            self.problems.append(f"{sent} is not {self.history}")
            return [answer(refusal(), "400 Bad Request")]
        turn = len(self.history)
        thought = {
            "id": f"rs_{turn}",
            "type": "reasoning",
            "summary": [{"type": "summary_text", "text": f"thought {turn}"}] if turn % 3 else [],
            "encrypted_content": f"gAAA{turn}+/=\u00e9",
        }
        note = {
            "id": f"msg_{turn}",
            "type": "message",
            "status": "completed",
            "role": "assistant",
            "phase": "commentary",
            "content": [{"type": "output_text", "text": f"note {turn}", "annotations": [], "logprobs": []}],
        }
        calls = [
            {
                "id": f"fc_{turn}{n}",
                "type": "function_call",
                "status": "completed",
                "call_id": f"call_{turn}{n}",
                "name": "f",
                "arguments": f'{{ "n":{n}}}',
            }
            for n in (1, 2)
        ]
        later = {**thought, "id": f"rs_{turn}b", "encrypted_content": f"gBBB{turn}"}
        items: list[dict[str, Any]] = [thought, note, later, *calls]
        outputs = [{"type": "function_call_output", "call_id": call["call_id"], "output": f"result {call['id']}"} for call in calls]
        self.history += [*items, *outputs]
        events: list[dict[str, Any]] = []
        for index, item in enumerate(items):
            first = {**item, "encrypted_content": "half"} if "encrypted_content" in item else {**item, "arguments": ""}
            events.append(added({**first, "summary": [], "content": []} if item["type"] != "function_call" else first, index))
            events += [summary("reasoning_summary_text.delta", index, delta=part["text"][:3]) for part in item.get("summary", ())]
            events += [event("function_call_arguments.delta", index, delta=item["arguments"][:4])] if "arguments" in item else []
        events += [done(item, index) for index, item in enumerate(items)]
        start = {"type": "response.created", "response": {"id": f"resp_{turn}"}}
        return [head(), chunk(sse(start, *events, {**end(), "response": {"usage": {"input_tokens": 1}}})), LAST]


async def test_turns_with_tools() -> None:
    """Over many turns the reasoning, the ids and the order come back byte for byte; another provider gets none of them."""
    messages: list[Message] = [Message(Role.USER, (Text("go"),))]
    async with StrictUpstream() as upstream:
        provider = make(upstream)
        for _ in range(TURNS):
            reply = Reply()
            async for batch in provider.stream(ChatRequest("m", tuple(messages), stream=True, tools=(Tool("f"),))):
                for one in batch:
                    reply.add(one)
            assert reply.choices[0].reason is FinishReason.TOOL_CALLS
            message = reply.message()
            calls = [block for block in message.blocks if isinstance(block, ToolCall)]
            assert len(calls) == 2
            results = tuple(ToolResult(call.id, (Text(f"result fc_{call.id.removeprefix('call_')}"),)) for call in calls)
            messages += [message, Message(Role.TOOL, results)]
        assert upstream.problems == []
        await provider.close()
    async with OddUpstream() as upstream:
        other = make(upstream, "other")
        upstream.script("m", [head(), chunk(sse(*HELLO)), LAST])
        assert [batch async for batch in other.stream(ChatRequest("m", tuple(messages), stream=True))]
        (sent,) = upstream.requests
        assert not any(private in sent.body for private in (b"gAAA", b"gBBB", b'"rs_', b'"fc_', b'"msg_', b"thought"))
        assert len(sent.json["input"]) == 1 + TURNS * 5
        await other.close()
