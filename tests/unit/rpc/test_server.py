"""Tests of the gRPC server over a real socket, in front of a scripted provider."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.api import httpbody_pb2
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status
from pydantic import SecretStr
from structlog.testing import capture_logs

from antiphon.auth.api_keys.static import KeyRing
from antiphon.chat.catalog import Catalog
from antiphon.chat.service import ChatService
from antiphon.domain.call import current
from antiphon.domain.errors import ProviderProtocolError, ProviderRateLimited
from antiphon.domain.events import Batch, TextDelta, Usage
from antiphon.domain.principal import Principal, Scope
from antiphon.domain.request import ChatRequest
from antiphon.history.recorder import Recorder
from antiphon.rest.openai import servicer as openai
from antiphon.rest.openai.errors import render_error
from antiphon.rest.v1 import openai_pb2, openai_pb2_grpc
from antiphon.routing.router import Router
from antiphon.rpc import server as server_module
from antiphon.rpc.chat import ChatServicer
from antiphon.rpc.handlers import CallHandlers
from antiphon.rpc.models import ModelServicer
from antiphon.rpc.server import Server
from antiphon.telemetry.call_log import CallLog
from antiphon.v1 import chat_pb2, chat_pb2_grpc, message_pb2, models_pb2, models_pb2_grpc
from tests.e2e.wire import DATA, END_HEADERS, END_STREAM, HEADERS, frame, http2
from tests.unit.scripted import NO_PRICES, NO_STORE, ONE_ATTEMPT, START, STOP, ScriptedProvider
from tests.waiting import until

KEY = (("authorization", "Bearer sk-test"),)
REST_SERVICE = "antiphon.rest.v1.OpenAIService"
SCOPES = dict.fromkeys(("antiphon.v1.ChatService", "antiphon.v1.ModelService", REST_SERVICE), Scope.CHAT)
HELLO = chat_pb2.GenerateRequest(
    messages=[message_pb2.Message(role="ROLE_USER", blocks=[message_pb2.Block(text=message_pb2.Text(text="Hello"))])]
)


class Running:
    """A running server with a channel and stubs."""

    def __init__(self, server: Server, chat: ChatService, channel: grpc.aio.Channel) -> None:
        self.server = server
        self.service = chat
        self.channel = channel
        self.chat = chat_pb2_grpc.ChatServiceStub(channel)
        self.models = models_pb2_grpc.ModelServiceStub(channel)
        self.rest = openai_pb2_grpc.OpenAIServiceStub(channel)
        self.health = health_pb2_grpc.HealthStub(channel)

    def post(self, body: dict[str, Any], metadata: Any = KEY) -> Any:
        data = httpbody_pb2.HttpBody(data=json.dumps(body).encode())
        return self.rest.CreateChatCompletion(openai_pb2.CreateChatCompletionRequest(body=data), metadata=metadata)


@asynccontextmanager
async def running(
    provider: ScriptedProvider,
    unused_port: int,
    handlers: CallHandlers | None = None,
    max_request_bytes: int | None = None,
    other_address: str | None = None,
) -> AsyncGenerator[Running, None]:
    router = Router([(provider, ["one", "two", "three"])], rules=ONE_ATTEMPT)
    chat = ChatService(router, Recorder(NO_STORE), NO_PRICES, timeout=60)
    catalog = Catalog(router, [provider], NO_PRICES)
    registrations: list[tuple[str, Callable[[grpc.aio.Server], None]]] = [
        ("antiphon.v1.ChatService", lambda s: chat_pb2_grpc.add_ChatServiceServicer_to_server(ChatServicer(chat), s)),
        ("antiphon.v1.ModelService", lambda s: models_pb2_grpc.add_ModelServiceServicer_to_server(ModelServicer(catalog), s)),
        (
            REST_SERVICE,
            lambda s: openai_pb2_grpc.add_OpenAIServiceServicer_to_server(openai.OpenAIServicer(chat, catalog, 1), s),
        ),
    ]
    keys = KeyRing([(Principal("test", owner="test"), SecretStr("sk-test"))])
    usual = CallHandlers(keys, SCOPES, {REST_SERVICE: render_error}, observer=CallLog(), max_request_bytes=max_request_bytes)
    server = Server(handlers or usual, registrations)
    server.listen(f"127.0.0.1:{unused_port}")
    if other_address is not None:
        server.listen(other_address)
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{unused_port}") as channel:
            yield Running(server, chat, channel)
    finally:  # without a stop, gRPC would wait forever for the server's calls, in the next test
        await server.stop(0, chat.interrupt)


def details(error: grpc.aio.AioRpcError) -> dict[str, Any]:
    """Return the details of a status by type name."""
    status = rpc_status.from_call(error)
    assert status is not None
    found = {}
    for detail in status.details:
        for kind in (error_details_pb2.ErrorInfo, error_details_pb2.BadRequest, error_details_pb2.RetryInfo):
            message = kind()
            if detail.Unpack(message):
                found[kind.__name__] = message
    return found


async def test_a_stream_is_events_in_sequence_and_ends_finished(unused_tcp_port: int) -> None:
    """A stream has one message for each batch, with consecutive event numbers, and ends with `finished`."""
    async with running(ScriptedProvider(), unused_tcp_port) as gateway:
        answers = [answer async for answer in gateway.chat.StreamGenerate(HELLO, metadata=KEY)]
    assert [(answer.sequence, len(answer.events)) for answer in answers] == [(1, 3), (4, 1), (5, 4)]
    events = [event.WhichOneof("event") for answer in answers for event in answer.events]
    assert events == ["started", "block_started", "text", "text", "block_finished", "usage", "metrics", "finished"]


async def test_reflection_names_the_services_and_unknown_methods_are_unimplemented(unused_tcp_port: int) -> None:
    """Reflection lists every service, and a method of none of them is `UNIMPLEMENTED`."""
    names = [*SCOPES, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"]
    async with running(ScriptedProvider(), unused_tcp_port) as gateway:
        asked = reflection_pb2_grpc.ServerReflectionStub(gateway.channel).ServerReflectionInfo()
        await asked.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        answer = await asked.read()
        assert sorted(service.name for service in answer.list_services_response.service) == sorted(names)
        await asked.done_writing()
        assert await asked.read() is grpc.aio.EOF
        for method in ("/antiphon.v1.ChatService/Unknown", "/unknown.Service/Generate", "/Generate"):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await gateway.channel.unary_unary(method)(b"", metadata=KEY)
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_failure_before_the_first_event_is_a_status_with_its_reason(unused_tcp_port: int) -> None:
    """A failure before the first event is a status with its reason and the time to wait."""
    error = ProviderRateLimited("Busy.", provider="scripted", status=429, retry_after=2.5)
    async with running(ScriptedProvider(error), unused_tcp_port) as gateway:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await gateway.chat.Generate(HELLO, metadata=KEY)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    found = details(caught.value)
    assert found["ErrorInfo"].reason == "PROVIDER_RATE_LIMITED"
    assert dict(found["ErrorInfo"].metadata) == {"provider": "scripted", "status": "429"}
    assert found["RetryInfo"].retry_delay.ToMilliseconds() == 2500


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (ProviderProtocolError("Cut.", provider="scripted"), grpc.StatusCode.UNAVAILABLE),
        (ZeroDivisionError("a bug"), grpc.StatusCode.INTERNAL),
    ],
)
async def test_a_late_failure_is_an_event_and_a_status(failure: Exception, code: grpc.StatusCode, unused_tcp_port: int) -> None:
    """A failure during a stream is an error event with the next number and a status; in SSE there is no [DONE].

    The text of a bug is not sent.
    """
    async with running(ScriptedProvider([START, TextDelta(0, "Hel")], failure), unused_tcp_port) as gateway:
        call = gateway.chat.StreamGenerate(HELLO, metadata=KEY)
        events: list[chat_pb2.StreamEvent] = []
        sequence = 0
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for answer in call:
                events.extend(answer.events)
                sequence = answer.sequence
        assert caught.value.code() is code
        assert [event.WhichOneof("event") for event in events] == ["started", "block_started", "text", "error"]
        assert (sequence, events[3].error.code) == (4, code.value[0])
        assert "bug" not in events[3].error.message

        call = gateway.post({"messages": [{"role": "user", "content": "x"}], "stream": True})
        pieces = []
        with pytest.raises(grpc.aio.AioRpcError):
            async for piece in call:
                pieces.append(piece.data)  # noqa: PERF401  # the pieces before the error count
        text = b"".join(pieces)
        assert b"[DONE]" not in text


async def test_a_rest_error_is_its_dialects_body_and_the_true_status(unused_tcp_port: int) -> None:
    """A REST error has its HTTP status in the metadata, the dialect's body, and the true gRPC code, which metrics read."""
    async with running(ScriptedProvider(), unused_tcp_port) as gateway:
        call = gateway.post({"messages": []})
        metadata = dict(await call.initial_metadata() or ())
        body = await call.read()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
    assert metadata["x-http-status"] == "422"
    assert json.loads(body.data)["detail"][0]["loc"] == ["body", "messages"]
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


class Heading(ScriptedProvider):
    """A provider whose calls have a header in their responses."""

    async def stream(self, request: ChatRequest, warn: Any = None) -> AsyncGenerator[Batch, None]:
        current().headers["x-note"] = "12:00, always"
        async for batch in super().stream(request, warn):
            yield batch


@pytest.mark.parametrize("more", [{"stream": False}, {"stream": True}, {"messages": "none"}])
async def test_the_edge_gets_headers_with_the_first_message(more: dict[str, Any], unused_tcp_port: int) -> None:
    """Behind the edge the headers of a response are in the content type of its first message, and not in the metadata."""
    asked = {"messages": [{"role": "user", "content": "x"}], **more}
    async with running(Heading(), unused_tcp_port) as gateway:
        direct, behind = gateway.post(asked), gateway.post(asked, (*KEY, ("x-antiphon-edge", "1")))
        headers = dict(await direct.initial_metadata() or ())
        content_type, *carried = (await behind.read()).content_type.split("\t")
        assert content_type == (await direct.read()).content_type
        assert dict(each.split(":", 1) for each in carried) == headers
        assert not await behind.initial_metadata()
    assert ("x-http-status" if "messages" in more else "x-note") in headers


async def test_no_key_is_refused_before_the_request_is_looked_at(unused_tcp_port: int) -> None:
    """Without a valid key every service but health is refused, and the provider is not asked."""
    provider = ScriptedProvider()
    async with running(provider, unused_tcp_port) as gateway:
        for call in (
            gateway.chat.Generate(chat_pb2.GenerateRequest()),
            gateway.models.ListModels(models_pb2.ListModelsRequest()),
            gateway.chat.Generate(HELLO, metadata=(("authorization", "Bearer sk-other"),)),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        call = gateway.post({"messages": "wrong"}, metadata=())
        assert dict(await call.initial_metadata() or ())["x-http-status"] == "401"
        assert (await gateway.health.Check(health_pb2.HealthCheckRequest())).status == health_pb2.HealthCheckResponse.SERVING
    assert provider.requests == []


@pytest.mark.parametrize("name", ["authorization", "x-goog-api-key"])
async def test_two_credentials_are_refused(name: str, unused_tcp_port: int) -> None:
    """Two headers with a credential are refused, even if both are the same. Other headers may be repeated."""
    provider = ScriptedProvider()
    good, other = "Bearer sk-test", "Bearer sk-other"
    async with running(provider, unused_tcp_port) as gateway:
        for first, second in ((good, other), (other, good), (good, good)):
            entries = ((name, first), ("x-some", "a"), (name, second))
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await gateway.chat.Generate(HELLO, metadata=entries if name == "authorization" else (*KEY, *entries))
            assert (caught.value.code(), caught.value.details()) == (
                grpc.StatusCode.UNAUTHENTICATED,
                f"There is more than one {name}. Send it once.",
            )
        call = gateway.post({"messages": "wrong"}, metadata=(*KEY, *KEY))
        assert dict(await call.initial_metadata() or ())["x-http-status"] == "401"
        assert provider.requests == []
        await gateway.chat.Generate(HELLO, metadata=(*KEY, ("x-some", "a"), ("x-some", "b")))


@pytest.mark.parametrize(("sent", "kept"), [("abc-123", True), ("", False), ("a b", False), ("x" * 200, False)])
async def test_a_request_id_comes_back(sent: str, kept: bool, unused_tcp_port: int) -> None:
    """A valid request id is returned, and any other is replaced by a new one."""
    async with running(ScriptedProvider(), unused_tcp_port) as gateway:
        call = gateway.chat.Generate(HELLO, metadata=(*KEY, ("x-request-id", sent)))
        found = dict(await call.initial_metadata() or ())["x-request-id"]
        await call
    assert (found == sent) is kept
    assert found


async def test_a_caller_that_cancels_closes_the_providers_call(unused_tcp_port: int) -> None:
    """A cancelled call closes the provider's call at once, and nothing is left in flight."""
    provider = ScriptedProvider([START, TextDelta(0, "Hel")], None)
    async with running(provider, unused_tcp_port) as gateway:
        call = gateway.chat.StreamGenerate(HELLO, metadata=KEY)
        await call.read()
        call.cancel()
        await until(lambda: provider.closed)
        assert gateway.service.in_flight == 0


async def test_the_server_itself_reports_a_deadline(unused_tcp_port: int) -> None:
    """The server ends a call a little before the caller's deadline, so that the reason arrives."""
    async with running(ScriptedProvider(None), unused_tcp_port) as gateway:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await gateway.chat.Generate(HELLO, metadata=KEY, timeout=0.3)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert details(caught.value)["ErrorInfo"].reason == "DEADLINE_EXCEEDED"


async def test_a_stop_lets_calls_finish_and_then_ends_the_rest_with_an_error(unused_tcp_port: int) -> None:
    """A stopping server is unhealthy at once. Calls that are left after the grace period get an error event."""
    async with running(ScriptedProvider([START, TextDelta(0, "Hel")], None), unused_tcp_port) as gateway:
        watch = gateway.health.Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        call = gateway.chat.StreamGenerate(HELLO, metadata=KEY)
        await call.read()
        stopping = asyncio.create_task(gateway.server.stop(0.2, gateway.service.interrupt))
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        answer = await call.read()
        assert answer.events[0].WhichOneof("event") == "error"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        await stopping


class Lingering(ScriptedProvider):
    """A provider whose calls take a while to end, as a slow store's do."""

    async def stream(self, request: ChatRequest, warn: Any = None) -> AsyncGenerator[Batch, None]:
        try:
            async for batch in super().stream(request, warn):
                yield batch
        finally:
            await asyncio.sleep(1.5)


async def test_calls_that_a_stop_interrupts_have_time_to_end_with_an_error(unused_tcp_port: int) -> None:
    """Nor does gRPC end them meanwhile: a REST caller would see a stream that ends as if it were complete."""
    async with running(Lingering([START, TextDelta(0, "Hel")], None), unused_tcp_port) as gateway:
        call = gateway.post({"messages": [{"role": "user", "content": "Hi"}], "stream": True})
        await call.read()
        stopping = asyncio.create_task(gateway.server.stop(0.1, gateway.service.interrupt))
        assert b'"shutting_down"' in (await call.read()).data
        await stopping


async def test_a_connection_that_is_too_old_keeps_its_calls(unused_tcp_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call may take as long as the server allows, on a connection of any age. Or its stream would end as if it were complete."""
    monkeypatch.setattr(server_module, "MAX_AGE_MS", 300)
    async with running(ScriptedProvider([START, TextDelta(0, "Hel")], None), unused_tcp_port) as gateway:
        call = gateway.post({"messages": [{"role": "user", "content": "Hi"}], "stream": True})
        await call.read()
        reading = asyncio.create_task(call.read())
        await asyncio.wait([reading], timeout=1.5)
        gateway.service.interrupt()
        assert b'"shutting_down"' in (await reading).data


async def test_a_caller_that_vanished_is_noticed(unused_tcp_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A silent connection is pinged, and the calls of one that does not answer end: there is no other sign of some lost callers."""
    monkeypatch.setattr(server_module, "PING_AFTER_MS", 200)
    monkeypatch.setattr(server_module, "PING_TIMEOUT_MS", 200)
    provider = ScriptedProvider(None)
    async with running(provider, unused_tcp_port) as gateway, http2(f"127.0.0.1:{unused_tcp_port}") as caller:
        path = "/antiphon.v1.ChatService/Generate"
        head = caller.request(path, "POST", content_type="application/grpc", te="trailers", authorization="Bearer sk-test")
        data = HELLO.SerializeToString()
        message = b"\0" + len(data).to_bytes(4, "big") + data
        await caller.send(frame(HEADERS, END_HEADERS, 1, head), frame(DATA, END_STREAM, 1, message))
        await until(lambda: provider.requests)
        await until(lambda: provider.closed)
        assert gateway.service.in_flight == 0


async def test_an_unready_server_still_serves(unused_tcp_port: int, tmp_path: Path) -> None:
    """An unready server still serves calls.

    Its own port reports NOT_SERVING, but the unix socket of the local edge does so only at the stop.
    """
    async with (
        running(ScriptedProvider(), unused_tcp_port, other_address=f"unix:{tmp_path}/socket") as gateway,
        grpc.aio.insecure_channel(f"unix:{tmp_path}/socket") as beside,
    ):
        watch = gateway.health.Watch(health_pb2.HealthCheckRequest(service="antiphon.v1.ChatService"))
        of_edge = health_pb2_grpc.HealthStub(beside).Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == (await of_edge.read()).status == health_pb2.HealthCheckResponse.SERVING
        gateway.server.turn_unready()
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        found = await gateway.health.Check(health_pb2.HealthCheckRequest())
        assert found.status == health_pb2.HealthCheckResponse.NOT_SERVING
        found = await health_pb2_grpc.HealthStub(beside).Check(health_pb2.HealthCheckRequest())
        assert found.status == health_pb2.HealthCheckResponse.SERVING
        assert [answer async for answer in gateway.chat.StreamGenerate(HELLO, metadata=KEY)]
        stopping = asyncio.create_task(gateway.server.stop(5, gateway.service.interrupt))
        assert (await of_edge.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert await watch.read() is await of_edge.read() is grpc.aio.EOF
        await stopping


async def test_a_server_that_is_replaced_never_says_that_it_is_unhealthy(unused_tcp_port: int) -> None:
    """A replaced server closes its connections without reporting NOT_SERVING.

    Watchers would take that for the state of its address, which its successor uses.
    """
    async with running(ScriptedProvider(), unused_tcp_port) as gateway:
        watch = gateway.health.Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        stopping = asyncio.create_task(gateway.server.stop(5, gateway.service.interrupt, replaced=True))
        reading = asyncio.create_task(watch.read())
        await gateway.channel.wait_for_state_change(grpc.ChannelConnectivity.READY)  # the server has closed the connection
        assert not reading.done()
        reading.cancel()
        await stopping


async def test_a_stop_drops_nothing_while_a_call_goes_on(unused_tcp_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A running call is answered completely during a stop, even after the time at which callers who do not read are dropped."""
    monkeypatch.setattr(server_module, "LINGER", 0.5)
    monkeypatch.setattr(server_module, "CHECK_INTERVAL", 0.01)
    lingered = asyncio.Event()

    class Slow(ScriptedProvider):
        async def stream(self, request: ChatRequest, warn: Any = None) -> AsyncGenerator[Batch, None]:
            async for batch in super().stream(request):
                yield batch
                await lingered.wait()

    class Watched(CallHandlers):
        since: float | None = None

        @property
        def calls(self) -> int:
            now = asyncio.get_running_loop().time()
            self.since = self.since or now
            if now > self.since + 2 * server_module.LINGER:
                lingered.set()
            return super().calls

    keys = KeyRing([(Principal("test", owner="test"), SecretStr("sk-test"))])
    async with running(Slow(), unused_tcp_port, Watched(keys, SCOPES, {})) as gateway:
        call = gateway.chat.StreamGenerate(HELLO, metadata=KEY)
        await call.read()
        stopping = asyncio.create_task(gateway.server.stop(600, gateway.service.interrupt))
        async with asyncio.timeout(30):
            await call.read()
            last = await call.read()
            assert last.events[-1].WhichOneof("event") == "finished"
            assert await call.read() is grpc.aio.EOF
            await stopping


async def test_models_are_paged(unused_tcp_port: int) -> None:
    """Every model is listed once, in order. An invalid page token is refused."""
    async with running(ScriptedProvider(), unused_tcp_port) as gateway:
        found, token = [], ""
        while True:
            request = models_pb2.ListModelsRequest(page_size=2, page_token=token)
            page = await gateway.models.ListModels(request, metadata=KEY)
            found += [model.name for model in page.models]
            token = page.next_page_token
            if not token:
                break
        assert found == ["one", "three", "two"]
        assert (await gateway.models.GetModel(models_pb2.GetModelRequest(name="one"), metadata=KEY)).model.is_default
        for bad, code in (
            (gateway.models.ListModels(models_pb2.ListModelsRequest(page_token="%%"), metadata=KEY), "INVALID_ARGUMENT"),  # noqa: S106 - of a page
            (gateway.models.GetModel(models_pb2.GetModelRequest(name="no"), metadata=KEY), "NOT_FOUND"),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await bad
            assert caught.value.code().name == code


async def test_an_unusable_address_is_reported(unused_tcp_port: int) -> None:
    """An address that cannot be used raises `OSError` with the address."""
    async with running(ScriptedProvider(), unused_tcp_port) as gateway:
        with pytest.raises(OSError, match="/nowhere"):
            gateway.server.listen("unix:/nowhere/x.sock")


async def test_a_body_is_written_in_pieces_that_fit_a_message(unused_tcp_port: int) -> None:
    """A large delta is written in pieces of at most 1 MiB, without losing anything."""
    text = "\u0085" * 8_000_000  # in JSON it is escaped and three times as long
    async with running(ScriptedProvider([START, TextDelta(0, text)], [STOP]), unused_tcp_port) as gateway:
        pieces = [piece.data async for piece in gateway.post({"messages": [{"role": "user", "content": "x"}], "stream": True})]
    assert max(map(len, pieces)) <= 1024 * 1024
    body = b"".join(pieces)
    assert body.count(b"\\u0085") == len(text)
    assert body.endswith(b"data: [DONE]\n\n")


async def test_an_error_in_the_last_chunk_is_sent(unused_tcp_port: int) -> None:
    """An error while the last chunk is written is sent as an error event, without [DONE]."""
    usage = Usage(1, 1, 1, extra={"x": object()})
    async with running(ScriptedProvider([START, TextDelta(0, "Hi")], [usage, STOP]), unused_tcp_port) as gateway:
        body = {"messages": [{"role": "user", "content": "x"}], "stream": True, "stream_options": {"include_usage": True}}
        pieces = []
        with pytest.raises(grpc.aio.AioRpcError):
            async for piece in gateway.post(body):
                pieces.append(piece.data)  # noqa: PERF401  # the pieces before the error count
    assert b'{"error":' in pieces[-1]
    assert b"[DONE]" not in b"".join(pieces)


async def test_errors_with_much_in_them_arrive(unused_tcp_port: int) -> None:
    """Long names and long lists of fields are cut, so that the trailers with the error fit."""
    async with running(ScriptedProvider(), unused_tcp_port) as gateway:
        many = chat_pb2.GenerateRequest(messages=[message_pb2.Message()] * 5000)
        long = chat_pb2.GenerateRequest(model="z" * 50_000, messages=HELLO.messages)
        for request, code in ((many, grpc.StatusCode.INVALID_ARGUMENT), (long, grpc.StatusCode.NOT_FOUND)):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await gateway.chat.Generate(request, metadata=KEY)
            assert caught.value.code() is code


async def test_the_line_of_a_call_names_its_callers_trace(unused_tcp_port: int) -> None:
    """The log line of a call has the caller's trace id, sampled or not, and none if it is malformed."""
    trace, span, lines = "0a" * 16, "b7" * 8, []
    async with running(ScriptedProvider(), unused_tcp_port) as gateway:
        for parent in (f"00-{trace}-{span}-00", f"00-{trace}-{span}-01", f"00-{trace}"):
            with capture_logs() as logged:
                await gateway.chat.Generate(HELLO, metadata=(*KEY, ("traceparent", parent)))
                await until(lambda logged=logged: any(line["event"] == "call" for line in logged))
            lines.append(next(line for line in logged if line["event"] == "call"))
    assert [line.get("trace_id") for line in lines] == [trace, trace, None]
