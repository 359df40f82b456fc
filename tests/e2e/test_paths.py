"""Paths through the real Envoy: nothing in query or body overrides a path, and a path can be read in only one way."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import subprocess
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import httpx2
import pytest
import pytest_asyncio
from google.api.httpbody_pb2 import HttpBody
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from antiphon.config import RestConfig
from antiphon.edge import files as edge
from antiphon.rest.openapi import document as openapi
from antiphon.rest.registry import DIALECTS as ROWS
from antiphon.rest.shared.paths import bindings
from antiphon.up import readiness
from antiphon.v1 import chat_pb2, message_pb2
from tests.e2e.conftest import KEY, Gateway
from tests.e2e.wire import DATA, DIALECTS, END_HEADERS, END_STREAM, HEADERS, ask, frame, http2, post
from tests.ports import free_port
from tests.waiting import until

CHAT = "/api/v1/chat/completions"
HELLO = message_pb2.Message(role="ROLE_USER", blocks=[message_pb2.Block(text=message_pb2.Text(text="Hello"))])
ASK = {"model": "echo", "messages": [{"role": "user", "content": "Hello"}]}
GET = "GET {} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\nconnection: close\r\n{}\r\n"
VARIABLE = re.compile(r"\{(\w+)(?:=[^}]*)?\}")

RULES = {
    f"{verb.upper()} {path}": (method, verb.upper(), path)
    for dialect in ROWS
    for method in dialect.service.methods
    for verb, path in bindings(method)
}
"""Every HTTP rule of the protos, including those of future dialects."""


class RecordingHandler(grpc.GenericRpcHandler):
    """Answers every call, and keeps the method and the message of the last one."""

    def __init__(self) -> None:
        self.method = ""
        self.message = b""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """Return a handler for every method except health checks."""

        async def answer(request: bytes, _: Any) -> AsyncIterator[bytes]:
            self.method, self.message = handler_call_details.method, request
            yield HttpBody(content_type="application/json", data=b"{}").SerializeToString()

        return None if handler_call_details.method.startswith("/grpc.health.") else grpc.unary_stream_rpc_method_handler(answer)


class Recorder:
    """Envoy in front of a server that only records calls."""

    def __init__(self, handler: RecordingHandler, http: httpx2.AsyncClient) -> None:
        self.handler = handler
        self.http = http


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def recorder(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Recorder, None]:
    folder = tmp_path_factory.mktemp("recorder")
    address = f"127.0.0.1:{free_port()}"
    edge.prepare(folder, RestConfig(listen=address), [readiness.worker_socket(0)])
    handler = RecordingHandler()
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((handler,))
    healthy = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(healthy, server)
    server.add_insecure_port(f"unix:{folder / readiness.worker_socket(0)}")
    await server.start()
    await healthy.set("", health_pb2.HealthCheckResponse.SERVING)
    with Path(folder / "output.txt").open("wb") as output:
        envoy = await asyncio.create_subprocess_exec(*edge.command(1), cwd=folder, stdout=output, stderr=subprocess.STDOUT)
    try:

        async def ready() -> bool:
            return not await asyncio.to_thread(readiness.missing, folder, 1)

        await until(ready)
        async with httpx2.AsyncClient(base_url=f"http://{address}", timeout=20, trust_env=False) as http:
            yield Recorder(handler, http)
    finally:
        envoy.terminate()
        await envoy.wait()
        await server.stop(0)


def texts(method: MethodDescriptor) -> list[FieldDescriptor]:
    """Return the text fields of a request."""
    return [field for field in method.input_type.fields if field.type == FieldDescriptor.TYPE_STRING]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("spelling", ["name", "json_name"])
async def test_nothing_overrides_what_the_path_says(recorder: Recorder, rule: str, spelling: str) -> None:
    """Neither query nor body overrides a field of the path, in either spelling. Documented query parameters arrive."""
    method, verb, path = RULES[rule]
    others = {getattr(field, spelling): "other" for field in texts(method)}
    params = {**others, "body.data": "b3RoZXI=", "body.contentType": "other"}
    response = await recorder.http.request(verb, VARIABLE.sub("own", path), params=params, json={**others, "body": others})
    assert response.status_code == 200, response.text
    assert recorder.handler.method == f"/{method.containing_service.full_name}/{method.name}"
    found: Any = GetMessageClass(method.input_type).FromString(recorder.handler.message)
    own = set(VARIABLE.findall(path))
    queried = {each["name"] for each in openapi.document()["paths"][_documented(path, method)][verb.lower()]["parameters"]}
    for field in texts(method):
        if field.name in own:
            assert getattr(found, field.name) == "own"
        else:
            assert getattr(found, field.name) == ("other" if field.json_name in queried else "")
    if method.input_type.fields_by_name.get("body") is not None:
        assert (json.loads(found.body.data), found.body.content_type) == ({**others, "body": others}, "application/json")


def _documented(path: str, method: MethodDescriptor) -> str:
    return VARIABLE.sub(lambda found: f"{{{method.input_type.fields_by_name[found[1]].json_name}}}", path)


@pytest.mark.parametrize("rule", RULES)
async def test_a_body_is_one_field_or_none(recorder: Recorder, rule: str) -> None:
    """POST, PUT and PATCH have their body unchanged in `body`. For other methods it is dropped, not read as fields."""
    method, verb, path = RULES[rule]
    assert (verb in {"POST", "PUT", "PATCH"}) == ("body" in method.input_type.fields_by_name)
    for content, content_type in ((b"{bad", "application/json"), (b"a=1", "application/x-www-form-urlencoded")):
        response = await recorder.http.request(
            verb, VARIABLE.sub("own", path), content=content, headers={"content-type": content_type}
        )
        assert response.status_code == 200, response.text
        found: Any = GetMessageClass(method.input_type).FromString(recorder.handler.message)
        assert verb in {"GET", "DELETE"} or found.body.data == content


async def test_the_chat_of_the_path_is_deleted(http: httpx2.AsyncClient) -> None:
    """DELETE removes the chat in the path, not one that query or body name."""
    new = {"messages": ASK["messages"]}
    for more in ({"params": {"chatId": ""}}, {"params": {"chat_id": ""}}, {"json": {"chat_id": ""}}):
        named, other = [(await http.post("/chat/new", json=new)).json()["chatId"] for _ in range(2)]
        ((place, fields),) = more.items()
        pointing: dict[str, Any] = {place: dict.fromkeys(fields, other)}
        response = await http.request("DELETE", f"/chat/{named}", **pointing)
        assert response.json() == {"chatId": named, "deleted": True}
        assert [(await http.get(f"/chat/fetch/{chat}")).status_code for chat in (named, other)] == [404, 200]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_body_where_none_belongs_is_ignored(http: httpx2.AsyncClient, method: str) -> None:
    """A body of GET or HEAD is ignored, chunked too. Without a key the answer is still 401."""

    async def pieces() -> AsyncIterator[bytes]:
        yield b"{b"
        yield b"ad"

    for content in (b"{bad", pieces()):
        assert (await http.request(method, "/chat/history", content=content)).status_code == 200
    refused = await http.request(method, "/chat/history", content=b"{bad", headers={"authorization": ""})
    assert refused.status_code == 401


def test_every_shape_of_errors_has_a_path_here() -> None:
    """`DIALECTS` has a path for every error format, so that tests of refusals cover them all."""
    for row in ROWS:
        for shape in {id(shape): shape for shape in map(row.errors_of, row.methods)}.values():
            fields = [DIALECTS[path] for path in DIALECTS if re.fullmatch(shape.paths, path)]
            assert set(shape.refusal(500, "")) in fields, f"tests/e2e/wire.py: add a path of the shape {shape.name} to DIALECTS"


@pytest.mark.parametrize("path", DIALECTS)
@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "x-unknown", "gzip, identity"])
async def test_a_body_with_an_encoding_is_415(gateway: Gateway, path: str, encoding: str) -> None:
    """An encoded body gets 415 in the dialect's format, with the accepted encoding and no retry (RFC 9110, section 15.5.16)."""
    headers = {"authorization": f"Bearer {KEY}", "content-encoding": encoding, "connection": "close"}
    (answer,) = await ask(gateway.rest, post(path, b"\x1f\x8b", headers))
    assert (answer.status, set(json.loads(answer.body))) == (415, DIALECTS[path])
    assert (answer.headers["accept-encoding"], answer.headers["x-should-retry"]) == ("identity", "false")
    assert b"content-encoding" in answer.body


@pytest.mark.parametrize("encoding", ["identity", "Identity", ""])
async def test_the_encoding_identity_is_accepted(http: httpx2.AsyncClient, encoding: str) -> None:
    """The encoding `identity`, or an empty one, is accepted."""
    response = await http.post("/chat/completions", json=ASK, headers={"content-encoding": encoding})
    assert response.status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/api\\v1\\models",
        "/api/v1/chat\\history",
        "/api/v1\\proxy/default/sk-x/chat/completions",
        "/api/v1/chat/fetch/%00",
        "/api/v1/x/../models",
        "/api/v1/./models",
        "/api/v1/%2E%2e/v1/models",
        "/api/v1/models/..",
    ],
)
async def test_a_path_that_can_be_read_in_two_ways_is_400(gateway: Gateway, path: str) -> None:
    """An ambiguous path gets 400, so that a proxy in front of the gateway sees the same path."""
    (answer,) = await ask(gateway.rest, GET.format(path, KEY, "").encode())
    assert answer.status == 400, answer
    assert answer.headers["x-request-id"]
    assert json.loads(answer.body)


@pytest.mark.parametrize("model", [".hidden", "a..b", "...", "a%2Fb", "%2e%2e%2ex"])
async def test_dots_and_slashes_in_a_name_are_the_names(http: httpx2.AsyncClient, model: str) -> None:
    """Dots and encoded slashes in a name are part of it; only "." and ".." alone are special."""
    assert (await http.get(f"/models/{model}")).status_code == 404


async def test_two_hosts_are_400(gateway: Gateway) -> None:
    """Two host headers get 400 (RFC 9112, section 3.2)."""
    (answer,) = await ask(gateway.rest, GET.format("/api/v1/models", KEY, "host: y\r\n").encode())
    assert answer.status == 400, answer


async def test_an_immediate_refusal_has_a_request_id(gateway: Gateway) -> None:
    """A request that is refused immediately has a request id too, which is also in the log."""
    heads = [
        "GET /api/v1/models HTTP/1.1\r\n\r\n",
        "GET nowhere HTTP/1.1\r\nhost: x\r\n\r\n",
        "GET /\x01 HTTP/1.1\r\nhost: x\r\n\r\n",
        "GET /health HTTP/1.1\r\nhost: x\r\nx-large: " + "x" * 300_000 + "\r\n\r\n",
        "\x16\x03\x01\r\n\r\n",
    ]
    answers = [found[0] for found in await asyncio.gather(*(ask(gateway.rest, head.encode()) for head in heads))]
    assert {answer.status for answer in answers} == {400, 431}
    names = {answer.headers["x-request-id"] for answer in answers}
    assert len(names) == len(heads)
    await until(lambda: all(name in gateway.output_text for name in names))  # Envoy writes its log at intervals


async def test_a_header_that_is_not_valid_costs_its_own_stream(gateway: Gateway) -> None:
    """An invalid header ends only its own stream of the connection."""
    async with http2(gateway.rest) as caller:
        bad = caller.request("/health") + b"\0\x05X bad\x01x"
        await caller.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, bad))
        await caller.send(frame(HEADERS, END_HEADERS | END_STREAM, 3, caller.request("/health")))
        assert b"healthy" in await caller.answer(3)


@pytest.mark.parametrize("content_type", ["application/grpc", "application/grpc+proto", "application/grpc; charset=utf-8"])
async def test_a_grpc_call_passes_whatever_name_its_format_has(gateway: Gateway, content_type: str) -> None:
    """All spellings of gRPC's content type are accepted, with compression and metadata."""
    message = gzip.compress(chat_pb2.GenerateRequest(model="echo", messages=[HELLO]).SerializeToString())
    async with http2(gateway.rest) as caller:
        head = caller.request(
            "/antiphon.v1.ChatService/Generate",
            "POST",
            content_type=content_type,
            te="trailers",
            grpc_encoding="gzip",
            authorization=f"Bearer {KEY}",
        )
        await caller.send(frame(HEADERS, END_HEADERS, 1, head), frame(DATA, END_STREAM, 1, grpc_message(message, compressed=True)))
        answer = await caller.answer(1)
    reply = chat_pb2.GenerateResponse.FromString(answer[5:])
    assert reply.choices[0].message.blocks[0].text.text == "You said: Hello"


def grpc_message(data: bytes, *, compressed: bool) -> bytes:
    """Frame a message as gRPC does."""
    return bytes([compressed]) + len(data).to_bytes(4, "big") + data


async def test_two_identity_encodings_are_accepted(gateway: Gateway) -> None:
    """Two `identity` headers, which Envoy joins, are accepted."""
    body = b'{"chat_history": [{"role": "user", "content": "Hello"}]}'
    lines = [
        "POST /api/v1/chat HTTP/1.1",
        "host: x",
        f"authorization: Bearer {KEY}",
        "content-type: application/json",
        "content-encoding: identity",
        "content-encoding: identity",
        f"content-length: {len(body)}",
        "connection: close",
    ]
    (answer,) = await ask(gateway.rest, ("\r\n".join(lines) + "\r\n\r\n").encode() + body)
    assert answer.status in {200, 201}, answer


async def test_a_400_of_the_edge_has_details_where_the_dialect_has_them(http: httpx2.AsyncClient) -> None:
    """A 400 of the edge has `details` in the dialect that has them, like the server's own."""
    answer = await http.post("/ai/chat", headers={"grpc-timeout": "30"}, json={})
    assert (answer.status_code, set(answer.json()), answer.json()["details"]) == (400, {"error", "message", "code", "details"}, [])


AT_FAULT = (
    ("", "grpc-timeout: 30\r\n", "The header grpc-timeout must be a whole number and a unit, as in 30S."),
    ("", "host: y\r\n", "There must be one host."),
    ("/\\", "", "The path must have no backslash, dot segment or NUL."),
)


@pytest.mark.parametrize(
    "path",
    [
        CHAT,
        "/api/v1/chat",
        "/api/v1/ai/chat",
        "/api/engine/chat/echo",
        "/api/v1/proxy/default/sk-x/chat/completions",
        "/api/v1/proxy/g/v1beta/models/m:generateContent",
        "/",
    ],
)
async def test_a_400_of_the_edge_explains_what_is_wrong(gateway: Gateway, path: str) -> None:
    """A 400 of the edge explains what is wrong, in the same words in every dialect's format."""
    requests = [GET.format(path + more, KEY, line).encode() for more, line, _ in AT_FAULT]
    answers = await asyncio.gather(*(ask(gateway.rest, request) for request in requests))
    for (answer,), (_, _, words) in zip(answers, AT_FAULT, strict=True):
        error = json.loads(answer.body)
        assert answer.status == 400, answer
        assert (error.get("message") or error.get("detail") or error["error"]["message"]) == words


async def test_a_400_of_the_edge_is_explained_over_grpc_too(gateway: Gateway) -> None:
    """A gRPC caller gets the same explanation as the message of its status."""
    async with grpc.aio.insecure_channel(gateway.rest) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await channel.unary_unary("/antiphon.v1.ChatService/../Generate")(b"")
    assert (failed.value.code(), failed.value.details()) == (grpc.StatusCode.INTERNAL, AT_FAULT[2][2])
