"""POST /api/v1/ai/chat through the real Envoy, in front of a scripted upstream."""

import asyncio
import json
from typing import Any

import httpx2
import pytest

from tests.e2e.conftest import PROVIDER_KEY, Gateway
from tests.odd_upstream import CUT, LAST, OddUpstream, Pause, answer, chunk, delta, head, sse

PATH = "/ai/chat"
ASKED = {"role": "user", "content": "Summarize the traffic trends for acme-retail over the last 30 days."}
REPLY = {
    "id": "x",
    "object": "chat.completion",
    "created": 1,
    "model": "odd-model",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Up by 12% 📈\u2028"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 150, "completion_tokens": 280, "total_tokens": 430},
}


def asking(model: str | None = "odd-ai", **fields: Any) -> dict[str, Any]:
    return {"messages": [ASKED], "model": model, **fields}


async def test_the_documented_answer(admin: httpx2.AsyncClient, upstream: OddUpstream) -> None:
    """The answer has the documented format, and the model's text is unchanged."""
    upstream.script("odd-ai", [answer(REPLY)])
    reply = await admin.post(PATH, json=asking(client_id="acme-retail", stream=False, unknown={"a": 1}))
    assert (reply.status_code, reply.headers["content-type"]) == (200, "application/json")
    assert reply.headers["x-request-id"]
    assert reply.json() == {
        "success": True,
        "data": {
            "message": {"role": "assistant", "content": "Up by 12% 📈\u2028"},
            "usage": {"prompt_tokens": 150, "completion_tokens": 280, "total_tokens": 430},
        },
    }
    sent = upstream.requests[-1].json
    assert sent == {"model": "odd-ai", "messages": [{"role": "system", "content": "Acme sells hats."}, ASKED]}


async def test_a_refusal_is_content(admin: httpx2.AsyncClient, upstream: OddUpstream) -> None:
    """A refusal of the model appears as content, whole and streamed, so the answer is not empty."""
    choice = {"index": 0, "message": {"role": "assistant", "content": None, "refusal": "no"}, "finish_reason": "stop"}
    upstream.script("odd-ai", [answer({**REPLY, "choices": [choice]})])
    reply = await admin.post(PATH, json=asking())
    assert reply.json()["data"]["message"] == {"role": "assistant", "content": "no", "refusal": "no"}
    upstream.script("odd-ai", [head(), chunk(sse(delta(refusal="no"), delta(finish="stop"), "[DONE]")), LAST])
    reply = await admin.post(PATH, json=asking(stream=True))
    chunks = [json.loads(line.removeprefix("data: ")) for line in reply.text.split("\n\n") if line.startswith("data: {")]
    deltas = [part["choices"][0]["delta"] for part in chunks]
    for name in ("content", "refusal"):
        assert "".join(part.get(name) or "" for part in deltas) == "no"


async def test_only_known_fields_of_messages_reach_the_provider(admin: httpx2.AsyncClient, upstream: OddUpstream) -> None:
    """Unknown fields of messages are not sent, because strict hosts refuse them."""
    upstream.script("odd-ai", [answer(REPLY)])
    assert (await admin.post(PATH, json=asking() | {"messages": [{**ASKED, "id": "m1", "timestamp": 1}]})).status_code == 200
    assert upstream.requests[-1].json["messages"] == [ASKED]


async def test_the_platforms_default_model(admin: httpx2.AsyncClient) -> None:
    """The default model answers if the body names none, or null."""
    for body in ({"messages": [ASKED]}, asking(None)):
        reply = await admin.post(PATH, json=body)
        assert reply.status_code == 200
        assert reply.json()["data"]["message"]["role"] == "assistant"


async def test_a_stream_arrives_without_delay(admin: httpx2.AsyncClient, upstream: OddUpstream) -> None:
    """A stream arrives as the provider sends it: chunks without delay, and then [DONE]."""
    more = asyncio.Event()
    upstream.script("odd-ai", [head(), chunk(sse(delta("Hel"))), more, chunk(sse(delta("lo", "stop"), "[DONE]")), LAST])
    async with admin.stream("POST", PATH, json=asking(stream=True)) as reply:
        assert (reply.status_code, reply.headers["content-type"]) == (200, "text/event-stream")
        events = [json.loads(line.removeprefix("data: ")) async for line in first_lines(reply, "Hel", more)]
    assert "".join(event["choices"][0]["delta"].get("content", "") for event in events) == "Hello"
    assert {event["object"] for event in events} == {"chat.completion.chunk"}


async def first_lines(reply: httpx2.Response, word: str, then: asyncio.Event) -> Any:
    """Yield the events except [DONE], which must come last. `then` is set once `word` was read."""
    done = False
    async for line in reply.aiter_lines():
        if word in line:
            then.set()
        if line == "data: [DONE]":
            done = True
        elif line:
            assert not done
            yield line
    assert done


async def test_contexts_from_a_file_and_from_a_url(admin: httpx2.AsyncClient, upstream: OddUpstream, source: OddUpstream) -> None:
    """Contexts come from a file or a URL. The URL is fetched once, with its token, for any number of calls."""
    upstream.script("odd-ai", [answer(REPLY)])
    source.default = [Pause(0.05), answer(b"Asked sells answers.\n", content_type="text/plain")]
    before = len(source.requests)
    replies = await asyncio.gather(*(admin.post(PATH, json=asking(client_id="asked")) for _ in range(10)))
    assert [reply.status_code for reply in replies] == [200] * 10
    assert upstream.requests[-1].json["messages"][0] == {"role": "system", "content": "Asked sells answers."}
    (request,) = source.requests[before:]
    assert (request.path, request.headers["authorization"]) == ("/context", f"Bearer {PROVIDER_KEY}")
    await admin.post(PATH, json=asking(client_id="filed"))
    assert upstream.requests[-1].json["messages"][0] == {"role": "system", "content": "Filed sells files."}
    await admin.post(PATH, json=asking(client_id="nobody"))
    assert upstream.requests[-1].json["messages"] == [ASKED]


async def test_a_context_that_cannot_be_read(admin: httpx2.AsyncClient, upstream: OddUpstream, source: OddUpstream) -> None:
    """A context that cannot be read makes the call fail with 503 without asking the provider, unless an earlier copy exists."""
    before = len(upstream.requests)
    source.default = [CUT]
    reply = await admin.post(PATH, json=asking(client_id="lost"))
    assert reply.status_code == 503
    assert reply.headers["retry-after"]
    assert reply.json() == {
        "error": "Service Unavailable",
        "message": "The context of the client 'lost' cannot be read at the moment.",
        "code": 503,
    }
    assert len(upstream.requests) == before
    upstream.script("odd-ai", [answer(REPLY)])
    source.default = [answer(b"Found.", content_type="text/plain")]
    assert (await admin.post(PATH, json=asking(client_id="lost"))).status_code == 200
    source.default = [answer(b"", "500 Internal Server Error")]
    assert (await admin.post(PATH, json=asking(client_id="lost"))).status_code == 200
    assert upstream.requests[-1].json["messages"][0]["content"] == "Found."


@pytest.mark.parametrize("key", [None, "Bearer sk-wrong", "Basic abc", "Bearer"])
async def test_no_good_key(admin_gateway: Gateway, key: str | None) -> None:
    """Without a valid key the answer is 401, before the body is looked at."""
    headers = {} if key is None else {"authorization": key}
    async with httpx2.AsyncClient(base_url=admin_gateway.url, trust_env=False) as client:
        reply = await client.post(PATH, content=b"nonsense", headers=headers)
    assert (reply.status_code, reply.headers["www-authenticate"]) == (401, "Bearer")
    body = reply.json()
    assert (body["error"], body["code"], set(body)) == ("Unauthorized", 401, {"error", "message", "code"})


async def test_a_key_that_is_no_admins(http: httpx2.AsyncClient) -> None:
    """A key that is not an admin's gets 403."""
    reply = await http.post(PATH, json=asking())
    assert (reply.status_code, reply.json()) == (403, {"error": "Forbidden", "message": "This needs an admin key.", "code": 403})


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        (b"{", ["body"]),
        (b"", ["body"]),
        (b"[]", ["body"]),
        (b"{}", ["messages"]),
        (b'{"messages": "all"}', ["messages"]),
        (b'{"messages": [{"role": "user", "content": "x"}], "stream": "perhaps", "client_id": 1}', ["stream", "client_id"]),
    ],
)
async def test_a_body_that_is_wrong(admin: httpx2.AsyncClient, upstream: OddUpstream, body: bytes, fields: list[str]) -> None:
    """An invalid body gets 400 with every invalid field, and the provider is not asked."""
    before = len(upstream.requests)
    reply = await admin.post(PATH, content=body, headers={"content-type": "application/json"})
    assert reply.status_code == 400
    error = reply.json()
    assert (error["error"], error["code"]) == ("Bad Request", 400)
    assert [detail["field"] for detail in error["details"]] == fields
    assert all(set(detail) == {"field", "message"} for detail in error["details"])
    assert len(upstream.requests) == before


@pytest.mark.parametrize("stream", [False, True])
async def test_the_providers_refusals(admin: httpx2.AsyncClient, upstream: OddUpstream, stream: bool) -> None:
    """The provider's rate limit becomes 429 with the seconds to wait. Its other errors become 502, without its message."""
    limit = answer({"error": {"message": "sk-secret"}}, "429 Too Many Requests", "application/json", "retry-after: 7")
    upstream.script("odd-ai", [limit])
    reply = await admin.post(PATH, json=asking(stream=stream))
    assert (reply.status_code, reply.headers["retry-after"]) == (429, "7")
    error = reply.json()
    assert (error["error"], error["code"], error["retryAfter"]) == ("Too Many Requests", 429, 7)
    for status in ("401 Unauthorized", "500 Internal Server Error", "400 Bad Request"):
        upstream.script("odd-ai", [answer({"error": {"message": "sk-secret"}}, status)])
        reply = await admin.post(PATH, json=asking(stream=stream))
        assert (reply.status_code, reply.json()["error"], reply.json()["code"]) == (502, "Error", 502)
        assert "sk-secret" not in reply.text
    assert (await admin.post(PATH, json=asking("none-such"))).json()["error"] == "Not Found"


async def test_a_late_failure(admin: httpx2.AsyncClient, upstream: OddUpstream) -> None:
    """A failure in the middle of a stream is an error event, and no [DONE] follows."""
    upstream.script("odd-ai", [head(), chunk(sse(delta("Hel"))), CUT])
    reply = await admin.post(PATH, json=asking(stream=True))
    events = [line.removeprefix("data: ") for line in reply.text.splitlines() if line]
    assert json.loads(events[-1])["code"] == 502
    assert "[DONE]" not in reply.text


async def test_what_envoy_refuses_has_the_same_shape(admin: httpx2.AsyncClient) -> None:
    """Envoy's own refusals, for a wrong method and a body that is too large, have the dialect's format."""
    reply = await admin.get(PATH)
    assert (reply.status_code, reply.headers["allow"]) == (405, "POST")
    assert set(reply.json()) == {"error", "message", "code"}
    reply = await admin.post(PATH, content=b"x" * (33 * 1024 * 1024))
    assert (reply.status_code, reply.json()["error"], reply.json()["code"]) == (413, "Payload Too Large", 413)
