"""Tests of Envoy's files, and of a real Envoy in front of a server that does what each request says."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
import yaml
from google.api.httpbody_pb2 import HttpBody
from google.protobuf import descriptor_pb2
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc
from yarl import URL

from antiphon.config import MAX_KEYLESS_BYTES, MAX_MESSAGE_BYTES, RestConfig
from antiphon.edge import files as edge
from antiphon.edge.endpoints import endpoints_text
from antiphon.rest.v1 import assistant_pb2, assistant_pb2_grpc, openai_pb2, openai_pb2_grpc
from antiphon.up import readiness
from antiphon.up.admin import ADMIN_SOCKET, ask, turn_unready
from tests.ports import free_port
from tests.waiting import until

CHAT = "/api/v1/chat/completions"
GRPC_HEADERS = {"grpc-status", "grpc-message", "grpc-status-details-bin", "grpc-encoding", "grpc-accept-encoding"}


class Obedient(openai_pb2_grpc.OpenAIServiceServicer):
    """A servicer that does what the body's field `do` says.

    It keeps the metadata of the last call and the number of calls, and notes a cancelled one.
    """

    def __init__(self) -> None:
        self.metadata: dict[str, str | bytes] = {}
        self.remaining: float | None = None
        self.calls = 0
        self.cancelled = asyncio.Event()
        self.go_on = asyncio.Event()

    async def CreateChatCompletion(
        self, request: openai_pb2.CreateChatCompletionRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[HttpBody]:
        self.calls += 1
        self.metadata = dict(context.invocation_metadata() or ())
        self.remaining = context.time_remaining()
        body = request.body.data
        match json.loads(body).get("do") if len(body) < 1000 else None:
            case "status":
                head = ("application/json; charset=utf-8", "x-http-status:422", "retry-after:7", "x-when:12:00, always", "x-none:")
                yield HttpBody(content_type="\t".join(head), data=b'{"detail": []}')
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "not for REST")
            case "details":
                detail = AnyMessage()
                detail.Pack(error_details_pb2.ErrorInfo(reason="NONE", domain="antiphon"))
                status = status_pb2.Status(code=5, message="none", details=[detail])
                context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
                await context.abort(grpc.StatusCode.NOT_FOUND, "none")
            case "stream":
                yield HttpBody(content_type="text/event-stream", data=b"data: 1\n\n")
                await self.go_on.wait()
                yield HttpBody(data=b"data: [DONE]\n\n")
            case "late":
                yield HttpBody(content_type="text/event-stream", data=b"data: 1\n\n")
                await context.abort(grpc.StatusCode.INTERNAL, "not for REST")
            case "hang":
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    self.cancelled.set()
                    raise
            case _:
                yield HttpBody(content_type="application/json", data=json.dumps({"bytes": len(body)}).encode())

    async def ListModels(
        self, request: openai_pb2.ListModelsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[HttpBody]:
        yield HttpBody(content_type="application/json", data=b"{}")

    async def GetModel(
        self, request: openai_pb2.GetModelRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[HttpBody]:
        yield HttpBody(content_type="application/json", data=json.dumps(request.model).encode())


class Titles(assistant_pb2_grpc.AssistantServiceServicer):
    """A servicer that answers with the title of the request."""

    async def Generate(
        self, request: assistant_pb2.GenerateRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[HttpBody]:
        yield HttpBody(content_type="application/json", data=json.dumps(request.title).encode())


class Worker:
    """A gRPC server on a unix socket, in this process."""

    def __init__(self, folder: Path, number: int) -> None:
        self.servicer = Obedient()
        self.health = health.aio.HealthServicer()
        options = [("grpc.max_receive_message_length", MAX_MESSAGE_BYTES), ("grpc.max_send_message_length", MAX_MESSAGE_BYTES)]
        self.server = grpc.aio.server(options=options)
        openai_pb2_grpc.add_OpenAIServiceServicer_to_server(self.servicer, self.server)  # type: ignore[no-untyped-call, unused-ignore]
        assistant_pb2_grpc.add_AssistantServiceServicer_to_server(Titles(), self.server)  # type: ignore[no-untyped-call, unused-ignore]
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self.server)
        reflection.enable_server_reflection([health.SERVICE_NAME], self.server)
        self.server.add_insecure_port(f"unix:{folder / readiness.worker_socket(number)}")

    async def serve(self, status: int = health_pb2.HealthCheckResponse.SERVING) -> None:
        await self.health.set("", status)


class Edge:
    """An Envoy in front of workers, with an HTTP client for it."""

    def __init__(self, folder: Path, port: int, workers: list[Worker], http: aiohttp.ClientSession) -> None:
        self.folder = folder
        self.port = port
        self.workers = workers
        self.http = http

    @property
    def servicer(self) -> Obedient:
        return self.workers[0].servicer

    def chat(self, do: str = "", **headers: str) -> Any:
        """Send a chat request that says `do`. Return aiohttp's request context. Underscores in header names stand for hyphens."""
        named = {"Content-Type": "application/json", **{name.replace("_", "-"): value for name, value in headers.items()}}
        return self.http.post(CHAT, data=json.dumps({"do": do}), headers=named)


@contextlib.asynccontextmanager
async def running(folder: Path, count: int) -> AsyncIterator[Edge]:
    port = free_port()
    edge.prepare(folder, RestConfig(listen=f"127.0.0.1:{port}"), [readiness.worker_socket(number) for number in range(count)])
    workers = [Worker(folder, number) for number in range(count)]
    for worker in workers:
        await worker.server.start()
        await worker.serve()
    envoy = await asyncio.create_subprocess_exec(*edge.command(1), cwd=folder, stdout=asyncio.subprocess.DEVNULL)
    try:
        await until(lambda: _serves(folder, count))
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}", timeout=aiohttp.ClientTimeout(total=20)) as http:
            yield Edge(folder, port, workers, http)
    finally:
        envoy.terminate()
        await envoy.wait()
        for worker in workers:
            await worker.server.stop(0)


async def _serves(folder: Path, count: int) -> bool:
    return not await asyncio.to_thread(readiness.missing, folder, count)


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Edge]:
    async with running(tmp_path, 1) as one:
        yield one


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Edge]:
    async with running(tmp_path, 2) as two:
        yield two


# The files


def test_only_address_and_endpoints_are_of_this_machine(tmp_path: Path) -> None:
    """The files are copies of those in `gateway/`, but for the address and the endpoints."""
    edge.prepare(tmp_path, RestConfig(listen="127.0.0.1:9000"), ["worker-0.sock"])
    assert sorted(entry.name for entry in tmp_path.iterdir()) == sorted(edge.FILES)
    source = edge.gateway_files()
    for name in set(edge.FILES) - {"listeners.yaml", "endpoints.yaml"}:
        assert (tmp_path / name).read_bytes() == (source / name).read_bytes()
    kept, made = (yaml.safe_load((root / "listeners.yaml").read_text()) for root in (source, tmp_path))
    assert made["resources"][0].pop("address") == {"socket_address": {"address": "127.0.0.1", "port_value": 9000}}
    del kept["resources"][0]["address"]
    assert made == kept


def test_every_worker_is_an_endpoint() -> None:
    """Each worker's socket is an endpoint of the cluster, with a path relative to Envoy's folder."""
    (assignment,) = yaml.safe_load(endpoints_text(["worker-0.sock", "worker-1.sock"]))["resources"]
    (group,) = assignment["endpoints"]
    paths = [entry["endpoint"]["address"]["pipe"]["path"] for entry in group["lb_endpoints"]]
    assert (assignment["cluster_name"], paths) == ("antiphon", ["./worker-0.sock", "./worker-1.sock"])


@pytest.mark.parametrize(
    ("listen", "address"),
    [
        ("127.0.0.1:1", {"address": "127.0.0.1", "port_value": 1}),
        ("0.0.0.0:8080", {"address": "0.0.0.0", "port_value": 8080}),
        ("localhost:65535", {"address": "127.0.0.1", "port_value": 65535}),
        ("[::1]:8080", {"address": "::1", "port_value": 8080}),
        ("[::]:8080", {"address": "::", "port_value": 8080, "ipv4_compat": True}),
    ],
)
def test_an_address_becomes_envoys(listen: str, address: dict[str, Any]) -> None:
    """An address is converted to Envoy's form, with a numeric host. All of IPv6 accepts IPv4 as well."""
    assert edge.socket_address(listen) == address


@pytest.mark.parametrize("endpoints", ["default", "sockets"])
def test_envoy_accepts_the_files(tmp_path: Path, endpoints: str) -> None:
    """Envoy finds the listener and the cluster valid.

    They are put into the bootstrap file, because Envoy's validation reads no other.
    """
    edge.prepare(tmp_path, RestConfig(listen="0.0.0.0:8080"), ["worker-0.sock"])
    if endpoints == "default":
        (tmp_path / "endpoints.yaml").write_bytes((edge.gateway_files() / "endpoints.yaml").read_bytes())
    bootstrap = yaml.safe_load((tmp_path / "bootstrap.yaml").read_text())
    del bootstrap["dynamic_resources"]
    bootstrap["static_resources"] = {
        kind: [
            {name: value for name, value in resource.items() if name != "@type"}
            for resource in yaml.safe_load((tmp_path / f"{kind}.yaml").read_text())["resources"]
        ]
        for kind in ("listeners", "clusters")
    }
    (tmp_path / "bootstrap.yaml").write_text(yaml.safe_dump(bootstrap))
    done = subprocess.run([*edge.command(1), "--mode", "validate"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr


def test_the_figures_are_those_of_the_server() -> None:
    """Envoy's files have the server's limits for the largest body, and for the largest body without a key in the headers."""
    transcoder = _transcoder()
    assert transcoder["max_request_body_size"] == transcoder["max_response_body_size"] == MAX_MESSAGE_BYTES
    files = edge.gateway_files()
    (listener,) = yaml.safe_load((files / "listeners.yaml").read_text())["resources"]
    assert listener["per_connection_buffer_limit_bytes"] == MAX_KEYLESS_BYTES
    script = (files / "status.lua").read_text()
    assert f"WITH_KEY = {MAX_KEYLESS_BYTES // 1024} * 1024" in script
    assert f"more than {MAX_KEYLESS_BYTES // 1024} KiB" in script


def test_every_rest_service_is_transcoded() -> None:
    """Every REST service of the protos is transcoded, has a route named for the log, and a mapper for its errors."""
    files = descriptor_pb2.FileDescriptorSet.FromString((edge.gateway_files() / "antiphon.pb").read_bytes())
    services = [f"{file.package}.{service.name}" for file in files.file for service in file.service]
    dialects = sorted(name for name in services if name.startswith("antiphon.rest."))
    assert sorted(_transcoder()["services"]) == dialects
    manager = _manager()
    (host,) = manager["route_config"]["virtual_hosts"]
    prefixes = {route["match"]["prefix"] for route in host["routes"] if route["name"] != "grpc"}
    assert prefixes == {f"/{name}/" for name in dialects}
    assert all(f"/{name}/" in json.dumps(manager["local_reply_config"]) for name in dialects)


def _manager() -> dict[str, Any]:
    (listener,) = yaml.safe_load((edge.gateway_files() / "listeners.yaml").read_text())["resources"]
    manager: dict[str, Any] = listener["filter_chains"][0]["filters"][0]["typed_config"]
    return manager


def _transcoder() -> dict[str, Any]:
    filters = {entry["name"]: entry["typed_config"] for entry in _manager()["http_filters"]}
    transcoder: dict[str, Any] = filters["envoy.filters.http.grpc_json_transcoder"]
    return transcoder


# REST


async def test_a_server_names_any_status(gateway: Edge) -> None:
    """The headers behind the content type become headers, and the one named `x-http-status` the HTTP status.

    Headers that only gRPC needs are removed.
    """
    async with gateway.chat("status") as answer:
        assert (answer.status, await answer.json()) == (422, {"detail": []})
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    assert [answer.headers[name] for name in ("retry-after", "x-when", "x-none")] == ["7", "12:00, always", ""]
    assert not {name.lower() for name in answer.headers} & {
        *GRPC_HEADERS,
        "x-http-status",
        "server",
        "x-envoy-upstream-service-time",
    }


async def test_a_status_without_a_body_is_json(gateway: Edge) -> None:
    """An abort before the first message becomes the JSON of its google.rpc.Status with the details."""
    async with gateway.chat("details") as answer:
        body = await answer.json()
    assert (answer.status, body["code"], body["message"], body["details"][0]["reason"]) == (404, 5, "none", "NONE")
    assert not {name.lower() for name in answer.headers} & GRPC_HEADERS


async def test_messages_are_flushed_as_they_come(gateway: Edge) -> None:
    """The first event arrives while the server still waits before the second."""
    async with gateway.chat("stream") as answer:
        assert answer.headers["content-type"] == "text/event-stream"
        assert await answer.content.readany() == b"data: 1\n\n"
        gateway.servicer.go_on.set()
        assert await answer.content.read() == b"data: [DONE]\n\n"


async def test_http2_callers_get_no_grpc_trailers(gateway: Edge) -> None:
    """A late gRPC status is not sent to HTTP/2 callers as trailers.

    The test writes HTTP/2 frames itself, because no client is installed.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)

    def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
        return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload

    fields = {":method": "POST", ":path": CHAT, ":scheme": "http", ":authority": "x", "content-type": "application/json"}
    headers = b"".join(b"\0" + bytes([len(n)]) + n.encode() + bytes([len(v)]) + v.encode() for n, v in fields.items())
    writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"") + frame(1, 4, 1, headers))
    writer.write(frame(0, 1, 1, b'{"do": "late"}'))
    kinds = []
    ended = False
    while not ended:
        head = await reader.readexactly(9)
        await reader.readexactly(int.from_bytes(head[:3], "big"))
        if int.from_bytes(head[5:], "big") == 1:
            kinds.append(head[3])
            ended = bool(head[4] & 1)
    writer.close()
    assert kinds[0] == 1
    assert set(kinds[1:]) == {0}, "one frame of headers, then only data"


async def test_a_caller_that_goes_away_ends_the_call(gateway: Edge) -> None:
    """If the caller closes its connection, the server's call is cancelled at once."""
    request = asyncio.create_task(gateway.http.post(CHAT, data='{"do": "hang"}'))

    async def called() -> int:
        return gateway.servicer.calls

    await until(called)
    request.cancel()
    async with asyncio.timeout(2):
        await gateway.servicer.cancelled.wait()


async def test_request_ids(gateway: Edge) -> None:
    """A caller's request id is kept, passed to the server and returned; a call without one gets a new id."""
    async with gateway.chat(x_request_id="mine:1/2") as answer:
        assert answer.headers["x-request-id"] == "mine:1/2" == gateway.servicer.metadata["x-request-id"]
    async with gateway.chat() as answer:
        assert answer.headers["x-request-id"] == gateway.servicer.metadata["x-request-id"] != ""


@pytest.mark.parametrize(("sent", "kept"), [("a b\tc", "a_b_c"), ("é", "__"), ("x" * 300, "x" * 128), ("y" * 128, "y" * 128)])
async def test_a_request_id_is_made_valid(sent: str, kept: str, gateway: Edge) -> None:
    """What is not visible ASCII in a caller's request id becomes `_`, and what is too long is cut."""
    async with gateway.chat(x_request_id=sent) as answer:
        assert answer.headers["x-request-id"] == kept == gateway.servicer.metadata["x-request-id"]


async def test_an_empty_request_id_is_replaced(gateway: Edge) -> None:
    """A caller that sends an empty id gets one, as if it had sent none."""
    async with gateway.chat(x_request_id="") as first, gateway.chat(x_request_id="") as second:
        ids = {first.headers["x-request-id"], second.headers["x-request-id"], ""}
    assert len(ids) == 3


async def test_what_the_server_learns_of_the_caller(gateway: Edge) -> None:
    """REST headers become metadata. Envoy's own headers are not passed on."""
    async with gateway.chat(accept="text/event-stream", x_forwarded_for="203.0.113.9"):
        metadata = gateway.servicer.metadata
    assert metadata["accept"] == "text/event-stream"
    assert str(metadata["x-forwarded-for"]).startswith("203.0.113.9,")
    assert not [name for name in metadata if name.startswith("x-envoy-")]
    assert metadata["x-antiphon-edge"] == "1"


async def test_a_rest_callers_deadline_is_not_that_of_grpc(gateway: Edge) -> None:
    """The server gets a REST caller's `grpc-timeout` as a header of the edge. A caller cannot send that header itself."""
    async with gateway.chat(grpc_timeout="5S", x_antiphon_timeout="9S"):
        metadata = gateway.servicer.metadata
    assert (metadata["x-antiphon-timeout"], gateway.servicer.remaining) == ("5S", None)
    async with gateway.chat(x_antiphon_timeout="9S"):
        assert "x-antiphon-timeout" not in gateway.servicer.metadata


async def test_headers_that_grpc_would_refuse_are_dropped_however_many_names_there_were(gateway: Edge) -> None:
    """1,000 names are remembered, and no long ones. What is dropped does not depend on which names came before."""
    wrong = {"grpc-own": "1", "x-own-bin": "1", "x!y": "1", f"{'x' * 80}-bin": "1"}
    right = {"grpc-tag": "1", "x.y": "1", "x_y": "1", f"{'x' * 80}": "1"}
    for turn in range(15):
        others = {f"x-{turn}-{number}{'-bin' if number % 2 else ''}": "1" for number in range(80)}
        headers = {"content-type": "application/json", **wrong, **right, **others}
        async with gateway.http.post(CHAT, data="{}", headers=headers) as answer:
            assert answer.status == 200
        kept = {name for name in others if not name.endswith("-bin")} | right.keys()
        assert gateway.servicer.metadata.keys() & headers.keys() - {"content-type"} == kept


@pytest.mark.parametrize("coding", ["identity, gzip", "br"])
async def test_one_of_two_codings_is_refused(gateway: Edge, coding: str) -> None:
    """A header that is there twice counts as a whole."""
    headers = (("content-type", "application/json"), ("content-encoding", "identity"), ("content-encoding", coding))
    async with gateway.http.post(CHAT, data="{}", headers=headers) as answer:
        assert answer.status == 415
    async with gateway.http.post(CHAT, data="{}", headers=headers[:2] * 2) as answer:
        assert answer.status == 200


async def test_names_of_models_may_hold_slashes(gateway: Edge) -> None:
    """Plain and percent-encoded slashes in a model's name both arrive as slashes."""
    async with gateway.http.get(URL("/api/v1/models/a/b%2Fc?x=1", encoded=True)) as answer:
        assert await answer.json() == "a/b/c"


async def test_a_plus_in_a_query_is_a_space(gateway: Edge) -> None:
    """A plus in a query is read as a space, and `%2B` as a plus."""
    path = URL("/api/v1/chat/generate?title=My+first%20chat+1%2B1", encoded=True)
    async with gateway.http.post(path, data="{}", headers={"Content-Type": "application/json"}) as answer:
        assert await answer.json() == "My first chat 1+1"


# Errors of Envoy itself


@pytest.mark.parametrize(
    ("method", "path", "status", "error"),
    [
        ("GET", "/", 404, "Not Found"),
        ("GET", "/api/v2/nothing", 404, "Not Found"),
        ("GET", "/v1beta/models", 404, "Not Found"),
        ("GET", "/api/v1/nothing", 404, None),
        ("POST", "/api/v1/embeddings", 404, None),
        ("POST", "/v1/responses?a=b", 404, None),
        ("POST", "/v1/messages", 404, None),
        ("GET", "/v1", 404, None),
        ("GET", "/v1/chat/completions", 405, None),
        ("POST", "/v1/models/a/b", 405, None),
        ("POST", "/antiphon.rest.v1.OpenAIService/CreateChatCompletion", 404, None),
        ("GET", CHAT, 405, None),
        ("POST", "/api/v1/models?x=1", 405, None),
        ("DELETE", "/api/v1/models/a/b", 405, None),
        ("GET", CHAT + "/x", 404, None),
    ],
)
async def test_refusals_have_the_shape_of_their_dialect(
    gateway: Edge, method: str, path: str, status: int, error: str | None
) -> None:
    """Envoy's own errors have the shape of the dialect.

    With `error` None that is OpenAI's; other paths have error, message and code.
    """
    async with gateway.http.request(method, path) as answer:
        body = await answer.json()
    assert answer.status == status
    assert answer.headers["x-should-retry"] == "false"
    assert answer.headers["x-request-id"]
    assert ("allow" in answer.headers) == (status == 405)
    if error:
        assert body == {"error": error, "message": "There is nothing at this path.", "code": status}
    else:
        detail = body["detail"]
        assert detail
        assert body["error"] == {"message": detail, "type": "invalid_request_error", "param": None, "code": None}


async def test_bodies_up_to_32_mib_pass(gateway: Edge) -> None:
    """A body of almost 32 MiB passes, though the connection's buffer is far smaller."""
    size = MAX_MESSAGE_BYTES - 1024
    async with gateway.http.post(CHAT, data=io.BytesIO(b"x" * size), headers={"Content-Type": "application/json"}) as answer:
        assert await answer.json() == {"bytes": size}


async def test_larger_bodies_are_refused(gateway: Edge) -> None:
    """A body larger than 32 MiB gets a 413 in the dialect's shape, and does not reach the server."""
    body = io.BytesIO(b"x" * (MAX_MESSAGE_BYTES + 1))
    async with gateway.http.post(CHAT, data=body, headers={"Content-Type": "application/json"}) as answer:
        assert answer.status == 413
        assert (await answer.json())["error"]["message"] == "The request is larger than 32 MiB."
    assert gateway.servicer.calls == 0


async def test_no_healthy_worker_is_a_503_that_says_when(gateway: Edge) -> None:
    """Without a healthy worker calls get a 503 with `retry-after`. When the worker is healthy again, so is the gateway."""
    await gateway.workers[0].serve(health_pb2.HealthCheckResponse.NOT_SERVING)

    async def gone() -> bool:
        return await asyncio.to_thread(readiness.missing, gateway.folder, 1) == ["worker 0"]

    await until(gone)
    async with gateway.chat() as answer:
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        assert "x-should-retry" not in answer.headers
        assert (await answer.json())["error"]["type"] == "server_error"
    async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.port}") as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    assert str(refused.value.details()).startswith("The server is not ready")
    await gateway.workers[0].serve()

    async def back() -> bool:
        async with gateway.chat() as answer:
            return bool(answer.status == 200)

    await until(back)


async def test_calls_go_round_a_worker_that_died(pair: Edge) -> None:
    """No call fails after a worker has stopped, even before a health check has noticed."""
    for _ in range(4):
        async with pair.chat() as answer:
            assert answer.status == 200
    await pair.workers[0].server.stop(0)
    for _ in range(20):
        async with pair.chat() as answer:
            assert answer.status == 200


# gRPC


async def test_grpc_passes_untouched(gateway: Edge) -> None:
    """Calls of gRPC pass unchanged on the same port: messages, status, metadata, deadline, health and reflection."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.port}") as channel:
        stub = openai_pb2_grpc.OpenAIServiceStub(channel)

        def call(do: str, timeout: float) -> grpc.aio.UnaryStreamCall[Any, HttpBody]:
            body = HttpBody(data=json.dumps({"do": do}).encode())
            request = openai_pb2.CreateChatCompletionRequest(body=body)
            forged = [("x-antiphon-edge", "1")]
            made: grpc.aio.UnaryStreamCall[Any, HttpBody] = stub.CreateChatCompletion(request, timeout=timeout, metadata=forged)
            return made

        answer = call("status", 10)
        message = await anext(aiter(answer))
        assert (message.content_type.split("\t")[1], message.data) == ("x-http-status:422", b'{"detail": []}')
        assert await answer.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert await answer.details() == "not for REST"
        assert gateway.servicer.remaining is not None
        # gRPC sends a deadline rounded up to three digits or so: 10.001 s is sent as 10.1 s.
        assert 8 < gateway.servicer.remaining < 10.5
        assert "x-antiphon-edge" not in gateway.servicer.metadata
        assert await call("hang", 0.2).code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await gateway.servicer.cancelled.wait()
        healthy = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        assert healthy.status == health_pb2.HealthCheckResponse.SERVING
        names = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(
            iter([reflection_pb2.ServerReflectionRequest(list_services="")])
        )
        assert [entry.name async for found in names for entry in found.list_services_response.service] == [health.SERVICE_NAME]


# Readiness


async def test_without_envoy_envoy_is_missing(tmp_path: Path) -> None:
    """Without Envoy's admin socket, Envoy is reported as missing."""
    assert readiness.missing(tmp_path, 1) == ["Envoy"]


async def test_an_envoy_without_its_listener_is_missing(tmp_path: Path) -> None:
    """An Envoy that has rejected its listener calls itself ready, but is reported as missing."""
    edge.prepare(tmp_path, RestConfig(listen="127.0.0.1:1"), [])
    (tmp_path / "listeners.yaml").write_text("resources: [none]")
    envoy = await asyncio.create_subprocess_exec(*edge.command(1), cwd=tmp_path, stderr=asyncio.subprocess.DEVNULL)

    async def live() -> bool:
        connector = aiohttp.UnixConnector(str(tmp_path / ADMIN_SOCKET))
        with contextlib.suppress(aiohttp.ClientError):
            async with aiohttp.ClientSession(connector=connector) as http, http.get("http://admin/ready") as answer:
                return answer.status == 200
        return False

    try:
        await until(live)
        assert await asyncio.to_thread(readiness.missing, tmp_path, 0) == ["Envoy"]
    finally:
        envoy.terminate()
        await envoy.wait()


# Health and draining


async def health_of(gateway: Edge, path: str) -> tuple[int, Any]:
    """Return the status and the JSON body of a health path."""
    async with gateway.http.get(path) as answer:
        return answer.status, await answer.json()


async def test_health_has_a_shape_of_its_own(gateway: Edge) -> None:
    """`/readyz` is 200 while a worker is healthy, and `/healthz` is 200 whatever the workers are."""
    assert await health_of(gateway, "/readyz") == (200, {"status": "ready"})
    await gateway.workers[0].serve(health_pb2.HealthCheckResponse.NOT_SERVING)

    async def unready() -> bool:
        return await health_of(gateway, "/readyz") == (503, {"status": "not ready"})

    await until(unready)
    assert await health_of(gateway, "/healthz") == (200, {"status": "alive"})


async def test_an_edge_that_drains_serves_and_sends_its_callers_away(gateway: Edge) -> None:
    """A draining edge is not ready but alive. Calls succeed with `connection: close`, and idle connections are closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    with contextlib.closing(writer):
        async with gateway.chat() as answer:
            assert "connection" not in answer.headers
        await asyncio.to_thread(turn_unready, gateway.folder)
        assert await health_of(gateway, "/readyz") == (503, {"status": "draining"})
        assert await health_of(gateway, "/healthz") == (200, {"status": "alive"})
        async with gateway.chat() as answer:
            assert (answer.status, answer.headers["connection"]) == (200, "close")
        async with asyncio.timeout(20):
            assert await reader.read() == b""


async def test_a_worker_that_is_taken_out_gets_no_more_calls(pair: Edge) -> None:
    """A worker that is removed from the endpoints gets no more calls, though it is healthy, so that it can be stopped safely."""
    new = pair.folder / "new.yaml"
    new.write_text(endpoints_text([readiness.worker_socket(1)]))
    new.rename(pair.folder / "endpoints.yaml")

    async def gone() -> bool:
        clusters = await asyncio.to_thread(ask, pair.folder / ADMIN_SOCKET, "/clusters?format=json")
        return readiness.worker_socket(0).encode() not in clusters

    await until(gone)
    before = pair.workers[0].servicer.calls
    for _ in range(10):
        async with pair.chat() as answer:
            assert answer.status == 200
    assert pair.workers[0].servicer.calls == before
