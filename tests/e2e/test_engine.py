"""The engine dialect through the real Envoy, with requests as LLMstudio's clients send them."""

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any

import httpx2
import pytest

from tests.e2e.conftest import KEY, PROVIDER_KEY, Gateway
from tests.odd_upstream import CUT, HANG, LAST, OddUpstream, Pause, Step, answer, chunk, delta, head, sse
from tests.waiting import until

PATH = "/api/engine/chat/odd"
USAGE = {
    "id": "x",
    "choices": [],
    "usage": {
        "prompt_tokens": 6,
        "completion_tokens": 26,
        "total_tokens": 32,
        "prompt_tokens_details": {"cached_tokens": 4},
    },
}
PAUSE = 0.05
WHOLE: list[Step] = [
    head(),
    Pause(PAUSE),
    chunk(sse(delta("", role="assistant"), delta("Hé"))),
    Pause(PAUSE),
    chunk(sse(delta("llo 🎩"))),
    Pause(PAUSE),
    chunk(sse(delta(finish="stop"), USAGE, "[DONE]")),
    LAST,
]


def asking(model: str = "odd-priced", **fields: Any) -> dict[str, Any]:
    return {"model": model, "chat_input": "Hello! Who are you?", **fields}


def as_03(**fields: Any) -> dict[str, Any]:
    """Return the body that LLMstudio 0.3.11 sends."""
    unset = dict.fromkeys(("session_id", "api_key", "api_endpoint", "api_version", "base_url"))
    return {"model": "odd-priced", **unset, "chat_input": "Hi", "is_stream": False, "retries": 0, "parameters": {}, **fields}


def as_10(**fields: Any) -> dict[str, Any]:
    """Return the body that LLMstudio 1.0.6 sends."""
    return {"chat_input": "Hi", "model": "odd-priced", "is_stream": False, "retries": 0, "parameters": {}, **fields}


@pytest.fixture(autouse=True)
def scripted(upstream: OddUpstream) -> None:
    upstream.script("odd-priced", WHOLE)


async def pieces(gateway: Gateway, body: dict[str, Any]) -> AsyncGenerator[bytes, None]:
    """Yield the transfer's chunks as LLMstudio's clients see them. The request has no key but the one in the body."""
    host, _, port = gateway.rest.partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        data = json.dumps(body).encode()
        writer.write(b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n" % PATH.encode())
        writer.write(b"content-length: %d\r\n\r\n" % len(data) + data)
        assert b" 200 " in await reader.readline()
        while await reader.readline() != b"\r\n":
            pass
        while size := int(await reader.readline(), 16):
            piece = await reader.readexactly(size)
            await reader.readline()
            yield piece
    finally:
        writer.close()


@pytest.fixture
def engine(admin: httpx2.AsyncClient, admin_gateway: Gateway) -> httpx2.AsyncClient:
    """Return the client with a valid key and the gateway's root as its base URL."""
    admin.base_url = httpx2.URL(f"http://{admin_gateway.rest}")
    return admin


@pytest.fixture
def stranger(engine: httpx2.AsyncClient) -> httpx2.AsyncClient:
    """Return the client without a key."""
    del engine.headers["authorization"]
    return engine


async def test_the_documented_answer(engine: httpx2.AsyncClient, upstream: OddUpstream) -> None:
    """The answer has the documented fields, with times measured on the provider's stream and a cost that includes cached tokens."""
    reply = await engine.post(PATH, json=asking(api_key="None", parameters="None", is_stream="False"))
    assert (reply.status_code, reply.headers["content-type"]) == (200, "application/json")
    found = reply.json()
    assert " ".join(found) == (
        "id choices created model object system_fingerprint usage session_id chat_input chat_output context provider timestamp"
        " parameters metrics"
    )
    message = {"content": "Héllo 🎩", "role": "assistant", "function_call": None, "tool_calls": None}
    assert found["choices"] == [{"finish_reason": "stop", "index": 0, "logprobs": None, "message": message}]
    assert (found["object"], found["provider"], found["chat_output"]) == ("chat.completion", "odd", "Héllo 🎩")
    assert (found["system_fingerprint"], found["usage"], found["session_id"]) == (None, None, None)
    assert found["context"] == [{"role": "user", "content": "Hello! Who are you?"}]
    defaults = {"temperature": 1, "max_tokens": 2048, "top_p": 1, "frequency_penalty": 0, "presence_penalty": 0}
    assert found["parameters"] == defaults
    took = found["metrics"]
    assert (took["input_tokens"], took["output_tokens"], took["total_tokens"]) == (6, 26, 32)
    assert took["cost_usd"] == pytest.approx((2 + 4 * 0.5 + 26 * 10) / 1e6)
    assert PAUSE <= took["time_to_first_token_s"] < took["latency_s"]
    assert took["latency_s"] >= 3 * PAUSE
    assert PAUSE / 3 <= took["inter_token_latency_s"] < took["latency_s"]
    assert 0 < took["tokens_per_second"] < 2 / (3 * PAUSE) + 10
    sent = upstream.requests[-1]
    assert (sent.json["stream"], sent.json["max_tokens"], sent.headers["authorization"]) == (True, 2048, f"Bearer {PROVIDER_KEY}")


async def test_a_stream_is_plain_text_without_delay(engine: httpx2.AsyncClient, upstream: OddUpstream) -> None:
    """A stream is plain text that arrives as the provider sends it."""
    more = asyncio.Event()
    upstream.script("odd-priced", [head(), chunk(sse(delta("Hel"))), more, chunk(sse(delta("lo", "stop"), USAGE, "[DONE]")), LAST])
    received = ""
    async with engine.stream("POST", PATH, json=asking(is_stream=True)) as reply:
        assert reply.headers["content-type"] == "text/plain; charset=utf-8"
        assert reply.headers["x-accel-buffering"] == "no"
        async for text in reply.aiter_text():
            received += text
            more.set()
    assert received == "Hello"


async def test_llmstudio_03(admin_gateway: Gateway, stranger: httpx2.AsyncClient) -> None:
    """LLMstudio 0.3 works: it uses /health, sends its key in the body, and decodes each piece of a stream alone."""
    health = await stranger.get("/health")
    assert (health.status_code, health.json()["status"]) == (200, "healthy")
    reply = await stranger.post(PATH, json=as_03(api_key=KEY, session_id="s", parameters={"max_tokens": 5, "max_output_tokens": 5}))
    assert (reply.status_code, reply.json()["session_id"]) == (200, "s")
    received = [piece.decode() async for piece in pieces(admin_gateway, as_03(api_key=KEY, is_stream=True, has_end_token=True))]
    assert received[:2] == ["Hé", "llo 🎩"]
    assert received[2].startswith("<END_TOKEN>,input_tokens=6,output_tokens=26,cost_usd=0.000264,latency_s=0.")
    assert len(received) == 3


async def test_llmstudio_10(admin_gateway: Gateway, stranger: httpx2.AsyncClient) -> None:
    """LLMstudio 1.0 works: each piece of a stream is one JSON chunk, and the key may be in the parameters."""
    assert (await stranger.post(PATH, json=as_10(parameters={"api_key": KEY}))).json()["parameters"] == {}
    chunks = [json.loads(piece) async for piece in pieces(admin_gateway, as_10(api_key=KEY, is_stream=True))]
    assert "".join(chunk["choices"][0]["delta"]["content"] or "" for chunk in chunks) == "Héllo 🎩"
    assert chunks[-1]["metrics"]["total_tokens"] == 32
    assert KEY not in json.dumps(chunks)


@pytest.mark.parametrize("body", [as_03(is_stream=True, has_end_token=True), as_10(is_stream=True)])
async def test_a_reply_that_breaks_off_breaks_the_transfer(engine: httpx2.AsyncClient, upstream: OddUpstream, body: Any) -> None:
    """A reply that breaks off breaks the HTTP transfer after the text so far, so the client's own library raises."""
    upstream.script("odd-priced", [head(), chunk(sse(delta("Hel"))), CUT])
    received = b""
    with pytest.raises(httpx2.RemoteProtocolError):
        async with engine.stream("POST", PATH, json=body) as reply:
            async for piece in reply.aiter_raw():
                received += piece
    assert b"Hel" in received
    assert b"<END_TOKEN>" not in received


async def test_the_callers_own_key(admin_gateway: Gateway, engine: httpx2.AsyncClient, upstream: OddUpstream) -> None:
    """The caller's own provider key is sent to the provider, and the caller is told the cost.

    If the key is refused, neither the 502 nor the log repeats it.
    """
    body = asking(api_key="own-key-of-ann", base_url="http://127.0.0.1:1", api_endpoint="http://127.0.0.1:1")
    reply = await engine.post(PATH, json=body)
    assert reply.json()["metrics"]["cost_usd"] == pytest.approx((2 + 4 * 0.5 + 26 * 10) / 1e6)
    assert upstream.requests[-1].headers["authorization"] == "Bearer own-key-of-ann"
    assert b"own-key" not in upstream.requests[-1].body
    upstream.script("odd-priced", [answer({"error": {"message": "Bad key: own-key-of-ann"}}, "401 Unauthorized")])
    reply = await engine.post(PATH, json=asking(api_key="own-key-of-ann"))
    assert (reply.status_code, reply.json()) == (502, {"detail": "The provider odd refused the key of the request."})
    await asyncio.to_thread(admin_gateway.wait_for, "Bad key: [redacted]")
    assert "own-key-of-ann" not in admin_gateway.output_text


async def test_who_may_call_without_a_key_of_the_gateway(
    http: httpx2.AsyncClient, gateway: Gateway, stranger: httpx2.AsyncClient
) -> None:
    """Only where the operator allows it may a caller use its own provider key instead of a gateway key, for that provider."""
    good = asking(api_key="own-key-of-ann")
    assert (await stranger.post(PATH, json=good)).status_code == 200
    elsewhere = ("/api/engine/chat/echo", {**good, "model": "echo"})
    for refused, body in ((PATH, asking()), elsewhere, (PATH, "x"), ("/api/engine/chat/x", good)):
        reply = await stranger.post(refused, json=body)
        assert (reply.status_code, reply.headers["www-authenticate"], set(reply.json())) == (401, "Bearer", {"detail"})
    bad = await stranger.post(PATH, json=good, headers={"authorization": "Bearer sk-wrong"})
    assert bad.status_code == 401
    for path in ("providers", "models", "parameters"):
        assert (await stranger.get(f"/api/engine/{path}")).status_code == 401
    del http.headers["authorization"]
    assert (await http.post(f"http://{gateway.rest}{PATH}", json=good)).status_code == 401


@pytest.mark.parametrize(
    ("path", "body", "status", "detail"),
    [
        ("/api/engine/chat/none", asking(), 404, "The provider 'none' does not exist."),
        (PATH, asking("gpt-4o"), 400, "The model 'gpt-4o' does not exist. The models that do are listed by the models endpoint."),
        (PATH, {"model": "odd-priced"}, 422, [{"type": "missing", "loc": ["chat_input"], "msg": "Field required"}]),
        ("/api/engine/nothing", {}, 404, "There is nothing at this path."),
        ("/api/engine/models", {}, 405, "This path does not take this method."),
        ("/health", {}, 405, "This path does not take this method."),
    ],
)
async def test_refusals(engine: httpx2.AsyncClient, path: str, body: Any, status: int, detail: Any) -> None:
    """Errors always have the form {"detail"}, including Envoy's own."""
    reply = await engine.post(path, json=body)
    assert (reply.status_code, reply.json()) == (status, {"detail": detail})


async def test_the_providers_refusals(engine: httpx2.AsyncClient, upstream: OddUpstream) -> None:
    """The provider's rate limit becomes 429 with the time to wait, streaming or not. Its other errors become 502."""
    for stream in (False, True):
        upstream.script("odd-priced", [answer({"error": {}}, "429 Too Many Requests", "application/json", "retry-after: 3")])
        reply = await engine.post(PATH, json=asking(is_stream=stream))
        assert (reply.status_code, reply.headers["retry-after"], set(reply.json())) == (429, "3", {"detail"})
        upstream.script("odd-priced", [answer(b"<html>", "502 Bad Gateway", "text/html")])
        assert (await engine.post(PATH, json=asking(is_stream=stream))).status_code == 502


async def test_the_lists(engine: httpx2.AsyncClient) -> None:
    """The lists of providers, models and parameters have LLMstudio's format."""
    assert (await engine.get("/api/engine/providers")).json() == ["echo", "llmock", "nowhere", "odd"]
    models = (await engine.get("/api/engine/models")).json()
    assert models["llmock"] == {"name": "llmock", "models": ["gpt-4o", "gpt-4o-mini"]}
    assert models["odd"] == {"name": "odd", "models": []}
    assert (await engine.get("/api/engine/models", params={"provider": "echo"})).json() == {"name": "echo", "models": ["echo"]}
    parameters = (await engine.get("/api/engine/parameters", params={"provider": "odd", "model": "x"})).json()
    assert [parameter["id"] for parameter in parameters] == [
        "temperature",
        "max_tokens",
        "top_p",
        "frequency_penalty",
        "presence_penalty",
    ]
    for path in ("models", "parameters"):
        reply = await engine.get(f"/api/engine/{path}", params={"provider": "none"})
        assert (reply.status_code, reply.json()) == (404, {"detail": "The provider 'none' does not exist."})


@pytest.mark.parametrize("stream", [False, True])
async def test_a_caller_that_leaves_ends_the_providers_call(
    engine: httpx2.AsyncClient, upstream: OddUpstream, stream: bool
) -> None:
    """If the caller leaves, the provider's call ends at once, streaming or not."""
    while not upstream.left.empty():
        upstream.left.get_nowait()
    upstream.script("odd-priced", [head(), chunk(sse(delta("Hel"))), HANG])
    call = asyncio.create_task(engine.post(PATH, json=asking(is_stream=stream)))
    before = len(upstream.requests)
    await until(lambda: len(upstream.requests) > before)
    call.cancel()
    async with asyncio.timeout(5):
        await upstream.left.get()


TOOL = {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a":'}}
MORE = {"index": 0, "function": {"arguments": "1}"}}
NO_TEXT: dict[str, tuple[list[dict[str, Any]], str]] = {
    "refusal": ([delta(refusal="I can"), delta(refusal="not."), delta(finish="stop")], "I cannot."),
    "tool": ([delta(tool_calls=[TOOL]), delta(tool_calls=[MORE]), delta(finish="tool_calls")], '{"a":1}'),
    "sound": ([delta(audio={"id": "a", "transcript": "Good day."}), delta(finish="stop")], "Good day."),
}


@pytest.mark.parametrize("kind", NO_TEXT)
async def test_a_reply_without_text_is_no_empty_answer(engine: httpx2.AsyncClient, upstream: OddUpstream, kind: str) -> None:
    """A refusal, a tool call or a transcript appears as the output, whole, as text, and in chunks."""
    deltas, output = NO_TEXT[kind]
    upstream.script("odd-priced", [head(), chunk(sse(*deltas, "[DONE]")), LAST])
    assert (await engine.post(PATH, json=as_03())).json()["chat_output"] == output
    stream = as_03(is_stream=True, has_end_token=True)
    assert (await engine.post(PATH, json=stream)).text.partition("<END_TOKEN>")[0] == output
    last = (await engine.post(PATH, json=as_10(is_stream=True))).text
    assert f'"chat_output":{json.dumps(output)}' in last


async def test_only_known_fields_of_messages_reach_the_provider(engine: httpx2.AsyncClient, upstream: OddUpstream) -> None:
    """Unknown fields of messages are not sent, because strict hosts refuse them, but the answer repeats them."""
    messages = [
        {"role": "user", "name": "ann", "content": [{"type": "text", "text": "Hi", "id": "t1"}], "id": "m1", "timestamp": 1}
    ]
    reply = await engine.post(PATH, json=asking(chat_input=messages))
    assert reply.json()["context"] == messages
    expected = [{"role": "user", "name": "ann", "content": [{"type": "text", "text": "Hi"}]}]
    assert upstream.requests[-1].json["messages"] == expected
