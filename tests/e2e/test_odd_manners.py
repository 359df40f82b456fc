"""Providers with unusual or broken answers, through the real gateway: no failure may look like a complete, short answer."""

import json
from typing import Any

import grpc
import httpx2
import pytest

from antiphon.v1 import chat_pb2, chat_pb2_grpc
from tests.e2e.test_grpc import METADATA, generate_request
from tests.odd_upstream import CUT, LAST, RESET, OddUpstream, Step, answer, chunk, delta, head, sse

WHOLE = sse(delta("", role="assistant"), delta("Hel"), delta("lo"), delta(finish="stop"), "[DONE]")
USAGE = {"id": "x", "choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}}
REPLY = {
    "id": "x",
    "object": "chat.completion",
    "created": 1,
    "model": "odd-model",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}],
}

GOOD: dict[str, list[Step]] = {
    "in one piece": [head(), chunk(WHOLE), LAST],
    "byte by byte": [head(), *(chunk(WHOLE[i : i + 1]) for i in range(len(WHOLE))), LAST],
    "with CRLF": [head(), chunk(WHOLE.replace(b"\n", b"\r\n")), LAST],
    "with CR": [head(), chunk(WHOLE.replace(b"\n", b"\r")), LAST],
    "with comments": [head(), chunk(b": keep-alive\n\n" + WHOLE.replace(b"data: ", b": ping\n\nevent: x\nid: 7\ndata:")), LAST],
    "without [DONE]": [head(), chunk(sse(delta("Hello", "stop"))), LAST],
    "usage late, in a chunk without a choice": [head(), chunk(sse(delta("Hello"), delta(finish="stop"), USAGE, "[DONE]")), LAST],
    "usage after [DONE]": [head(), chunk(sse(delta("Hello", "stop"), "[DONE]", USAGE)), LAST],
    "the reason first": [head(), chunk(sse(delta("Hel", "stop"), delta("lo"), "[DONE]")), LAST],
    "[DONE], and then the connection stays open": [head(), chunk(WHOLE)],
    "JSON though a stream was asked for": [answer(REPLY)],
    "JSON with a byte order mark": [answer(b"\xef\xbb\xbf" + json.dumps(REPLY).encode())],
    "null, and a ping first": [head(), chunk(b'event: ping\ndata: {"type": "ping"}\n\ndata: null\n\n' + WHOLE), LAST],
    "[DONE] among spaces": [head(), chunk(sse(delta("Hello", "stop"), "  [DONE] ")), LAST],
    "JSON with what is no number": [
        answer(json.dumps(REPLY).replace('"finish_reason"', '"x": NaN, "finish_reason"').encode()),
    ],
    "until the connection closes": [b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n", WHOLE, CUT],
}

ERROR = {"error": {"message": "sk-secret at 10.0.0.7", "type": "server_error", "code": None}}

BAD: dict[str, tuple[list[Step], int]] = {
    "a 200 that holds an error": ([answer(ERROR)], 502),
    "a 200 whose first event is an error": ([head(), chunk(sse(ERROR)), LAST], 502),
    "a 200 that tells of a rate limit": ([answer({"error": {"message": "x", "code": "rate_limit_exceeded"}})], 429),
    "an HTML 502": ([answer(b"<html>10.0.0.7</html>", "502 Bad Gateway", "text/html")], 502),
    "an HTML 200": ([answer(b"<html>10.0.0.7</html>", "200 OK", "text/html")], 502),
    "an HTML 200 that says it is a stream": ([head(), chunk(b"<html>"), LAST], 502),
    "a redirect": ([answer(b"", "302 Found", "text/html", "location: http://127.0.0.1:9/")], 502),
    "nothing": ([CUT], 502),
    "a reset": ([RESET], 502),
    "an empty stream": ([head(), LAST], 502),
    "an empty object": ([answer({})], 502),
    "bad JSON": ([answer(b"{]")], 502),
    "not HTTP": ([b"SSH-2.0-x\r\n\r\n", CUT], 502),
    "only [DONE]": ([head(), chunk(sse("[DONE]")), LAST], 502),
}

HEL = chunk(sse(delta("Hel")))
LATE: dict[str, list[Step]] = {
    "the end without a reason": [head(), HEL, LAST],
    "[DONE] without a reason": [head(), HEL, chunk(sse("[DONE]")), LAST],
    "a cut between events": [head(), HEL, CUT],
    "a cut in an event": [head(), HEL, chunk(b'data: {"choices": [{"delta": {"content": "lo"}, "finish_reason": "stop"'), CUT],
    "the end in an event": [head(), HEL, chunk(b'data: {"choices": [{"delta": {"content": "lo"}, "finish_reason": "stop"'), LAST],
    "a reset": [head(), HEL, RESET],
    "an error event": [head(), HEL, chunk(sse(ERROR)), LAST],
    "bad JSON": [head(), HEL, chunk(sse("{]")), LAST],
    "an event of another shape": [head(), HEL, chunk(sse({"choices": "all"})), LAST],
    "HTML": [head(), HEL, chunk(b"<html>10.0.0.7</html>"), LAST],
}


def asking(model: str, *, stream: bool) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "Hi"}], "stream": stream}


def read(body: str) -> tuple[str, list[dict[str, Any]], bool]:
    """Return the text, the error events, and whether the stream ended with [DONE]."""
    events = [line.removeprefix("data: ") for line in body.split("\n") if line]
    done = events[-1] == "[DONE]"
    found = [json.loads(event) for event in (events[:-1] if done else events)]
    deltas = [chunk["choices"][0]["delta"].get("content") or "" for chunk in found if chunk.get("choices")]
    return "".join(deltas), [chunk for chunk in found if "error" in chunk], done


@pytest.mark.parametrize("name", GOOD)
async def test_an_unusual_but_valid_answer_is_complete(
    name: str, http: httpx2.AsyncClient, channel: grpc.aio.Channel, upstream: OddUpstream
) -> None:
    """An unusual but valid answer is complete as a stream, as JSON, and over gRPC."""
    upstream.script("odd-x", GOOD[name])
    response = await http.post("/chat/completions", json=asking("odd-x", stream=True))
    assert read(response.text) == ("Hello", [], True)
    response = await http.post("/chat/completions", json=asking("odd-x", stream=False))
    assert response.json()["choices"][0]["message"]["content"] == "Hello"
    answers = chat_pb2_grpc.ChatServiceStub(channel).StreamGenerate(generate_request("odd-x"), metadata=METADATA)
    events = [event async for answer_ in answers for event in answer_.events]
    assert "".join(event.text.text for event in events) == "Hello"
    assert events[-1].finished.reason == chat_pb2.FINISH_REASON_STOP


@pytest.mark.parametrize("reason", ["null", '""'])
async def test_an_object_without_a_reason_is_whole(reason: str, http: httpx2.AsyncClient, upstream: OddUpstream) -> None:
    """A JSON object without a finish reason is complete, because it cannot have been cut. The caller gets no reason."""
    upstream.script("odd-x", [answer(json.dumps(REPLY).replace('"stop"', reason).encode())])
    (choice,) = (await http.post("/chat/completions", json=asking("odd-x", stream=False))).json()["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("Hello", None)
    text, errors, done = read((await http.post("/chat/completions", json=asking("odd-x", stream=True))).text)
    assert (text, errors, done) == ("Hello", [], True)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("name", BAD)
async def test_a_failure_before_the_first_byte_is_a_status(
    name: str, stream: bool, http: httpx2.AsyncClient, upstream: OddUpstream
) -> None:
    """A failure before the first byte is a status in the dialect's format, without the provider's text."""
    steps, status = BAD[name]
    upstream.script("odd-x", steps)
    response = await http.post("/chat/completions", json=asking("odd-x", stream=stream))
    assert (response.status_code, response.headers["content-type"]) == (status, "application/json")
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}
    assert "secret" not in response.text
    assert "10.0.0.7" not in response.text
    assert response.headers["x-request-id"]


SPENT = {"error": {"message": "x", "type": "insufficient_quota", "code": "insufficient_quota"}}
AGAIN = {"error": {"message": "x", "type": "requests", "code": "rate_limit_exceeded"}}

# The provider's answer, our status, our gRPC code, and whether a retry can help.
RETRIES: dict[str, tuple[bytes, int, str, bool]] = {
    "a rate limit": (answer(AGAIN, "429 Too Many Requests"), 429, "RESOURCE_EXHAUSTED", True),
    "a quota that is used up": (answer(SPENT, "429 Too Many Requests"), 429, "RESOURCE_EXHAUSTED", False),
    "a redirect": (answer(b"", "307 Temporary Redirect", "text/html", "location: /v2"), 502, "FAILED_PRECONDITION", False),
    "a teapot": (answer(b"", "418 I'm a teapot"), 502, "FAILED_PRECONDITION", False),
    "no money": (answer(ERROR, "402 Payment Required"), 502, "FAILED_PRECONDITION", False),
    "a refused key": (answer(ERROR, "401 Unauthorized"), 502, "FAILED_PRECONDITION", False),
    "a forbidden key": (answer(ERROR, "403 Forbidden"), 502, "FAILED_PRECONDITION", False),
    "overload": (answer(ERROR, "503 Service Unavailable"), 502, "UNAVAILABLE", True),
}


@pytest.mark.parametrize("name", RETRIES)
async def test_a_retry_is_asked_for_where_it_is_worth_it(
    name: str, http: httpx2.AsyncClient, channel: grpc.aio.Channel, upstream: OddUpstream
) -> None:
    """Where a retry cannot help, the answer has `x-should-retry: false` and a code that clients do not retry."""
    step, status, code, retry = RETRIES[name]
    upstream.script("odd-x", [step])
    response = await http.post("/chat/completions", json=asking("odd-x", stream=False))
    assert (response.status_code, response.headers.get("x-should-retry")) == (status, None if retry else "false")
    assert status != 429 or int(response.headers["retry-after"]) >= 1
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await chat_pb2_grpc.ChatServiceStub(channel).Generate(generate_request("odd-x"), metadata=METADATA)
    assert caught.value.code().name == code


@pytest.mark.parametrize("name", LATE)
async def test_a_failure_after_the_first_byte_is_an_event(
    name: str, http: httpx2.AsyncClient, channel: grpc.aio.Channel, upstream: OddUpstream
) -> None:
    """A failure after the first byte is an error event without [DONE], a 502 as JSON, and an event and a status over gRPC."""
    upstream.script("odd-x", LATE[name])
    response = await http.post("/chat/completions", json=asking("odd-x", stream=True))
    text, errors, done = read(response.text)
    assert (response.status_code, text, len(errors), done) == (200, "Hel", 1, False)
    assert set(errors[0]["error"]) == {"message", "type", "param", "code"}
    assert "secret" not in response.text
    assert (await http.post("/chat/completions", json=asking("odd-x", stream=False))).status_code == 502
    events: list[str | None] = []
    with pytest.raises(grpc.aio.AioRpcError):
        async for answer_ in chat_pb2_grpc.ChatServiceStub(channel).StreamGenerate(generate_request("odd-x"), metadata=METADATA):
            events += [event.WhichOneof("event") for event in answer_.events]
    assert events == ["started", "block_started", "text", "error"]
