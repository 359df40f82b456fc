"""Traces of a whole gateway: through the real Envoy and a third-party collector."""

import asyncio
import json
import secrets
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import grpc
import pytest
import pytest_asyncio

from antiphon.v1 import chat_pb2, chat_pb2_grpc, message_pb2
from tests.e2e.conftest import KEY, PROVIDER_KEY, READY, Gateway
from tests.odd_upstream import LAST, OddUpstream, answer, chunk, delta, head, sse
from tests.otlp import Received, Receiver, collector, collector_program
from tests.ports import free_port
from tests.waiting import until

METADATA = (("authorization", f"Bearer {KEY}"),)
PROMPT = "What nobody else may read"
USAGE = {"prompt_tokens": 20, "completion_tokens": 4, "total_tokens": 24, "prompt_tokens_details": {"cached_tokens": 8}}
MESSAGE = {"index": 0, "message": {"role": "assistant", "content": "A secret answer"}, "finish_reason": "stop"}
REPLY = answer({"id": "c", "object": "chat.completion", "created": 1, "model": "reported", "choices": [MESSAGE], "usage": USAGE})
STREAM = [head(), chunk(sse(delta("A secret"))), chunk(sse(delta(" answer", finish="stop"), "[DONE]")), LAST]


def configuration(upstream: OddUpstream, **more: Any) -> dict[str, Any]:
    return {
        "routing": {"attempts": 1},
        "providers": {
            "odd": {"base_url": upstream.base_url + "?key=in-the-url", "models": ["traced-*"], "api_key_env": "TEST_PROVIDER_KEY"},
            "nowhere": {"base_url": f"http://127.0.0.1:{free_port()}/v1", "models": ["lost"]},
        },
        "proxy": {"allow": [upstream.base_url.removesuffix("/v1")]},
        "prices": {"traced-whole": {"input": 1, "output": 2}},
        "auth": {"keys": [{"name": "test", "key_env": "TEST_KEY", "owner": "acme"}]},
        **more,
    }


class Traced(Gateway):
    """A gateway, and the receiver of its spans."""

    receiver: Receiver

    async def spans(self, trace: str, count: int) -> list[Received]:
        """Return the spans of a trace when there are at least `count`."""
        await until(lambda: len(self.receiver.spans(trace)) >= count)
        return self.receiver.spans(trace)

    async def line(self, request_id: str) -> dict[str, Any]:
        """Return the log line of a call."""

        def found() -> list[dict[str, Any]]:
            lines = [json.loads(line) for line in self.output_text.splitlines() if line.startswith("{")]
            return [line for line in lines if line["event"] == "call" and line["request_id"] == request_id]

        await until(found)
        return found()[0]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def traced(upstream: OddUpstream, tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Traced, None]:
    if collector_program() is None:
        pytest.skip("there is no collector for this machine")
    folder = tmp_path_factory.mktemp("traced")
    upstream.script("traced-whole", [REPLY])
    upstream.script("traced-stream", STREAM)
    upstream.script("traced-busy", [answer({"error": {"message": "busy"}}, "503 Service Unavailable")])
    upstream.script("traced-waits", [head(), chunk(sse(delta("Hi"))), asyncio.Event()])
    with Receiver() as receiver, collector(receiver, folder) as url:
        config = configuration(upstream, traces={"endpoint": url})
        started = Traced(folder, config, OTEL_BSP_SCHEDULE_DELAY="50", OTEL_SERVICE_NAME="gateway")
        started.receiver = receiver
        Gateway.running.discard(started)  # it runs for all tests of this file
        await asyncio.to_thread(started.wait_for, READY)
        yield started
        assert await asyncio.to_thread(started.stop) == 0


def caller(flags: str = "01") -> tuple[str, str, dict[str, str]]:
    """Return a trace id, a span id in it, and the headers that pass them on."""
    trace, span = secrets.token_hex(16), secrets.token_hex(8)
    return trace, span, {"traceparent": f"00-{trace}-{span}-{flags}", "tracestate": "other=1,more=2", "x-request-id": f"of-{trace}"}


def chat_body(model: str, **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": PROMPT}], **more}


def generate(model: str) -> chat_pb2.GenerateRequest:
    return chat_pb2.GenerateRequest(
        model=model,
        messages=[message_pb2.Message(role="ROLE_USER", blocks=[message_pb2.Block(text=message_pb2.Text(text=PROMPT))])],
    )


async def test_a_rest_call_is_a_span_below_its_callers_and_above_its_providers(traced: Traced, upstream: OddUpstream) -> None:
    """A REST call and its provider call are spans in the caller's trace, with the conventional attributes and a log line."""
    trace, span, headers = caller()
    async with traced.client() as http:
        assert (await http.post("/chat/completions", json=chat_body("traced-whole"), headers=headers)).status_code == 200
    server, client = await traced.spans(trace, 2)
    assert (server.name, server.kind, server.parent) == ("OpenAIService/CreateChatCompletion", "SERVER", span)
    assert (client.name, client.kind, client.parent) == ("chat traced-whole", "CLIENT", server.span)
    assert server.begin <= client.begin < client.end <= server.end
    assert server.state == client.state == headers["tracestate"]
    assert server.attributes.pop("antiphon.cost_usd") == pytest.approx(28e-6)
    assert server.attributes == {
        "rpc.system.name": "grpc",
        "rpc.method": "OpenAIService/CreateChatCompletion",
        "rpc.response.status_code": "OK",
        "antiphon.request_id": headers["x-request-id"],
        "antiphon.route": "traced-whole",
    }
    host, _, port = upstream.base_url.removeprefix("http://").removesuffix("/v1").partition(":")
    assert client.attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "odd",
        "gen_ai.request.model": "traced-whole",
        "gen_ai.request.stream": False,
        "gen_ai.usage.input_tokens": 20,
        "gen_ai.usage.output_tokens": 4,
        "gen_ai.usage.cache_read.input_tokens": 8,
        "server.address": host,
        "server.port": int(port),
    }
    assert server.resource["service.name"] == "gateway"
    received = upstream.requests[-1].headers
    assert received["traceparent"] == f"00-{trace}-{client.span}-01"
    assert received["tracestate"] == headers["tracestate"]
    assert (await traced.line(headers["x-request-id"]))["trace_id"] == trace


@pytest.mark.parametrize("through_edge", [True, False])
async def test_a_grpc_stream_is_traced(traced: Traced, upstream: OddUpstream, through_edge: bool) -> None:
    """A gRPC stream is traced through the edge and without it, with the time to its first token."""
    trace, span, headers = caller()
    async with grpc.aio.insecure_channel(traced.rest if through_edge else traced.grpc) as channel:
        stub: Any = chat_pb2_grpc.ChatServiceStub(channel)
        assert [answer async for answer in stub.StreamGenerate(generate("traced-stream"), metadata=(*METADATA, *headers.items()))]
    server, client = await traced.spans(trace, 2)
    assert (server.name, server.kind, server.parent) == ("ChatService/StreamGenerate", "SERVER", span)
    assert (client.parent, client.attributes["gen_ai.request.stream"]) == (server.span, True)
    assert 0 < client.attributes["gen_ai.response.time_to_first_chunk"] < (client.end - client.begin) / 1e9
    assert upstream.requests[-1].headers["traceparent"] == f"00-{trace}-{client.span}-01"


async def test_a_call_without_a_trace_begins_one(traced: Traced, upstream: OddUpstream) -> None:
    """A call without a trace begins one, which the log names."""
    async with traced.client() as http:
        response = await http.post("/chat/completions", json=chat_body("traced-stream", stream=True))
        assert response.status_code == 200
    trace = (await traced.line(response.headers["x-request-id"]))["trace_id"]
    server, client = await traced.spans(trace, 2)
    assert (server.parent, client.parent) == ("", server.span)
    assert upstream.requests[-1].headers["traceparent"].startswith(f"00-{trace}-{client.span}-")
    assert "tracestate" not in upstream.requests[-1].headers


@pytest.mark.parametrize(
    ("model", "status", "code", "reason", "end"),
    [
        ("traced-busy", 502, "UNAVAILABLE", "PROVIDER_UNAVAILABLE", "overloaded"),
        ("lost", 502, "UNAVAILABLE", "PROVIDER_UNAVAILABLE", "connect"),
        ("unknown", 404, "NOT_FOUND", "MODEL_NOT_FOUND", None),
    ],
)
async def test_a_failure_is_an_error_of_whoever_made_it(
    traced: Traced, model: str, status: int, code: str, reason: str, end: str | None
) -> None:
    """A provider's failure is an error of both spans. A caller's mistake is not an error of the server."""
    trace, _, headers = caller()
    async with traced.client() as http:
        assert (await http.post("/chat/completions", json=chat_body(model), headers=headers)).status_code == status
    server, *tries = await traced.spans(trace, 1 if end is None else 2)
    assert (server.attributes["rpc.response.status_code"], server.attributes["error.type"]) == (code, reason)
    assert server.error is (end is not None)
    assert [(one.attributes["error.type"], one.error) for one in tries] == ([] if end is None else [(end, True)])


async def test_a_caller_that_leaves_ends_both_spans(traced: Traced, upstream: OddUpstream) -> None:
    """If the caller leaves, both spans end without an error."""
    trace, _, headers = caller()
    async with (
        traced.client() as http,
        http.stream("POST", "/chat/completions", json=chat_body("traced-waits", stream=True), headers=headers) as response,
    ):
        await anext(aiter(response.aiter_lines()))
    await upstream.left.get()
    server, client = await traced.spans(trace, 2)
    assert (server.attributes["rpc.response.status_code"], server.error) == ("CANCELLED", False)
    assert (client.attributes["error.type"], client.error) == ("gone", False)


async def test_a_call_that_is_not_sampled_has_no_span(traced: Traced, upstream: OddUpstream) -> None:
    """A call that is not sampled has no span. Its trace is in the log, and passed on unchanged to the provider."""
    trace, _, headers = caller("00")
    async with traced.client() as http:
        assert (await http.post("/chat/completions", json=chat_body("traced-whole"), headers=headers)).status_code == 200
        received = upstream.requests[-1].headers
        assert (received["traceparent"], received["tracestate"]) == (headers["traceparent"], headers["tracestate"])
        assert (await traced.line(headers["x-request-id"]))["trace_id"] == trace
        later, _, more = caller()
        await http.post("/chat/completions", json=chat_body("traced-whole"), headers=more)
    await traced.spans(later, 2)
    assert traced.receiver.spans(trace) == []


async def test_a_proxied_call_is_traced_as_a_request(traced: Traced, upstream: OddUpstream) -> None:
    """A proxied call is traced without a model, and the span has only the host of the URL."""
    trace, _, headers = caller()
    path = f"/proxy/{quote(upstream.base_url, safe='')}/sk-of-the-caller/chat/completions"
    async with traced.client() as http:
        assert (await http.post(path, json=chat_body("traced-whole"), headers=headers)).status_code == 200
    server, client = await traced.spans(trace, 2)
    assert (client.name, client.kind, client.parent) == ("POST", "CLIENT", server.span)
    assert client.attributes.keys() == {"http.request.method", "server.address"}
    assert upstream.requests[-1].headers["traceparent"] == f"00-{trace}-{client.span}-01"


def test_spans_have_no_confidential_data(traced: Traced) -> None:
    """After the calls above, no span has text of a conversation, a key or a query."""
    sent = b"".join(traced.receiver.bodies)
    assert b"gen_ai.provider.name" in sent
    for secret in (PROMPT, "secret", "answer", KEY, PROVIDER_KEY, "in-the-url", "sk-of-the-caller", "http:", "acme"):
        assert secret.encode() not in sent


@pytest.mark.slow
async def test_a_collector_that_is_down_costs_nothing_and_is_logged_once(upstream: OddUpstream, tmp_path: Path) -> None:
    """If the collector is down, calls are answered, and the log has one line for it and one when it is back."""
    upstream.script("traced-whole", [REPLY])
    port = free_port()
    environment = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
        "OTEL_EXPORTER_OTLP_HEADERS": "x-api-key=sk-of-the-collector",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "0.2",
        "OTEL_BSP_SCHEDULE_DELAY": "50",
    }
    gateway = Gateway(tmp_path, configuration(upstream), **environment)
    await asyncio.to_thread(gateway.wait_for, READY)
    down, back = '"traces are not exported"', '"traces are exported again"'
    async with gateway.client() as http:

        async def call() -> None:
            assert (await http.post("/chat/completions", json=chat_body("traced-whole"))).status_code == 200

        await call()
        await asyncio.to_thread(gateway.wait_for, down)
        for _ in range(5):
            await call()
        with Receiver(port) as receiver:

            async def is_back() -> bool:
                await call()
                return back in gateway.output_text

            await until(is_back)
            assert (gateway.output_text.count(down), gateway.output_text.count(back)) == (1, 1)
            assert receiver.headers[0]["x-api-key"] == "sk-of-the-collector"
            receiver.may_answer.clear()
            count = receiver.request_count
            await call()
            await until(lambda: receiver.request_count > count)
            await call()
            assert await asyncio.to_thread(gateway.stop) == 0
    assert "opentelemetry" not in gateway.output_text
    assert "sk-of-the-collector" not in gateway.output_text


@pytest.mark.slow
async def test_a_stop_sends_what_is_left(upstream: OddUpstream, tmp_path: Path) -> None:
    """A stop sends the remaining spans of every worker."""
    upstream.script("traced-whole", [REPLY])
    with Receiver() as receiver:
        config = configuration(upstream, workers=2, traces={"endpoint": receiver.url})
        gateway = Gateway(tmp_path, config, OTEL_BSP_SCHEDULE_DELAY="3600000")
        await asyncio.to_thread(gateway.wait_for, READY)
        calls = 20
        for _ in range(calls):
            async with gateway.client() as http:
                assert (await http.post("/chat/completions", json=chat_body("traced-whole"))).status_code == 200
        assert receiver.spans() == []
        assert await asyncio.to_thread(gateway.stop) == 0
        assert len(receiver.spans()) == 2 * calls
        assert len({span.resource["service.instance.id"] for span in receiver.spans()}) == 2


@pytest.mark.slow
async def test_with_a_sample_of_zero_no_span_is_made(upstream: OddUpstream, tmp_path: Path) -> None:
    """With `sample: 0` only calls that the caller has sampled have spans."""
    upstream.script("traced-whole", [REPLY])
    with Receiver() as receiver:
        gateway = Gateway(tmp_path, configuration(upstream, traces={"endpoint": receiver.url, "sample": 0}))
        await asyncio.to_thread(gateway.wait_for, READY)
        trace, _, headers = caller()
        async with gateway.client() as http:
            for more in ({}, headers, {}):
                assert (await http.post("/chat/completions", json=chat_body("traced-whole"), headers=more)).status_code == 200
        assert "traceparent" not in upstream.requests[-1].headers
        assert await asyncio.to_thread(gateway.stop) == 0
        assert {span.trace for span in receiver.spans()} == {trace}
    lines = [json.loads(line) for line in gateway.output_text.splitlines() if '"event":"call"' in line]
    assert [line.get("trace_id") for line in lines] == [None, trace, None]
