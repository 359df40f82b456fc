"""Guards through the real Envoy: they find text that a provider splits over chunks, and streams still flow."""

import asyncio
import json
from collections.abc import AsyncGenerator
from itertools import accumulate
from typing import Any

import grpc
import httpx2
import pytest
import pytest_asyncio
from google.rpc import error_details_pb2
from grpc_status.rpc_status import from_call
from llmock.testing import LLMockServer

from antiphon.v1 import chat_pb2, chat_pb2_grpc, history_pb2, history_pb2_grpc
from tests.e2e.conftest import READY, Gateway, configuration
from tests.e2e.test_grpc import METADATA, generate_request
from tests.odd_upstream import HANG, LAST, OddUpstream, Step, answer, chunk, delta, head, sse

GUARDS = [
    {"name": "secrets", "kind": "blocklist", "patterns": [r"(?i)code\s+red", "sesame[0-9]+"]},
    {"name": "words", "kind": "blocklist", "patterns": ["darn"], "action": "mask", "replacement": "****", "on": ["reply"]},
    {"name": "pii", "kind": "personal_data", "entities": ["email", "credit_card", "phone"]},
]

LEAK = "Write to jane.doe@example.com, darn, or pay with 4111 1111 1111 1111 "
WHOLE = {"id": "x", "object": "chat.completion", "created": 1, "model": "odd-model"}
HELP = "You may name help@example.com, and sesame42."
"""Text of the operator."""

MASKED = "Write to [EMAIL], ****, or pay with [CREDIT_CARD] "


def steps(*texts: str) -> list[Step]:
    """Return a stream of these texts, one chunk of the transfer each."""
    return [head(), *(chunk(sse(delta(text))) for text in texts), chunk(sse(delta(finish="stop"), "[DONE]")), LAST]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def guarded(
    upstream: OddUpstream, llm: LLMockServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[Gateway, None]:
    config = {
        **configuration(upstream, llm),
        "guards": GUARDS,
        "models": {"default": "odd-leak"},
        "auth": {"keys": [{"name": "test", "key_env": "TEST_KEY", "admin": True}]},
        "personas": {"helper": {"system": HELP}},
        "clients": {"acme": {"context": HELP}},
        "proxy": {"allow": [upstream.base_url]},
    }
    started = Gateway(tmp_path_factory.mktemp("guards"), config)
    await asyncio.to_thread(started.wait_for, READY)
    yield started
    assert await asyncio.to_thread(started.stop) == 0
    assert "call_failed" not in started.output_text, "the server had an unexpected exception"
    for text in ("jane.doe", "4111 1111", "sesame"):
        assert text not in started.output_text, "the log has text that a guard found"


@pytest_asyncio.fixture(loop_scope="session")
async def http(guarded: Gateway) -> AsyncGenerator[httpx2.AsyncClient, None]:
    async with guarded.client() as made:
        yield made


@pytest_asyncio.fixture(loop_scope="session")
async def channel(guarded: Gateway) -> AsyncGenerator[grpc.aio.Channel, None]:
    async with grpc.aio.insecure_channel(guarded.rest) as made:
        yield made


def asking(text: str = "Hello", **more: Any) -> dict[str, Any]:
    return {"model": "odd-leak", "messages": [{"role": "user", "content": text}], **more}


async def chunks(response: httpx2.Response) -> AsyncGenerator[dict[str, Any], None]:
    async for line in response.aiter_lines():
        if line.startswith("data: ") and line != "data: [DONE]":
            yield json.loads(line.removeprefix("data: "))


def text_of(chunk: dict[str, Any]) -> str:
    return (chunk["choices"][0]["delta"].get("content") or "") if chunk["choices"] else ""


@pytest.mark.parametrize("size", [1, 3, 1000])
async def test_what_a_provider_splits_is_masked_in_json_and_in_a_stream(
    http: httpx2.AsyncClient, upstream: OddUpstream, size: int
) -> None:
    """Personal data is masked in JSON and in a stream, however the provider splits it."""
    upstream.script("odd-leak", steps(*(LEAK[at : at + size] for at in range(0, len(LEAK), size))))
    whole = await http.post("/chat/completions", json=asking())
    assert whole.json()["choices"][0]["message"]["content"] == MASKED
    async with http.stream("POST", "/chat/completions", json=asking(stream=True)) as response:
        pieces = [text_of(each) async for each in chunks(response)]
    assert "".join(pieces) == MASKED


async def test_the_first_text_comes_before_the_reply_is_whole(http: httpx2.AsyncClient, upstream: OddUpstream) -> None:
    """Text that is safe to send reaches the caller before the provider continues."""
    more = asyncio.Event()
    upstream.script("odd-leak", [head(), chunk(sse(delta("Write to jane"))), more, *steps(".doe@example.com!")[1:]])
    async with http.stream("POST", "/chat/completions", json=asking(stream=True)) as response:
        text = ""
        async for each in chunks(response):
            text += text_of(each)
            if text == "Write to ":
                more.set()
    assert text == "Write to [EMAIL]!"


async def test_a_blocked_reply_ends_as_filtered_and_the_provider_is_left(http: httpx2.AsyncClient, upstream: OddUpstream) -> None:
    """A blocked reply ends with `content_filter` after the text before it, with usage, and the provider's call ends."""
    upstream.script("odd-leak", [head(), *(chunk(sse(delta(text))) for text in ("It is cod", "e", " ", "red", ", I say")), HANG])
    while not upstream.left.empty():
        upstream.left.get_nowait()
    async with http.stream(
        "POST", "/chat/completions", json=asking(stream=True, stream_options={"include_usage": True})
    ) as response:
        received = [each async for each in chunks(response)]
    assert "".join(map(text_of, received)) == "It is "
    assert [each["choices"][0]["finish_reason"] for each in received if each["choices"]][-1] == "content_filter"
    assert received[-1]["usage"]["total_tokens"] > 0
    await asyncio.wait_for(upstream.left.get(), 10)
    whole = {"index": 0, "message": {"role": "assistant", "content": "It is code red, I say"}, "finish_reason": "stop"}
    upstream.script("odd-leak", [answer({**WHOLE, "choices": [whole]})])
    choice = (await http.post("/chat/completions", json=asking())).json()["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("It is ", "content_filter")


@pytest.mark.parametrize("stream", [False, True])
async def test_a_blocked_request_is_400_and_never_reaches_the_provider(
    http: httpx2.AsyncClient, upstream: OddUpstream, stream: bool
) -> None:
    """A blocked request gets 400 with the guard's name, without the text that it found, and no retry is suggested."""
    before = len(upstream.requests)
    response = await http.post("/chat/completions", json=asking("open sesame42", stream=stream))
    assert (response.status_code, response.headers["x-should-retry"]) == (400, "false")
    error = response.json()["error"]
    assert (error["type"], error["code"]) == ("invalid_request_error", "content_blocked")
    assert "'secrets'" in error["message"]
    assert "sesame" not in response.text
    assert len(upstream.requests) == before


async def test_over_grpc_too(channel: grpc.aio.Channel, upstream: OddUpstream) -> None:
    """Over gRPC text is masked too. A blocked request gets INVALID_ARGUMENT, and a blocked reply ends as filtered."""
    stub = chat_pb2_grpc.ChatServiceStub(channel)
    upstream.script("odd-leak", steps(*LEAK))
    answers = [answer async for answer in stub.StreamGenerate(generate_request("odd-leak"), metadata=METADATA, timeout=20)]
    events = [event for answer in answers for event in answer.events]
    assert "".join(event.text.text for event in events) == MASKED
    assert [answer.sequence for answer in answers] == [*accumulate((len(answer.events) for answer in answers[:-1]), initial=1)]
    upstream.script("odd-leak", steps("It is code", " red"))
    reply = await stub.Generate(generate_request("odd-leak"), metadata=METADATA, timeout=20)
    assert reply.choices[0].finish_reason == chat_pb2.FINISH_REASON_CONTENT_FILTER
    assert [block.text.text for block in reply.choices[0].message.blocks] == ["It is "]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Generate(generate_request("odd-leak", "CODE  RED"), metadata=METADATA, timeout=20)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    status = from_call(caught.value)
    assert status is not None
    info = error_details_pb2.ErrorInfo()
    status.details[0].Unpack(info)
    assert (info.reason, dict(info.metadata)) == ("CONTENT_BLOCKED", {"guard": "secrets"})


async def test_what_is_stored_and_what_the_provider_gets_is_masked(http: httpx2.AsyncClient, upstream: OddUpstream) -> None:
    """A chat's messages, title and reply are masked in the store and at the provider, and resent messages still match."""
    upstream.script("odd-leak", steps(*LEAK))
    mine = {"role": "user", "content": "I am jane.doe@example.com"}
    response = await http.post("/chat/generate", json={"chat_history": [mine]})
    assert response.status_code == 201, response.text
    made = response.json()
    assert made["result"]["response"]["content"] == MASKED
    assert made["title"] == "I am [EMAIL]"
    asked_for = upstream.requests[-1].json["messages"]
    assert asked_for[-1]["content"] == "I am [EMAIL]"
    stored = (await http.get(f"/chat/fetch/{made['chatId']}")).text
    assert "jane.doe" not in stored
    assert "4111 1111" not in stored
    assert "[EMAIL]" in stored
    again = {"chat_history": [mine, {"role": "assistant", "content": MASKED}, {"role": "user", "content": "And?"}]}
    assert (await http.post("/chat/generate", params={"chatId": made["chatId"]}, json=again)).status_code == 201
    assert [message["content"] for message in upstream.requests[-1].json["messages"]][-3:] == ["I am [EMAIL]", MASKED, "And?"]


async def test_what_callers_store_themselves_is_masked_or_refused(http: httpx2.AsyncClient, upstream: OddUpstream) -> None:
    """Titles and messages that callers store without a call are masked or refused too."""
    upstream.script("odd-leak", steps("Hello"))
    body = {"chat_history": [{"role": "user", "content": "Hi"}]}
    assert (await http.post("/chat/generate?title=To%20jane.doe@example.com", json=body)).json()["title"] == "To [EMAIL]"
    assert (await http.post("/chat/generate?title=sesame42", json=body)).status_code == 400
    kept = {"title": "jane.doe@example.com", "messages": [{"role": "assistant", "content": "I am jane.doe@example.com"}]}
    chat = (await http.post("/chat/new", json=kept)).json()
    assert chat["title"] == "[EMAIL]"
    assert "jane.doe" not in (await http.get(f"/chat/fetch/{chat['chatId']}")).text
    assert (await http.patch(f"/chat/{chat['chatId']}", json={"title": "x jane.doe@example.com"})).json()["title"] == "x [EMAIL]"
    fork = {"chatId": chat["chatId"], "title": "sesame42"}
    for refused in (
        await http.post("/chat/fork", json=fork),
        await http.patch(f"/chat/{chat['chatId']}", json={"title": "sesame42"}),
    ):
        assert refused.status_code == 400
        assert "'secrets'" in refused.json()["message"]


@pytest.mark.parametrize("path", ["/chat/generate", "/chat/generate/stream"])
async def test_context_that_a_caller_sends_is_guarded_and_the_personas_is_not(
    http: httpx2.AsyncClient, upstream: OddUpstream, path: str
) -> None:
    """Context that a caller sends is masked, or refused before anything is stored. The persona's own text is not changed."""
    upstream.script("odd-leak", steps("Hello"))
    body = {"chat_history": [{"role": "user", "content": "Hi"}], "persona": "helper"}
    response = await http.post(path, json={**body, "fastContext": ["I am jane.doe@example.com", {"jane.doe@example.com": 1}]})
    assert response.is_success, response.text
    sent = [message["content"] for message in upstream.requests[-1].json["messages"]]
    assert sent == [HELP, 'Context for this chat:\n\nI am [EMAIL]\n\n{"[EMAIL]":1}', "Hi"]
    chats = len((await http.get("/chat/history")).json()["chats"])
    asked_before = len(upstream.requests)
    for context in (["open sesame42"], [{"text": "open sesame42"}], [{"a": ["sesame42"]}]):
        refused = await http.post(path, json={**body, "fastContext": context})
        assert refused.status_code == 400
        assert "'secrets'" in refused.json()["message"]
    assert len(upstream.requests) == asked_before
    assert len((await http.get("/chat/history")).json()["chats"]) == chats


async def test_the_operators_words_go_as_they_are_where_nothing_is_kept(http: httpx2.AsyncClient, upstream: OddUpstream) -> None:
    """A persona of /chat and a client context of /ai/chat are sent unchanged."""
    upstream.script("odd-leak", steps("Hello"))
    messages = asking("I am jane.doe@example.com")["messages"]
    for path, body in (
        ("/chat", {"chat_history": messages, "persona": "helper"}),
        ("/ai/chat", {"model": "odd-leak", "messages": messages, "client_id": "acme"}),
    ):
        response = await http.post(path, json=body)
        assert response.status_code == 200, response.text
    sent = [[message["content"] for message in request.json["messages"]] for request in upstream.requests[-2:]]
    assert sent == [[HELP, "I am [EMAIL]"]] * 2


@pytest.mark.parametrize(
    "field",
    [
        {"user": "jane.doe@example.com"},
        {"metadata": {"jane.doe@example.com": "jane.doe@example.com"}},
        {"stop": "jane.doe@example.com"},
        {"stop": ["jane.doe@example.com", "x"]},
        {"prediction": {"type": "content", "content": "jane.doe@example.com"}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "jane.doe@example.com", "schema": {}}}},
        {"response_format": {"type": "odd", "grammar": "jane.doe@example.com"}},
        {"tools": [{"type": "function", "function": {"name": "jane.doe@example.com"}}]},
        {
            "tools": [
                {"type": "function", "function": {"name": "f", "parameters": {"properties": {"jane.doe@example.com": {"a": 1}}}}}
            ]
        },
        {"tools": [{"type": "web_search", "user_location": "jane.doe@example.com"}]},
        {"tool_choice": {"type": "function", "function": {"name": "jane.doe@example.com"}}},
        {"tool_choice": {"type": "custom", "custom": {"name": "jane.doe@example.com"}}},
        {"unknown": [{"jane.doe@example.com": ["jane.doe@example.com"]}]},
        {"audio": {"voice": {"note": "jane.doe@example.com"}, "format": "wav"}},
        {"audio": {"voice": "jane.doe@example.com", "format": "wav"}},
        {"modalities": ["jane.doe@example.com"]},
        {"reasoning_effort": "jane.doe@example.com"},
        {"logit_bias": {"jane.doe@example.com": 1}},
    ],
)
async def test_no_field_carries_words_past_the_guards(
    http: httpx2.AsyncClient, upstream: OddUpstream, field: dict[str, Any]
) -> None:
    """No field of a request avoids the guards: a match is masked in place, or refused by a blocking guard."""
    upstream.script("odd-leak", steps("Hello"))
    response = await http.post("/chat/completions", json=asking(**field))
    assert response.status_code == 200, response.text
    assert "jane.doe" not in json.dumps(upstream.requests[-1].json)
    assert "[EMAIL]" in json.dumps(upstream.requests[-1].json)
    blocked = json.loads(json.dumps(field).replace("jane.doe@example.com", "sesame42"))
    assert (await http.post("/chat/completions", json=asking(**blocked))).status_code == 400


async def test_where_a_chat_came_from_is_guarded(
    http: httpx2.AsyncClient, channel: grpc.aio.Channel, upstream: OddUpstream
) -> None:
    """The source of a chat is guarded like its title, whichever way it is stored."""
    upstream.script("odd-leak", steps("Hello"))
    messages = [{"role": "user", "content": "Hi"}]
    generated = (await http.post("/chat/generate?source=jane.doe@example.com", json={"chat_history": messages})).json()["chatId"]
    kept = (await http.post("/chat/new", json={"messages": messages, "source": "jane.doe@example.com"})).json()["chatId"]
    history = history_pb2_grpc.HistoryServiceStub(channel)
    wanted = history_pb2.Conversation(title="x", source="jane.doe@example.com")
    request = history_pb2.CreateConversationRequest(conversation=wanted)
    made = (await history.CreateConversation(request, metadata=METADATA, timeout=20)).conversation.id
    for chat in (generated, kept, made):
        assert (await http.get(f"/chat/fetch/{chat}")).json()["source"] == "[EMAIL]"
    assert (await http.post("/chat/generate?source=sesame42", json={"chat_history": messages})).status_code == 400
    assert (await http.post("/chat/new", json={"messages": messages, "source": "sesame42"})).status_code == 400


async def test_the_proxies_pass_bytes_through(http: httpx2.AsyncClient, upstream: OddUpstream) -> None:
    """The proxies pass bytes on without reading them, and so without guarding them."""
    upstream.script("odd-leak", [answer({**WHOLE, "note": LEAK})])
    target = upstream.base_url.replace(":", "%3A").replace("/", "%2F")
    response = await http.post(f"/proxy/{target}/sk-x/chat/completions", json=asking("open sesame42"))
    assert response.json()["note"] == LEAK
    assert upstream.requests[-1].json == asking("open sesame42")
