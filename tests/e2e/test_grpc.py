"""A plain gRPC client, directly to the server and through Envoy."""

import asyncio
import time
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status

from antiphon.v1 import chat_pb2, chat_pb2_grpc, message_pb2, models_pb2, models_pb2_grpc
from tests.e2e.conftest import KEY
from tests.odd_upstream import CUT, HANG, OddUpstream, chunk, delta, head, sse
from tests.waiting import until

METADATA = (("authorization", f"Bearer {KEY}"),)


def generate_request(model: str, text: str = "Hello") -> chat_pb2.GenerateRequest:
    message = message_pb2.Message(role="ROLE_USER", blocks=[message_pb2.Block(text=message_pb2.Text(text=text))])
    return chat_pb2.GenerateRequest(model=model, messages=[message])


def reason(error: grpc.aio.AioRpcError) -> str:
    status = rpc_status.from_call(error)
    assert status is not None
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    return str(info.reason)


async def test_reflection_and_health_need_no_key(channel: grpc.aio.Channel) -> None:
    """Reflection and health, which tools such as grpcurl use first, need no key."""
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)

    async def ask(**fields: Any) -> Any:
        requests = iter([reflection_pb2.ServerReflectionRequest(**fields)])
        (answer,) = [answer async for answer in stub.ServerReflectionInfo(requests)]
        return answer

    services = {service.name for service in (await ask(list_services="")).list_services_response.service}
    assert {"antiphon.v1.ChatService", "antiphon.v1.ModelService", "grpc.health.v1.Health"} <= services
    described = await ask(file_containing_symbol="antiphon.v1.ChatService")
    assert described.file_descriptor_response.file_descriptor_proto
    health = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service="antiphon.v1.ChatService"))
    assert health.status == health_pb2.HealthCheckResponse.SERVING


async def test_stream_generate(channel: grpc.aio.Channel) -> None:
    """The events are numbered, go from started to finished, and together are what Generate answers."""
    stub = chat_pb2_grpc.ChatServiceStub(channel)
    events: list[chat_pb2.StreamEvent] = []
    times: list[float] = []
    async for answer in stub.StreamGenerate(generate_request("echo", "one two three"), metadata=METADATA):
        assert answer.sequence == len(events) + 1
        events += answer.events
        times.append(time.monotonic())
    assert events[0].started.provider == "echo"
    assert events[-1].finished.reason == chat_pb2.FINISH_REASON_STOP
    assert events[-3].usage.total_tokens > 0
    assert events[-2].metrics.chunks == 5
    assert times[-1] - times[0] > 0.04, "the words come one after the other"
    whole = await stub.Generate(generate_request("echo", "one two three"), metadata=METADATA)
    assert whole.choices[0].message.blocks[0].text.text == "".join(event.text.text for event in events)


async def test_models(channel: grpc.aio.Channel) -> None:
    """The list of models is the same as over REST."""
    stub = models_pb2_grpc.ModelServiceStub(channel)
    page = await stub.ListModels(models_pb2.ListModelsRequest(), metadata=METADATA)
    assert [model.name for model in page.models if model.is_default] == ["gpt-4o-mini"]


async def test_a_deadline_of_a_second_ends_after_a_second(channel: grpc.aio.Channel, upstream: OddUpstream) -> None:
    """If the provider hangs, a deadline ends the call on time with a reason, and ends the provider's call."""
    upstream.script("odd-hang", [HANG])
    while not upstream.left.empty():
        upstream.left.get_nowait()
    start = time.monotonic()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in chat_pb2_grpc.ChatServiceStub(channel).StreamGenerate(
            generate_request("odd-hang"), metadata=METADATA, timeout=1
        ):
            pass
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert reason(caught.value) == "DEADLINE_EXCEEDED"
    assert 0.9 < time.monotonic() - start < 1.5
    assert await asyncio.wait_for(upstream.left.get(), 0.5) - start < 1.5


async def test_a_cancelled_call_leaves_the_provider_at_once(channel: grpc.aio.Channel, upstream: OddUpstream) -> None:
    """A cancelled call ends the provider's call within half a second, streaming or not."""
    upstream.script("odd-slow", [head(), chunk(sse(delta("Hel"))), HANG])
    upstream.script("odd-mute", [HANG])
    stub = chat_pb2_grpc.ChatServiceStub(channel)
    while not upstream.left.empty():
        upstream.left.get_nowait()
    stream = stub.StreamGenerate(generate_request("odd-slow"), metadata=METADATA)
    assert (await stream.read()).events[2].text.text == "Hel"
    left = time.monotonic()
    stream.cancel()
    assert await asyncio.wait_for(upstream.left.get(), 2) - left < 0.5

    before = len(upstream.requests)
    whole = asyncio.ensure_future(stub.Generate(generate_request("odd-mute"), metadata=METADATA))
    await until(lambda: len(upstream.requests) > before)
    left = time.monotonic()
    whole.cancel()
    assert await asyncio.wait_for(upstream.left.get(), 2) - left < 0.5


async def test_a_provider_that_is_cut_is_an_error_event(channel: grpc.aio.Channel, upstream: OddUpstream) -> None:
    """If the provider breaks off, the text so far is followed by an error event with the next number, and then the status."""
    upstream.script("odd-cut", [head(), chunk(sse(delta("Hel"))), CUT])
    call = chat_pb2_grpc.ChatServiceStub(channel).StreamGenerate(generate_request("odd-cut"), metadata=METADATA)
    events: list[chat_pb2.StreamEvent] = []
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for answer in call:
            assert answer.sequence == len(events) + 1
            events.extend(answer.events)
    assert [event.WhichOneof("event") for event in events] == ["started", "block_started", "text", "error"]
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert reason(caught.value) == "PROVIDER_PROTOCOL"
    with pytest.raises(grpc.aio.AioRpcError):
        await chat_pb2_grpc.ChatServiceStub(channel).Generate(generate_request("odd-cut"), metadata=METADATA)


@pytest.mark.parametrize(
    ("request_", "metadata", "code", "why"),
    [
        (generate_request("echo"), (), "UNAUTHENTICATED", "UNAUTHENTICATED"),
        (generate_request("echo"), (("authorization", "Bearer sk-wrong"),), "UNAUTHENTICATED", "UNAUTHENTICATED"),
        (generate_request("nope"), METADATA, "NOT_FOUND", "MODEL_NOT_FOUND"),
        (chat_pb2.GenerateRequest(model="echo"), METADATA, "INVALID_ARGUMENT", "INVALID_REQUEST"),
        (generate_request("echo", "a\0b"), METADATA, "INVALID_ARGUMENT", "INVALID_REQUEST"),
        (generate_request("lost"), METADATA, "UNAVAILABLE", "PROVIDER_UNAVAILABLE"),
    ],
)
async def test_every_failure_has_a_code_and_a_reason(
    channel: grpc.aio.Channel, request_: chat_pb2.GenerateRequest, metadata: Any, code: str, why: str
) -> None:
    """Each failure has its code and reason, on both methods."""
    stub = chat_pb2_grpc.ChatServiceStub(channel)
    for call in (stub.Generate(request_, metadata=metadata), stub.StreamGenerate(request_, metadata=metadata).read()):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert (caught.value.code().name, reason(caught.value)) == (code, why)
