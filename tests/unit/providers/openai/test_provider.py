"""Tests of the OpenAI protocol over a real socket, against an upstream with all known oddities of hosts."""

import asyncio
import gzip
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import structlog
from pydantic import SecretStr

from antiphon.config import ProviderConfig, TimeoutsConfig
from antiphon.domain.content import Media, Message, Origin, Role, Text, ToolCall, Video
from antiphon.domain.errors import (
    ProviderCredentials,
    ProviderError,
    ProviderProtocolError,
    ProviderRateLimited,
    ProviderRejected,
    ProviderTimeout,
    ProviderUnavailable,
    Unsupported,
)
from antiphon.domain.events import Batch, BlockStarted, Event, Finished, FinishReason, InputDelta, Started, TextDelta, Usage
from antiphon.domain.request import ChatRequest
from antiphon.net.http import Transport
from antiphon.providers.openai.provider import OpenAIProvider
from tests.odd_upstream import CUT, HANG, LAST, RESET, OddUpstream, Pause, Step, answer, chunk, delta, head, sse
from tests.unit.framing import without_frames

KEY = "open-sesame"
STARTED = Started("chatcmpl-odd", "odd-model", Origin("openai-chat", "acme", "m", "acme"), 1_700_000_000)
STOP = Finished(0, FinishReason.STOP, "stop")
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
GOOD: list[Event] = [STARTED, TextDelta(0, "Hel"), TextDelta(0, "lo"), Usage(3, 2, 5), STOP]
EVENTS = (
    delta("", role="assistant"),
    delta("Hel"),
    delta("lo"),
    delta(finish="stop"),
    {**delta(), "choices": [], "usage": USAGE},
)
WHOLE = {
    "id": "chatcmpl-odd",
    "created": 1_700_000_000,
    "model": "odd-model",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}],
    "usage": USAGE,
}


def build(config: ProviderConfig, key: str | None = None) -> OpenAIProvider:
    return OpenAIProvider("acme", config, None if key is None else SecretStr(key), Transport("acme", config))


@pytest.fixture
async def upstream() -> AsyncIterator[OddUpstream]:
    async with OddUpstream() as server:
        yield server


@pytest.fixture
async def provider(upstream: OddUpstream) -> AsyncIterator[OpenAIProvider]:
    made = build(ProviderConfig(base_url=upstream.base_url, timeouts=TimeoutsConfig(stall=5)), KEY)
    yield made
    await made.close()


def request(*, stream: bool = True, model: str = "m") -> ChatRequest:
    return ChatRequest(model, (Message(Role.USER, (Text("hello"),)),), stream=stream)


async def ask(provider: OpenAIProvider, upstream: OddUpstream, *steps: Step, stream: bool = True) -> list[Batch]:
    upstream.script("m", steps)
    return [batch async for batch in provider.stream(request(stream=stream))]


def flat(batches: list[Batch]) -> list[Event]:
    """Return all events but those that only frame blocks."""
    return without_frames(event for batch in batches for event in batch)


async def test_stream(upstream: OddUpstream, provider: OpenAIProvider) -> None:
    """Each read of the body becomes one batch, as soon as it comes."""
    more = asyncio.Event()
    upstream.script("m", [head(), chunk(sse(*EVENTS[:2])), more, chunk(sse(*EVENTS[2:], "[DONE]")), LAST])
    stream = provider.stream(request())
    assert flat([await anext(stream)]) == GOOD[:2]
    more.set()
    assert [flat([batch]) async for batch in stream] == [GOOD[2:]]


async def test_request(upstream: OddUpstream) -> None:
    """A request goes to the documented path with the key, the configured headers and query, and nothing about the caller."""
    config = ProviderConfig(
        base_url=upstream.base_url + "/{model}/?a=b",
        query={"api-version": "2024-10 21"},
        headers={"X-Team": "blue", "User-Agent": "mine"},
        auth_header="api-key",
    )
    provider = build(config, KEY)
    upstream.default = [answer(WHOLE)]
    assert [batch async for batch in provider.stream(request(stream=False, model="my model/1"))]
    await provider.close()
    (sent,) = upstream.requests
    assert sent.path in (
        "/v1/my%20model%2F1/chat/completions?a=b&api-version=2024-10+21",
        "/v1/my%20model%2F1/chat/completions?a=b&api-version=2024-10%2021",
    )
    assert sent.json == {"model": "my model/1", "messages": [{"role": "user", "content": "hello"}]}
    names = ("api-key", "x-team", "user-agent", "content-type", "accept-encoding")
    assert [sent.headers.get(name) for name in names] == [KEY, "blue", "mine", "application/json", "identity"]
    assert "authorization" not in sent.headers


async def test_bearer_and_none(upstream: OddUpstream, provider: OpenAIProvider) -> None:
    """The key is sent as a bearer token by default; without a key there is no such header."""
    await ask(provider, upstream, answer(WHOLE), stream=False)
    keyless = build(ProviderConfig(base_url=upstream.base_url))
    await ask(keyless, upstream, answer(WHOLE), stream=False)
    await keyless.close()
    assert [sent.headers.get("authorization") for sent in upstream.requests] == [f"Bearer {KEY}", None]


async def test_unsupported_reaches_nobody(upstream: OddUpstream, provider: OpenAIProvider) -> None:
    """A block that the protocol has no form for raises `Unsupported` before the host is asked."""
    video = ChatRequest("m", (Message(Role.USER, (Video(Media(file_id="f")),)),), stream=True)
    with pytest.raises(Unsupported):
        await anext(provider.stream(video))
    assert upstream.connections == 0


PINGS: list[Step] = [Pause(0.1), chunk(b": ping\n\n")] * 100

ODD_BUT_GOOD: dict[str, list[Step]] = {
    "as documented": [head(), chunk(sse(*EVENTS, "[DONE]")), LAST],
    "no done": [head(), chunk(sse(*EVENTS)), LAST],
    "no done, no last blank line": [head(), chunk(sse(*EVENTS)[:-1]), LAST],
    "crlf": [head(), chunk(sse(*EVENTS, "[DONE]", end="\r\n\r\n")), LAST],
    "comments": [head(), chunk(b": ping\n\n"), chunk(sse(*EVENTS[:2]) + b": ping\n\n" + sse(*EVENTS[2:], "[DONE]")), LAST],
    "byte by byte": [head(), *(chunk(bytes([byte])) for byte in sse(*EVENTS, "[DONE]")), LAST],
    "byte order mark": [head(), chunk(b"\xef\xbb\xbf" + sse(*EVENTS, "[DONE]")), LAST],
    "wrong content type": [head(content_type="application/json"), chunk(sse(*EVENTS, "[DONE]")), LAST],
    "no content type": [b"HTTP/1.1 200 OK\r\n\r\n" + sse(*EVENTS, "[DONE]"), CUT],
    "no end of the body": [head(), chunk(sse(*EVENTS, "[DONE]")), HANG],
    "more after done": [head(), chunk(sse(*EVENTS, "[DONE]", delta("x"), "junk")), chunk(b"data: x"), LAST],
    "usage after done": [head(), chunk(sse(*EVENTS[:-1], "[DONE]", EVENTS[-1])), HANG],
    "usage after done, in a read of its own": [
        head(),
        chunk(sse(*EVENTS[:-1], "[DONE]")),
        Pause(0.05),
        chunk(sse(EVENTS[-1])),
        HANG,
    ],
    "usage at the end of the body": [head(), chunk(sse(*EVENTS[:-1], "[DONE]")), chunk(sse(EVENTS[-1])[:-2]), LAST],
    "keep-alives as data first": [head(), chunk(b"data: : alive\n\nevent: ping\ndata: 1\n\n"), chunk(sse(*EVENTS, "[DONE]")), LAST],
    "comments first, in a body of another type": [
        head(content_type="text/plain"),
        chunk(b": hi\n\n" + sse(*EVENTS, "[DONE]")),
        LAST,
    ],
    "no done, and the connection held": [head(), chunk(sse(*EVENTS)), HANG],
    "no done, and kept alive": [head(), chunk(sse(*EVENTS)), *PINGS],
    "encoded, no done": [answer(gzip.compress(sse(*EVENTS)), "200 OK", "text/event-stream", "content-encoding: gzip")],
    "late usage": [head(), chunk(sse(*EVENTS[:-1])), Pause(0.1), chunk(sse(EVENTS[-1])), HANG],
    "cut after done": [head(), chunk(sse(*EVENTS, "[DONE]")), CUT],
    "finish in the first chunk": [
        head(),
        chunk(sse(delta("", finish="stop"), delta("Hel"), delta("lo"), EVENTS[-1], "[DONE]")),
        LAST,
    ],
}


@pytest.fixture
def short_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the waits for more output short."""
    monkeypatch.setattr("antiphon.providers.openai.ending.WAIT", 0.5)
    monkeypatch.setattr("antiphon.providers.openai.ending.LONG_WAIT", 0.5)


@pytest.mark.usefixtures("short_wait")
@pytest.mark.parametrize("steps", ODD_BUT_GOOD.values(), ids=ODD_BUT_GOOD)
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
async def test_oddities_that_do_not_change_the_reply(
    upstream: OddUpstream, provider: OpenAIProvider, steps: list[Step], stream: bool
) -> None:
    """None of these oddities changes the reply. A request for a whole reply gets one batch, even if the host streams."""
    batches = await ask(provider, upstream, *steps, stream=stream)
    assert flat(batches) == GOOD
    assert stream or len(batches) == 1
    assert all(batches), "no batch is empty"


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("content_type", ["application/json", "text/event-stream", "text/plain"])
async def test_whole_reply(upstream: OddUpstream, provider: OpenAIProvider, stream: bool, content_type: str) -> None:
    """A JSON body is one batch, also if a stream was asked for and after blank lines that kept the connection alive."""
    body = b"\n\n\n" + json.dumps(WHOLE, indent=1).encode()
    batches = await ask(provider, upstream, answer(body, "200 OK", content_type), stream=stream)
    assert (len(batches), flat(batches)) == (1, [STARTED, TextDelta(0, "Hello"), Usage(3, 2, 5), STOP])


CUTS: dict[str, list[Step]] = {
    "eof before the end": [head(), chunk(sse(*EVENTS[:3])), LAST],
    "done before the end": [head(), chunk(sse(*EVENTS[:3], "[DONE]")), LAST],
    "cut": [head(), chunk(sse(*EVENTS[:3])), CUT],
    "cut inside an event": [head(), chunk(sse(*EVENTS[:3])[:-9]), CUT],
    "eof inside an event": [head(), chunk(sse(*EVENTS[:3]) + b'data: {"cho'), LAST],
    "reset": [head(), chunk(sse(*EVENTS[:3])), RESET],
    "second choice cut": [head(), chunk(sse(*EVENTS[:4], delta("x", index=1), "[DONE]")), LAST],
    "bad JSON": [head(), chunk(sse(*EVENTS[:3], "{bad")), LAST],
    "cut inside an encoding": [
        answer(gzip.compress(sse(*EVENTS))[:-1], "200 OK", "text/event-stream", "content-encoding: gzip"),
    ],
    "no HTTP in the body": [head(), chunk(sse(*EVENTS[:3])), Pause(0.05), b"zz\r\nabc\r\n", HANG],
    "empty": [head(), LAST],
    "nothing but comments": [head(), chunk(b": ping\n\n"), LAST],
    "text": [head(content_type="text/plain"), chunk(b"upstream connect error"), LAST],
    "web page": [answer(b"<!DOCTYPE html><html>sk-123456789</html>", "200 OK", "text/html")],
    "no content": [b"HTTP/1.1 204 No Content\r\n\r\n"],
    "short of its length": [answer(json.dumps(WHOLE).encode())[:-9], CUT],
    "half a JSON": [answer(json.dumps(WHOLE).encode()[:-9])],
    "other JSON": [answer({"hello": "world"})],
}


@pytest.mark.parametrize("steps", CUTS.values(), ids=CUTS)
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
async def test_cuts(upstream: OddUpstream, provider: OpenAIProvider, steps: list[Step], stream: bool) -> None:
    """A reply that is cut or malformed raises `ProviderProtocolError` and finishes no choice."""
    upstream.script("m", steps)
    events: list[Event] = []
    with pytest.raises(ProviderProtocolError) as raised:
        async for batch in provider.stream(request(stream=stream)):
            events += batch
    assert not any(isinstance(event, Finished) for event in events)
    assert raised.value.provider == "acme"


async def test_text_before_a_failure_is_given(upstream: OddUpstream, provider: OpenAIProvider) -> None:
    """Text before invalid JSON in the same read is sent before the error."""
    upstream.script("m", [head(), chunk(sse(*EVENTS[:3], "{bad")), LAST])
    stream = provider.stream(request())
    assert flat([await anext(stream)]) == GOOD[:3]
    with pytest.raises(ProviderProtocolError):
        await anext(stream)


async def test_a_call_before_a_cut_is_given(upstream: OddUpstream, provider: OpenAIProvider) -> None:
    """A call whose name may be incomplete is held back, and sent before the error if the reply breaks off."""
    call = {"index": 0, "id": "c", "type": "function", "function": {"name": "write", "arguments": '{"a'}}
    upstream.script("m", [head(), chunk(sse(delta(tool_calls=[call]))), CUT])
    events: list[Event] = []
    with pytest.raises(ProviderProtocolError):
        async for batch in provider.stream(request()):
            events += batch
    assert events == [STARTED, BlockStarted(0, 0, ToolCall("c", "write", "")), InputDelta(0, '{"a')]


async def test_a_reply_that_is_finished_early(upstream: OddUpstream, provider: OpenAIProvider) -> None:
    """A finish reason with more text after it does not end the reply; only [DONE] or the end of the body does."""
    events = (delta("", role="assistant"), delta("Hel", finish="stop"), delta("lo"))
    upstream.script("m", [head(), chunk(sse(*events)), Pause(1.5), chunk(sse(EVENTS[-1], "[DONE]")), LAST])
    assert flat([batch async for batch in provider.stream(request())]) == GOOD


async def test_a_finished_reply_is_whole_at_a_time_out(upstream: OddUpstream) -> None:
    """A finished reply is complete if the read timeout passes before the wait for more output."""
    provider = build(ProviderConfig(base_url=upstream.base_url, timeouts=TimeoutsConfig(stall=0.2)))
    assert flat(await ask(provider, upstream, head(), chunk(sse(*EVENTS)), HANG)) == GOOD
    await provider.close()


@pytest.mark.usefixtures("short_wait")
async def test_a_host_that_goes_on_after_its_end_and_falls_silent(upstream: OddUpstream, provider: OpenAIProvider) -> None:
    """If a host went on after a finish reason and then falls silent, the reply is cut and never looks complete."""
    events = (delta("Hel"), delta(finish="stop"), delta("lo"), delta(finish="stop"))
    with pytest.raises(ProviderProtocolError, match="whole"):
        await ask(provider, upstream, head(), *(chunk(sse(event)) for event in events), HANG)
    await asyncio.wait_for(upstream.left.get(), 5)


async def test_usage_is_not_awaited_after_the_end_of_the_body(
    upstream: OddUpstream, provider: OpenAIProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Usage is not waited for after the end of the body, nor if it has come already."""
    monkeypatch.setattr("antiphon.providers.client._AFTER_DONE", 60.0)
    assert flat(await ask(provider, upstream, head(), chunk(sse(*EVENTS, "[DONE]")), HANG)) == GOOD
    without = [event for event in GOOD if not isinstance(event, Usage)]
    async with asyncio.timeout(20):
        assert flat(await ask(provider, upstream, head(), chunk(sse(*EVENTS[:-1], "[DONE]")), LAST)) == without
        assert flat(await ask(provider, upstream, head(), chunk(sse(*EVENTS[:-1], "[DONE]")), CUT)) == without


@pytest.mark.parametrize("at_once", [True, False])
async def test_a_stream_without_end_for_a_whole_reply(
    upstream: OddUpstream, provider: OpenAIProvider, monkeypatch: pytest.MonkeyPatch, at_once: bool
) -> None:
    """A stream that is collected for a whole reply is limited in size; one that is passed on is not."""
    monkeypatch.setattr("antiphon.providers.client.MAX_MESSAGE_BYTES", 1000)
    pieces = [chunk(sse(delta("x" * 100)))] * 100
    steps: list[Step] = [head(), *([b"".join(pieces)] if at_once else pieces), chunk(sse(delta(finish="stop"), "[DONE]")), LAST]
    with pytest.raises(ProviderProtocolError, match="1000 bytes"):
        await ask(provider, upstream, *steps, stream=False)
    assert await ask(provider, upstream, *steps)


STATUSES: list[tuple[str, type[ProviderError]]] = [
    ("301 Moved Permanently", ProviderUnavailable),
    ("400 Bad Request", ProviderRejected),
    ("401 Unauthorized", ProviderCredentials),
    ("403 Forbidden", ProviderCredentials),
    ("404 Not Found", ProviderCredentials),
    ("429 Too Many Requests", ProviderRateLimited),
    ("500 Internal Server Error", ProviderUnavailable),
    ("502 Bad Gateway", ProviderUnavailable),
    ("504 Gateway Timeout", ProviderTimeout),
]


@pytest.mark.parametrize(("status", "kind"), STATUSES, ids=[status for status, _ in STATUSES])
@pytest.mark.parametrize("body", [{"error": {"message": f"your key {KEY}"}}, b"<html>sk-123456789</html>", b""])
async def test_statuses(upstream: OddUpstream, provider: OpenAIProvider, status: str, kind: type[ProviderError], body: Any) -> None:
    """Each error status becomes its error, whatever the body. The body is logged without keys and not given to the caller."""
    with structlog.testing.capture_logs() as logs, pytest.raises(ProviderError) as raised:
        await ask(provider, upstream, answer(body, status, "text/html", "retry-after: 7"))
    assert type(raised.value) is kind
    assert raised.value.status == int(status[:3])
    assert raised.value.retry_after == (7 if kind in (ProviderRateLimited, ProviderUnavailable, ProviderTimeout) else None)
    line, _ = logs
    assert (line["event"], line["provider"], line["status"]) == ("provider_error", "acme", int(status[:3]))
    assert "sesame" not in str(logs) + raised.value.message
    assert "sk-1" not in str(logs) + raised.value.message


async def test_a_refusal_without_end(upstream: OddUpstream, provider: OpenAIProvider) -> None:
    """At most 64 KiB of an error's body are read."""
    steps: list[Step] = [head("500 Oops"), chunk(b"x" * 100_000), HANG]
    with pytest.raises(ProviderUnavailable):
        await ask(provider, upstream, *steps)
    await asyncio.wait_for(upstream.left.get(), 5)


@pytest.mark.parametrize("tail", [[HANG], [Pause(0.1), chunk(b".")] * 100], ids=["hangs", "drips"])
async def test_a_slow_refusal(upstream: OddUpstream, provider: OpenAIProvider, tail: list[Step]) -> None:
    """An error status is reported within a few seconds, even if its body does not end."""
    began = time.monotonic()
    with pytest.raises(ProviderRateLimited) as raised:
        await ask(provider, upstream, head("429 Slow Down", "a/b", "retry-after: 7"), chunk(b"{"), *tail)
    assert raised.value.retry_after == 7
    assert time.monotonic() - began < 3


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
async def test_error_in_a_good_answer(upstream: OddUpstream, provider: OpenAIProvider, stream: bool) -> None:
    """An error object in a 200 becomes that error, before and after the first delta, and is logged without keys."""
    error = {"error": {"message": f"limit of {KEY}", "type": "requests", "code": "rate_limit_exceeded"}}
    for steps in (
        [answer(error)],
        [head(), chunk(sse(error)), LAST],
        [head(), chunk(b": ping\n\n"), chunk(b"event: error\n" + sse(error["error"])), LAST],
        [head(), chunk(sse(*EVENTS[:3])), chunk(sse(error)), HANG],
    ):
        with structlog.testing.capture_logs() as logs, pytest.raises(ProviderRateLimited) as raised:
            await ask(provider, upstream, *steps, stream=stream)
        assert raised.value.code == "rate_limit_exceeded"
        line, text = logs
        assert (line["code"], line["type"]) == ("rate_limit_exceeded", "requests")
        assert "limit of" in text["body"]
        assert text["log_level"] == "debug"
        assert "sesame" not in str(logs)


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
async def test_the_explanation_of_a_rejection_is_kept(upstream: OddUpstream, provider: OpenAIProvider, stream: bool) -> None:
    """The provider's explanation of a rejected request is kept without the key and the host, wherever it comes."""
    host = upstream.base_url.split("/")[2]
    words = {
        "message": f"Too long for {host} with {KEY}.",
        "type": "invalid_request_error",
        "code": "too_much",
        "param": "messages[0]",
    }
    for steps in (
        [answer({"error": words}, "400 Bad Request")],
        [answer({"error": words})],
        [head(), chunk(sse({"error": words})), LAST],
        [head(), chunk(sse(*EVENTS[:3])), chunk(sse({"error": words})), HANG],
    ):
        with pytest.raises(ProviderRejected) as raised:
            await ask(provider, upstream, *steps, stream=stream)
        error = raised.value
        assert (error.code, error.param) == ("too_much", "messages[0]")
        assert error.explanation == "Too long for [redacted] with [redacted]."


async def test_a_key_in_the_query_is_a_key(upstream: OddUpstream) -> None:
    """A key in the query is removed from the log and from the explanation."""
    config = ProviderConfig(base_url=f"{upstream.base_url}?key=open-door-1", query={"token": "open-door-2"})
    provider = build(config)
    body = {"error": {"message": "No: open-door-1, open-door-2."}}
    with structlog.testing.capture_logs() as logs, pytest.raises(ProviderRejected) as raised:
        await ask(provider, upstream, answer(body, "400 Bad Request"))
    assert raised.value.explanation == "No: [redacted], [redacted]."
    assert "open-door" not in str(logs)
    await provider.close()


async def test_silence(upstream: OddUpstream) -> None:
    """Silence raises `ProviderTimeout` and drops the connection."""
    provider = build(ProviderConfig(base_url=upstream.base_url, timeouts=TimeoutsConfig(stall=0.05)))
    for steps in ([HANG], [head(), chunk(sse(*EVENTS[:2])), HANG]):
        with pytest.raises(ProviderTimeout):
            await ask(provider, upstream, *steps)
        await asyncio.wait_for(upstream.left.get(), 5)
    await provider.close()


async def test_connections_are_used_again(upstream: OddUpstream, provider: OpenAIProvider) -> None:
    """Streams, whole replies and short errors that were read to the end leave a connection for the next call."""
    for _ in range(3):
        assert flat(await ask(provider, upstream, head(), chunk(sse(*EVENTS, "[DONE]")), LAST)) == GOOD
        await ask(provider, upstream, answer(WHOLE), stream=False)
        with pytest.raises(ProviderRejected):
            await ask(provider, upstream, answer({"error": {}}, "400 Bad Request"))
    assert upstream.connections == 1
    await provider.close()
    while upstream.open_connections:
        await asyncio.sleep(0)


async def test_a_reply_is_given_before_its_body_ends(upstream: OddUpstream, provider: OpenAIProvider) -> None:
    """The end comes with [DONE], and with what arrived with it, even if the host keeps the body open."""
    upstream.script("m", [head(), chunk(sse(*EVENTS, "[DONE]")), HANG])
    stream = provider.stream(request())
    began = time.monotonic()
    assert flat([await anext(stream)]) == GOOD
    assert time.monotonic() - began < 5
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    assert upstream.left.empty(), "the connection is still there when the stream has ended"
    await asyncio.wait_for(upstream.left.get(), 5)


async def test_closing_the_generator(upstream: OddUpstream, provider: OpenAIProvider) -> None:
    """Closing the generator between two batches drops the connection at once and leaves no task."""
    upstream.script("m", [head(), chunk(sse(*EVENTS[:2])), HANG])
    stream = provider.stream(request())
    assert flat([await anext(stream)]) == GOOD[:2]
    tasks = asyncio.all_tasks()
    await stream.aclose()
    assert asyncio.all_tasks() <= tasks
    await asyncio.wait_for(upstream.left.get(), 5)
    assert upstream.open_connections == 0


async def test_cancelling(upstream: OddUpstream, provider: OpenAIProvider) -> None:
    """Cancelling the task drops the connection at once, before the head and between two deltas."""
    for steps in ([HANG], [head(), chunk(sse(*EVENTS[:2])), HANG]):
        upstream.requests.clear()
        task = asyncio.create_task(ask(provider, upstream, *steps))
        while not upstream.requests:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(upstream.left.get(), 5)
    assert upstream.open_connections == 0
