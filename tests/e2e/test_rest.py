"""The REST edge over plain HTTP."""

import asyncio
import json
import re
import time
from typing import Any

import grpc
import httpx2
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from llmock.testing import LLMockServer

from antiphon.config import MAX_MESSAGE_BYTES
from antiphon.v1 import chat_pb2, chat_pb2_grpc, message_pb2, models_pb2, models_pb2_grpc
from tests.e2e.conftest import KEY, Gateway
from tests.odd_upstream import HANG, LAST, OddUpstream, answer, chunk, delta, head, sse
from tests.waiting import until

HELLO = {"model": "echo", "messages": [{"role": "user", "content": "Hello"}]}


async def test_a_stream_comes_piece_by_piece(http: httpx2.AsyncClient) -> None:
    """Each word arrives as soon as the provider sends it."""
    times = []
    async with http.stream("POST", "/chat/completions", json={**HELLO, "stream": True}) as response:
        assert response.headers["content-type"] == "text/event-stream"
        assert response.headers["cache-control"] == "no-cache"
        async for _ in response.aiter_raw():
            times.append(time.monotonic())  # noqa: PERF401  # the time of each piece
    assert len(times) >= 3
    assert times[-1] - times[0] > 0.03


async def test_the_first_delta_does_not_wait_for_the_next(http: httpx2.AsyncClient, upstream: OddUpstream) -> None:
    """A word arrives even if the provider sends nothing after it."""
    gate = asyncio.Event()
    upstream.script("odd-gate", [head(), chunk(sse(delta("Hel"))), gate, chunk(sse(delta("lo", "stop"), "[DONE]")), LAST])
    body = {"model": "odd-gate", "messages": HELLO["messages"], "stream": True}
    async with http.stream("POST", "/chat/completions", json=body) as response:
        text = ""
        async for piece in response.aiter_text():
            text += piece
            if "Hel" in text:
                gate.set()
    assert text.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize(
    ("accept", "stream", "expected"),
    [
        ("application/json", {"stream": True}, "text/event-stream"),
        ("text/event-stream", {}, "text/event-stream"),
        ("text/event-stream", {"stream": False}, "application/json"),
        ("application/json", {}, "application/json"),
        ("text/event-stream", {"stream": None}, "text/event-stream"),
        ("application/json, text/event-stream", {}, "application/json"),
        ("text/event-stream, */*", {}, "application/json"),
        ("Text/Event-Stream; charset=utf-8", {}, "text/event-stream"),
    ],
)
async def test_the_body_decides_what_comes(http: httpx2.AsyncClient, accept: str, stream: Any, expected: str) -> None:
    """`stream` in the body decides the format; `Accept` counts only if the body has no `stream`."""
    response = await http.post("/chat/completions", json={**HELLO, **stream}, headers={"accept": accept})
    assert response.headers["content-type"] == expected


async def test_the_documents_own_example_is_taken(http: httpx2.AsyncClient) -> None:
    """The documented example with every parameter is accepted."""
    body = {
        "model": "echo",
        "messages": [
            {"role": "user", "content": "string", "name": "string", "tool_call_id": "string"},
        ],
        "temperature": 1,
        "top_p": 1,
        "n": 1,
        "stream": False,
        "stop": "string",
        "max_tokens": 0,
        "presence_penalty": 0,
        "frequency_penalty": 0,
        "tools": [{"type": "function", "function": {"name": "string", "description": "string", "parameters": {}}}],
        "tool_choice": "auto",
        "session_id": None,
    }
    assert (await http.post("/chat/completions", json=body)).status_code == 200


async def test_request_ids(http: httpx2.AsyncClient) -> None:
    """Every answer has a request id, and the caller's own id is used if it sends one."""
    mine = await http.post("/chat/completions", json=HELLO, headers={"x-request-id": "mine-1"})
    assert mine.headers["x-request-id"] == "mine-1"
    for response in (await http.get("/models"), await http.get("/nothing"), await http.post("/chat/completions", json={})):
        assert response.headers["x-request-id"]
    assert not [name for name in mine.headers if name.startswith(("grpc-", "x-envoy-", "x-http-status", "server"))]


async def test_one_request_id_everywhere(gateway: Gateway) -> None:
    """The answer, the server's log and Envoy's log have the same request id: the caller's if it is valid, else a new one."""
    host, port = gateway.rest.split(":")
    ids = []
    for sent, kept in (
        ([b"mine-1"], True),
        ([b"!" * 128], True),
        ([b"!" * 129], False),
        ([b"two words"], False),
        (["caf\u00e9".encode()], False),
        ([b"\xff\xfe"], False),
        ([b""], False),
        ([], False),
        ([b"one", b"other"], None),  # joined to one, with a comma between them
    ):
        lines = [b"POST /api/v1/chat/completions HTTP/1.1", b"Host: a", b"Content-Length: 2", b"Connection: close"]
        lines += [b"X-Request-Id: " + value for value in sent]
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"\r\n".join([*lines, b"", b"{}"]))
        answer = (await reader.read()).decode("latin-1")
        writer.close()
        assert answer.startswith("HTTP/1.1 401 ")
        (got,) = [line.partition(": ")[2] for line in answer.split("\r\n") if line.lower().startswith("x-request-id: ")]
        assert re.fullmatch(r"[!-~]{1,128}", got)
        assert kept is None or ([got.encode()] == sent) is kept
        ids.append(got)
    for log in ('"event":"call"', '"logger":"envoy.access"'):

        def logged() -> bool:
            lines = [line for line in gateway.output_text.splitlines() if log in line]  # noqa: B023 - awaited here
            # Not parsed as JSON: two processes write here, and one may write between two halves of the other's line.
            return set(ids) <= {found for line in lines for found in re.findall(r'"request_id":"([^"]*)"', line)}

        await until(logged)  # Envoy writes its log at intervals


@pytest.mark.parametrize(("sent", "kept"), [("mine-2", True), ("two words", False), ("x" * 129, False), ("", False)])
async def test_one_request_id_over_grpc(gateway: Gateway, sent: str, kept: bool) -> None:
    """Over gRPC the request id is in the initial metadata and in the log, directly and through Envoy."""
    for address in (gateway.grpc, gateway.rest):
        async with grpc.aio.insecure_channel(address) as channel:
            stub: Any = models_pb2_grpc.ModelServiceStub(channel)
            metadata = [("authorization", f"Bearer {KEY}"), ("x-request-id", sent)]
            call = stub.ListModels(models_pb2.ListModelsRequest(), metadata=metadata)
            await call
            got = [value for name, value in await call.initial_metadata() if name == "x-request-id"]
            assert len(set(got)) == 1
            assert (got[0] == sent) is kept
            assert f'"request_id":"{got[0]}"' in gateway.output_text


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_the_schemes_case_does_not_matter(gateway: Gateway, scheme: str) -> None:
    """The case of the authorization scheme does not matter."""
    async with gateway.client() as http:
        key = http.headers["authorization"].split()[1]
        assert (await http.get("/models", headers={"authorization": f"{scheme} {key}"})).status_code == 200


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer sk-wrong", "Basic eDp5"])
@pytest.mark.parametrize("body", [b"", b"{", b'{"messages": "wrong"}', json.dumps(HELLO).encode()])
async def test_no_good_key_is_401_whatever_the_body(http: httpx2.AsyncClient, header: str, body: bytes) -> None:
    """Without a valid key the answer is 401, whatever the body."""
    response = await http.post("/chat/completions", content=body, headers={"authorization": header})
    assert response.status_code == 401
    body_json = response.json()
    assert (body_json["error"]["message"], body_json["error"]["type"]) == (body_json["detail"], "authentication_error")
    assert response.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b'{"messages": 7}', b"x" * 100_000])
async def test_a_bad_body_is_422(http: httpx2.AsyncClient, body: bytes) -> None:
    """An invalid body gets 422 with a list of details."""
    response = await http.post("/chat/completions", content=body)
    assert response.status_code == 422
    assert all(set(entry) == {"loc", "msg", "type"} for entry in response.json()["detail"])


async def test_a_large_request_passes_and_a_too_large_one_is_413(http: httpx2.AsyncClient, upstream: OddUpstream) -> None:
    """A body of 20 MiB passes unchanged. Above 32 MiB the answer is 413 in the dialect's format."""
    reply = {"id": "x", "choices": [{"index": 0, "message": {"content": "ok"}, "finish_reason": "stop"}]}
    upstream.script("odd-large", [answer(reply)])
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 20 * 1024 * 1024}}
    body = {"model": "odd-large", "messages": [{"role": "user", "content": [image]}]}
    response = await http.post("/chat/completions", json=body)
    assert response.status_code == 200
    assert upstream.requests[-1].json["messages"][0]["content"] == [image]
    response = await http.post("/chat/completions", content=b" " * (MAX_MESSAGE_BYTES + 1))
    assert response.status_code == 413
    assert set(response.json()) == {"detail", "error"}


@pytest.mark.parametrize(
    ("method", "path", "status", "keys"),
    [
        ("GET", "/nothing", 404, {"detail", "error"}),
        ("POST", "/", 404, {"detail", "error"}),
        ("POST", "/../nothing", 404, {"error", "message", "code"}),
        ("GET", "/chat/nothing/x", 404, {"message"}),
        ("POST", "/ai/nothing", 404, {"error", "message", "code"}),
        ("GET", "/proxy/nothing", 404, {"error"}),
        ("GET", "/chat/completions", 405, {"detail", "error"}),
        ("DELETE", "/chat/completions", 405, {"detail", "error"}),
        ("PATCH", "/chat/completions?a=b", 405, {"detail", "error"}),
        ("DELETE", "/models", 405, {"detail", "error"}),
    ],
)
async def test_unknown_paths_are_answered_in_json(
    http: httpx2.AsyncClient, method: str, path: str, status: int, keys: set[str]
) -> None:
    """An unknown path or a wrong method gets JSON in the format of the path's dialect."""
    response = await http.request(method, path)
    assert (response.status_code, set(response.json())) == (status, keys)


async def test_the_key_of_the_gateway_never_leaves(http: httpx2.AsyncClient, upstream: OddUpstream) -> None:
    """The provider gets its own key, and no headers of the caller."""
    reply = {"id": "x", "choices": [{"index": 0, "message": {"content": "ok"}, "finish_reason": "stop"}]}
    upstream.script("odd-headers", [answer(reply)])
    body = {"model": "odd-headers", "messages": HELLO["messages"]}
    await http.post("/chat/completions", json=body, headers={"x-mine": "1", "cookie": "a=b"})
    headers = upstream.requests[-1].headers
    assert headers["authorization"] == "Bearer sk-provider-secret"
    assert not {"x-mine", "cookie", "x-request-id", "x-forwarded-for"} & set(headers)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_deadline_over_rest_is_504(http: httpx2.AsyncClient, upstream: OddUpstream, stream: bool) -> None:
    """With `grpc-timeout: 1S` and a provider that hangs, the call ends after a second with 504, and so does the provider's call."""
    upstream.script("odd-hang", [HANG])
    while not upstream.left.empty():
        upstream.left.get_nowait()
    start = time.monotonic()
    body = {"model": "odd-hang", "messages": HELLO["messages"], "stream": stream}
    response = await http.post("/chat/completions", json=body, headers={"grpc-timeout": "1S"})
    assert response.status_code == 504
    assert response.json()["error"]["code"] == "deadline_exceeded"
    assert 0.9 < time.monotonic() - start < 1.5
    assert await asyncio.wait_for(upstream.left.get(), 0.5) - start < 1.5


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("answering", [True, False])
async def test_a_caller_that_leaves_ends_the_providers_call(
    gateway: Gateway, upstream: OddUpstream, stream: bool, answering: bool
) -> None:
    """If the caller leaves, the provider's call ends within half a second, streaming or not, before its first byte or after."""
    upstream.script("odd-left", [head(), chunk(sse(delta("Hel"))), HANG] if answering else [HANG])
    while not upstream.left.empty():
        upstream.left.get_nowait()
    before = len(upstream.requests)
    async with gateway.client() as http:
        body = {"model": "odd-left", "messages": HELLO["messages"], "stream": stream}
        task = asyncio.create_task(http.post("/chat/completions", json=body))
        await until(lambda: len(upstream.requests) > before)
        assert (await http.get("/models")).status_code == 200  # after this round trip, the first byte has arrived, if there is one
        task.cancel()
        left = time.monotonic()
    assert await asyncio.wait_for(upstream.left.get(), 2) - left < 0.5


async def test_nothing_is_lost_between_the_sdks_and_llmock(http: httpx2.AsyncClient, llm: LLMockServer) -> None:
    """A conversation of 500 messages reaches the provider unchanged."""
    messages = [{"role": ("user", "assistant")[n % 2], "content": f'{n} \u2028 🎼 \\ " \n'} for n in range(500)]
    assert (await http.post("/chat/completions", json={"model": "gpt-4o", "messages": messages})).status_code == 200
    body = llm.state.journal.records()[-1].body
    assert body is not None
    assert body["messages"] == messages


@pytest.mark.parametrize("value", ["30", "abc", "0S", "-1S", "1x"])
async def test_an_invalid_deadline_is_400(http: httpx2.AsyncClient, value: str) -> None:
    """An invalid deadline gets 400 in the dialect's format, without a retry."""
    response = await http.post("/chat/completions", json=HELLO, headers={"grpc-timeout": value})
    assert (response.status_code, response.headers["x-should-retry"]) == (400, "false")
    assert response.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("name", ["x-foo-bin", "grpc-trace-bin", "grpc-encoding", "x-foo!", "x$f"])
async def test_headers_that_only_grpc_minds_do_no_harm(http: httpx2.AsyncClient, name: str) -> None:
    """Headers that have a meaning only in gRPC are dropped at the edge."""
    response = await http.post("/chat/completions", json=HELLO, headers={name: "%%%"})
    assert response.status_code == 200


@pytest.mark.parametrize("model", ["odd-x ", "odd-x\n", "odd/odd-x ", "odd-\u200bx"])
async def test_an_invalid_model_name_is_refused(model: str, gateway: Gateway, upstream: OddUpstream) -> None:
    """A model name with white space at its ends or invisible characters is refused with its field, and no provider is asked."""
    before = len(upstream.requests)
    wrong = "must have at most 256 characters, none of them non-printable, and no white space at its ends"
    async with gateway.client() as http:
        chat = await http.post("/chat/completions", json={"model": model, "messages": [{"role": "user", "content": "Hi"}]})
        assert (chat.status_code, chat.json()["detail"][0]["loc"]) == (422, ["body", "model"])
        body = {"model": model.removeprefix("odd/"), "chat_input": "Hi"}
        engine = await http.post(f"http://{gateway.rest}/api/engine/chat/odd", json=body)
        assert (engine.status_code, engine.json()["detail"][0]["loc"]) == (422, ["model"])
    async with grpc.aio.insecure_channel(gateway.grpc) as channel:
        message = message_pb2.Message(role="ROLE_USER", blocks=[message_pb2.Block(text=message_pb2.Text(text="Hi"))])
        request = chat_pb2.GenerateRequest(model=model, messages=[message])
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await chat_pb2_grpc.ChatServiceStub(channel).Generate(request, metadata=[("authorization", f"Bearer {KEY}")])
    status = rpc_status.from_call(caught.value)
    assert status is not None
    found = error_details_pb2.BadRequest()
    assert any(packed.Unpack(found) for packed in status.details)
    assert [(violation.field, violation.description) for violation in found.field_violations] == [("model", wrong)]
    assert len(upstream.requests) == before


@pytest.mark.parametrize("values", [(KEY, KEY), (KEY, "sk-other"), ("sk-other", KEY)])
async def test_two_authorization_headers_are_401(values: tuple[str, str], gateway: Gateway) -> None:
    """Two authorization headers get 401, whichever of them is valid, through the edge and at the server's own port."""
    headers = [("authorization", f"Bearer {value}") for value in values]
    async with httpx2.AsyncClient(base_url=gateway.url, trust_env=False) as bare:
        response = await bare.post("/chat/completions", json=HELLO, headers=headers)
    assert response.status_code == 401
    for address in (gateway.grpc, gateway.rest):
        async with grpc.aio.insecure_channel(address) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await models_pb2_grpc.ModelServiceStub(channel).ListModels(models_pb2.ListModelsRequest(), metadata=headers)
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
