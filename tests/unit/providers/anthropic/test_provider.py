"""Anthropic's Messages API over a real socket."""

import itertools
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic import SecretStr

from antiphon.config import ProviderConfig, TimeoutsConfig
from antiphon.domain.content import Message, Role, Text, Thinking, ToolCall, ToolResult
from antiphon.domain.errors import (
    ProviderCredentials,
    ProviderError,
    ProviderProtocolError,
    ProviderRateLimited,
    ProviderRejected,
    ProviderTimeout,
    ProviderUnavailable,
)
from antiphon.domain.events import Batch, Finished, FinishReason, TextDelta, Usage
from antiphon.domain.reply import Reply
from antiphon.domain.request import ChatRequest, Reasoning, Tool
from antiphon.net.http import Transport
from antiphon.providers.anthropic.provider import AnthropicProvider
from tests.odd_upstream import CUT, HANG, LAST, OddUpstream, Step, answer, chunk, head, sse
from tests.unit.framing import check
from tests.unit.providers.anthropic.test_response import HELLO, STOP, block, end, error, start

USER = Message(Role.USER, (Text("hello"),))


@pytest.fixture
async def upstream() -> AsyncIterator[OddUpstream]:
    async with OddUpstream() as server:
        yield server


def make(upstream: OddUpstream, query: str = "?a={model}", **fields: Any) -> AnthropicProvider:
    base = upstream.base_url.removesuffix("/v1")
    config = ProviderConfig(
        base_url=f"{base}{query}", timeouts=TimeoutsConfig(stall=5), headers={"Anthropic-Beta": "one"}, **fields
    )
    return AnthropicProvider("acme", config, SecretStr("sesame"), Transport("acme", config))


@pytest.fixture
async def provider(upstream: OddUpstream) -> AsyncIterator[AnthropicProvider]:
    made = make(upstream)
    yield made
    await made.close()


async def ask(provider: AnthropicProvider, upstream: OddUpstream, *steps: Step, stream: bool = True, **fields: Any) -> list[Batch]:
    upstream.script("m", steps)
    return [batch async for batch in provider.stream(ChatRequest("m", (USER,), stream=stream, **fields))]


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("last", [LAST, HANG, CUT], ids=["end", "held", "cut after the end"])
async def test_stream(upstream: OddUpstream, provider: AnthropicProvider, stream: bool, last: Step) -> None:
    """The end of the message is the end of the call, whatever the host does then; a whole reply is one batch of a stream."""
    batches = await ask(provider, upstream, head(), chunk(sse(*HELLO)), last, stream=stream)
    events = [event for batch in batches for event in batch]
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == "Hello"
    assert isinstance(events[-1], Finished)
    assert stream or len(batches) == 1
    (sent,) = upstream.requests
    headers = sent.headers
    assert (sent.path, headers["x-api-key"], "authorization" in headers) == ("/v1/messages?a=m", "sesame", False)
    assert (headers["anthropic-version"], headers["anthropic-beta"]) == ("2023-06-01", "one")
    assert sent.json == {"model": "m", "max_tokens": 8192, "stream": True, "messages": [{"role": "user", "content": "hello"}]}


async def test_headers(upstream: OddUpstream, provider: AnthropicProvider) -> None:
    """Betas of the caller come after those of the configuration, for this call alone; the caller's key is used."""
    steps = (head(), chunk(sse(*HELLO)), LAST)
    await ask(provider, upstream, *steps, extra={"betas": ["two", "three"]}, api_key=SecretStr("own"))
    await ask(provider, upstream, *steps)
    first, second = upstream.requests
    assert (first.headers["anthropic-beta"], first.headers["x-api-key"]) == ("one,two,three", "own")
    assert (second.headers["anthropic-beta"], second.headers["x-api-key"]) == ("one", "sesame")
    assert "betas" not in first.json


async def test_addresses(upstream: OddUpstream) -> None:
    """A base URL may end in the version, and the key may be a bearer token."""
    provider = make(upstream, "/v1/", auth_header="authorization")
    await ask(provider, upstream, head(), chunk(sse(*HELLO)), LAST)
    upstream.default = [answer({"data": []})]
    assert await provider.probe() == 200
    await provider.close()
    assert [sent.path for sent in upstream.requests] == ["/v1/messages", "/v1/models"]
    assert upstream.requests[0].headers["authorization"] == "Bearer sesame"


async def test_a_reply_in_one_object(upstream: OddUpstream, provider: AnthropicProvider) -> None:
    """A host that streams nothing is understood."""
    message = start(content=[{"type": "text", "text": "Hello"}], stop_reason="end_turn")["message"]
    ((*_, finished),) = await ask(provider, upstream, answer(message))
    assert isinstance(finished, Finished)


def refusal(status: str, kind: str, *headers: str) -> list[Step]:
    return [answer(error(kind), status, "application/json", *headers)]


FAILURES: list[tuple[list[Step], type[ProviderError], bool, float | None]] = [
    (refusal("400 Bad Request", "invalid_request_error"), ProviderRejected, False, None),
    (refusal("401 Unauthorized", "authentication_error"), ProviderCredentials, False, None),
    (refusal("402 Payment Required", "billing_error"), ProviderCredentials, False, None),
    (refusal("403 Forbidden", "permission_error"), ProviderCredentials, False, None),
    (refusal("404 Not Found", "not_found_error"), ProviderCredentials, False, None),
    (refusal("413 Content Too Large", "request_too_large"), ProviderRejected, False, None),
    (refusal("429 Too Many Requests", "rate_limit_error", "retry-after: 3"), ProviderRateLimited, True, 3),
    (refusal("429 Too Many Requests", "rate_limit_error", "retry-after-ms: 50"), ProviderRateLimited, True, 0.05),
    (refusal("429 Too Many Requests", "rate_limit_error", "x-should-retry: false"), ProviderRateLimited, False, 1),
    (refusal("500 Internal Server Error", "api_error"), ProviderUnavailable, True, None),
    (refusal("504 Gateway Timeout", "timeout_error"), ProviderTimeout, True, None),
    (refusal("529 Overloaded", "overloaded_error", "retry-after: 7"), ProviderUnavailable, True, 7),
    ([head(), chunk(sse(error("overloaded_error"))), LAST], ProviderUnavailable, True, None),
    ([head(), chunk(sse(*HELLO[:4], error("overloaded_error"))), LAST], ProviderUnavailable, True, None),
    ([head(), chunk(sse(*HELLO[:-1])), LAST], ProviderProtocolError, True, None),
    ([head(), chunk(sse(*HELLO[:4])), CUT], ProviderUnavailable, True, None),
]


@pytest.mark.parametrize(("steps", "kind", "retryable", "wait"), FAILURES)
async def test_failures(
    upstream: OddUpstream,
    provider: AnthropicProvider,
    steps: list[Step],
    kind: type[ProviderError],
    retryable: bool,
    wait: float | None,
) -> None:
    """Statuses mean what they mean elsewhere, and a reply without its end is a failure."""
    with pytest.raises(ProviderError) as caught:
        await ask(provider, upstream, *steps)
    assert isinstance(caught.value, kind | ProviderProtocolError if steps[-1] is CUT else kind)
    assert (caught.value.retryable, caught.value.retry_after) == (retryable, wait)
    if isinstance(caught.value, ProviderRejected):
        assert caught.value.explanation == "oops"


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
async def test_what_a_cut_reply_has_used(upstream: OddUpstream, provider: AnthropicProvider, stream: bool) -> None:
    """The prompt is counted at the start, so a reply that breaks off has a usage, whoever waits for how much of it."""
    upstream.script("m", [head(), chunk(sse(*HELLO[:4])), CUT])
    events = []
    with pytest.raises(ProviderError):
        async for batch in provider.stream(ChatRequest("m", (USER,), stream=stream)):
            events += batch
    assert Usage(30, 1, 31, estimated=True) in events
    assert any(isinstance(event, TextDelta) for event in events) is stream


def turn(number: int) -> list[dict[str, Any]]:
    """Return a reply that thinks, also between its two calls, and calls; the last one answers."""
    thought, hidden = (
        block(0, *signed(f"thought {number} ä", f"si{number}g/+=="), type="thinking", thinking=""),
        {"data": f"R{number}=="},
    )
    if number == 20:
        return [start(id=f"r{number}"), *thought, *block(1, ("text_delta", "done"), type="text", text=""), end(), STOP]
    first, second = (
        block(
            index,
            ("input_json_delta", json.dumps({"n": number})),
            type="tool_use",
            id=f"toolu_{number}{name}",
            name="f_g_d2bb54fa",
            input={},
        )
        for index, name in ((2, "a"), (4, "b"))
    )
    between = block(3, *signed("", f"empty{number}"), type="thinking", thinking="")
    return [
        start(id=f"r{number}"),
        *thought,
        *block(1, type="redacted_thinking", **hidden),
        *first,
        *between,
        *second,
        end("tool_use"),
        STOP,
    ]


def signed(text: str, signature: str) -> tuple[tuple[str, str], ...]:
    half = len(signature) // 2
    pieces = (("thinking_delta", text[:5]), ("thinking_delta", text[5:])) if text else ()
    return (*pieces, ("signature_delta", signature[:half]), ("signature_delta", signature[half:]))


def expected_turn(number: int) -> list[dict[str, Any]]:
    """Return the messages that the provider wants to see of such a turn."""
    call = {"type": "tool_use", "name": "f_g_d2bb54fa", "input": {"n": number}}
    return [
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": f"thought {number} ä", "signature": f"si{number}g/+=="},
                {"type": "redacted_thinking", "data": f"R{number}=="},
                {**call, "id": f"toolu_{number}a"},
                {"type": "thinking", "thinking": "", "signature": f"empty{number}"},
                {**call, "id": f"toolu_{number}b"},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": f"toolu_{number}{name}", "content": f"{number}{name}"} for name in "ab"
            ],
        },
    ]


async def test_twenty_turns_of_tools(upstream: OddUpstream, provider: AnthropicProvider) -> None:
    """Thought and signatures come back byte for byte, in order, to the provider that made them, and to no other."""
    model, tools = "claude-opus-5", (Tool("f.g", parameters={"type": "object"}),)
    messages = [USER]
    for number in itertools.count(1):
        upstream.script(model, [head(), chunk(sse(*turn(number))), LAST])
        request = ChatRequest(model, tuple(messages), stream=True, tools=tools, reasoning=Reasoning("high"))
        events = [event async for batch in provider.stream(request) for event in batch]
        check(events)
        reply = Reply()
        for event in events:
            reply.add(event)
        message = reply.message()
        messages.append(message)
        calls = [made for made in message.blocks if isinstance(made, ToolCall)]
        assert {call.name for call in calls} <= {"f.g"}
        if reply.choices[0].reason is not FinishReason.TOOL_CALLS:
            break
        messages += (Message(Role.TOOL, (ToolResult(call.id, (Text(call.id.removeprefix("toolu_")),)),)) for call in calls)
    assert len(upstream.requests) == 20
    for number, sent in enumerate(upstream.requests):
        expected = [one for earlier in range(1, number + 1) for one in expected_turn(earlier)]
        assert sent.json["messages"] == [{"role": "user", "content": "hello"}, *expected]
        assert sent.json["thinking"] == {"type": "adaptive", "display": "summarized"}
    config = ProviderConfig(base_url=upstream.base_url)
    other = AnthropicProvider("other", config, None, Transport("other", config))
    upstream.script(model, [head(), chunk(sse(*HELLO)), LAST])
    request = ChatRequest(model, (*messages, USER), stream=True, tools=tools)
    assert [batch async for batch in other.stream(request)]
    await other.close()
    told = upstream.requests[-1].body
    assert not any(word in told for word in (b"thinking", b"signature", b"g/+==", b"R1==", b"empty"))
    assert told.count(b'"tool_use"') == told.count(b'"tool_result"') == 38
    assert any(isinstance(made, Thinking) for message in messages for made in message.blocks)
