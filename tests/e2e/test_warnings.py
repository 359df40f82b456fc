"""Warnings about parameters that a provider does not have, and their refusal: real clients, the real edge, a real upstream."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import grpc
import openai
import orjson
import pytest
import pytest_asyncio
from llmock.testing import LLMockServer

from antiphon.v1 import chat_pb2, chat_pb2_grpc
from tests.e2e.conftest import READY, Gateway, configuration
from tests.e2e.test_grpc import METADATA, generate_request, reason
from tests.odd_upstream import LAST, OddUpstream, Step, answer, chunk, delta, head, sse

HELLO: Any = [{"role": "user", "content": "hello"}]
HEADER = "x-antiphon-warnings"
STREAM: list[Step] = [head(), chunk(sse(delta("Hi", "stop"), "[DONE]")), LAST]
WHOLE: list[Step] = [
    answer({"id": "1", "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}]})
]
NO_BIAS = 'logit_bias;dropped;reason="the API has no such field, and refuses unknown ones"'
NO_EFFECT = 'temperature;dropped;reason="it has no effect on this model"'


PROTOCOLS = [("anthropic", "anthropic", "claude-sonnet-4-5"), ("gemini", "gemini", "gemini-2.5-flash")]
"""Protocols that llmock speaks, its path for them, and a model."""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def strict(
    upstream: OddUpstream, llm: LLMockServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[Gateway, None]:
    """Yield a gateway with known hosts that lack parameters; one of them refuses requests that have such."""
    host = {"base_url": upstream.base_url, "api_key_env": "TEST_PROVIDER_KEY"}
    config = configuration(
        upstream, llm, streams={"heartbeat": 0.2}, personas={"warm": {"model": "odd-reasoner", "temperature": 0.5}}
    )
    config["providers"] = {
        "mistral": {**host, "models": ["odd-mistral", "odd-slow"]},
        "deepseek": {**host, "models": ["odd-reasoner"]},
        "groq": {**host, "models": ["odd-groq"], "unsupported": "refuse"},
    }
    for protocol, path, model in PROTOCOLS:
        config["providers"][protocol] = {
            "protocol": protocol,
            "base_url": llm.base_url(path),
            "api_key_env": "TEST_PROVIDER_KEY",
            "models": [model],
        }
    config["models"] = {"default": "odd-mistral"}
    started = Gateway(tmp_path_factory.mktemp("warnings"), config)
    await asyncio.to_thread(started.wait_for, READY)
    yield started
    assert await asyncio.to_thread(started.stop) == 0
    assert "call_failed" not in started.output_text


@pytest.mark.parametrize("stream", [False, True])
async def test_the_sdk_sees_the_warnings(stream: bool, strict: Gateway, upstream: OddUpstream) -> None:
    """The header names what the provider did not get, whether or not the reply streams; the rest of the request arrives."""
    upstream.script("odd-mistral", STREAM if stream else WHOLE)
    async with strict.sdk() as sdk:
        raw = await sdk.chat.completions.with_raw_response.create(
            model="odd-mistral", messages=HELLO, stream=stream, logit_bias={"1": 5}, seed=7, temperature=0.5
        )
        assert raw.headers[HEADER] == NO_BIAS
        reply: Any = raw.parse()
        text = "".join([one.choices[0].delta.content or "" async for one in reply]) if stream else reply.choices[0].message.content
        assert text == "Hi"
        body = upstream.requests[-1].json
        assert "logit_bias" not in body
        assert (body["random_seed"], body["temperature"]) == (7, 0.5)
        plain = await sdk.chat.completions.with_raw_response.create(model="odd-mistral", messages=HELLO, stream=stream, seed=7)
        assert HEADER not in plain.headers


async def test_the_log_counts_the_warnings(strict: Gateway, upstream: OddUpstream) -> None:
    """The line of the call has the number of warnings, and one without warnings has none."""
    upstream.script("odd-mistral", WHOLE)
    async with strict.client(headers={"x-request-id": "warned"}) as http:
        body = {"messages": HELLO, "logit_bias": {"1": 5}, "user": "u", "logprobs": True}
        assert (await http.post("/chat/completions", json=body)).status_code == 200
        await http.post("/chat/completions", json={"messages": HELLO}, headers={"x-request-id": "not-warned"})
    await asyncio.to_thread(strict.wait_for, '"request_id":"not-warned"')
    lines = [orjson.loads(line) for line in strict.output_text.splitlines() if '"event":"call"' in line]
    by_id = {line["request_id"]: line for line in lines}
    assert by_id["warned"]["warnings"] == 2
    assert "warnings" not in by_id["not-warned"]


PATHS: list[tuple[str, dict[str, Any], bool]] = [
    ("/api/v1/chat/completions", {"messages": HELLO, "temperature": 0.5}, False),
    ("/v1/chat/completions", {"messages": HELLO, "temperature": 0.5, "stream": True}, True),
    ("/api/v1/chat", {"chat_history": HELLO, "persona": "warm"}, False),
    ("/api/v1/chat/generate", {"chat_history": HELLO, "persona": "warm"}, False),
    ("/api/v1/chat/generate/stream", {"chat_history": HELLO, "persona": "warm"}, True),
    ("/api/engine/chat/deepseek", {"chat_input": "hello", "parameters": {"temperature": 0.5}}, True),
    ("/api/engine/chat/deepseek", {"chat_input": "hello", "parameters": {"temperature": 0.5}, "is_stream": True}, True),
]


@pytest.mark.parametrize(("path", "body", "streams"), PATHS)
async def test_every_dialect_has_the_header(
    path: str, body: dict[str, Any], streams: bool, strict: Gateway, upstream: OddUpstream
) -> None:
    """Each path that chats has the header, and names the parameter as its own body does."""
    upstream.script("odd-reasoner", STREAM if streams else WHOLE)
    async with strict.client() as http:
        response = await http.post(f"http://{strict.rest}{path}", json={"model": "odd-reasoner", **body})
    assert response.status_code in (200, 201), response.text
    assert response.headers[HEADER] == ("parameters." if "engine" in path else "") + NO_EFFECT
    assert "temperature" not in upstream.requests[-1].json


async def test_a_heartbeat_carries_the_header(strict: Gateway, upstream: OddUpstream) -> None:
    """Headers that leave before the provider has answered at all have the warnings."""
    answers = asyncio.Event()
    upstream.script("odd-slow", [answers, *STREAM])
    body = {"model": "odd-slow", "messages": HELLO, "stream": True, "user": "u"}
    async with strict.client() as http, http.stream("POST", "/chat/completions", json=body) as response:
        assert response.headers[HEADER].startswith("user;dropped;")
        assert not answers.is_set()
        answers.set()
        assert b"Hi" in await response.aread()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("claude-sonnet-4-5", ["reasoning_effort;mapped=", "seed;dropped;", "logit_bias;dropped;", "prediction;dropped;"]),
        ("gemini-2.5-flash", ["logit_bias;dropped;", "reasoning_effort;mapped=", "prediction;dropped;"]),
    ],
)
async def test_other_protocols(model: str, expected: list[str], stream: bool, strict: Gateway) -> None:
    """The SDK gets an answer from models of other protocols whatever it sends, and sees what they did not get."""
    prediction: Any = {"type": "content", "content": "x"}
    async with strict.sdk() as sdk:
        raw = await sdk.chat.completions.with_raw_response.create(
            model=model,
            messages=HELLO,
            stream=stream,
            seed=7,
            logit_bias={"1": 5},
            reasoning_effort="low",
            prediction=prediction,
            store=False,
            response_format={"type": "text"},
        )
        reply: Any = raw.parse()
        text = (
            "".join([one.choices[0].delta.content or "" async for one in reply if one.choices])
            if stream
            else (reply.choices[0].message.content)
        )
    assert text
    items = raw.headers[HEADER].split('", ')
    assert [item[: len(start)] for item, start in zip(items, expected, strict=True)] == expected


@pytest.mark.parametrize("stream", [False, True])
async def test_refuse_is_a_bad_request(stream: bool, strict: Gateway, upstream: OddUpstream) -> None:
    """With the policy `refuse`, the SDK gets 400 with the parameter's name, and the provider is not called."""
    before = len(upstream.requests)
    async with strict.sdk() as sdk:
        with pytest.raises(openai.BadRequestError) as caught:
            await sdk.chat.completions.create(model="odd-groq", messages=HELLO, n=2, stream=stream)
    assert (caught.value.param, caught.value.code) == ("n", "unsupported")
    assert caught.value.type == "invalid_request_error"
    assert "n: is not supported by the provider groq: the host makes only one choice" in str(caught.value)
    assert len(upstream.requests) == before


async def test_refuse_in_another_dialect(strict: Gateway) -> None:
    """A refusal has the shape of its dialect, and the parameter's name there."""
    body = {"model": "odd-groq", "chat_input": "hello", "parameters": {"n": 2}}
    async with strict.client() as http:
        response = await http.post(f"http://{strict.rest}/api/engine/chat/groq", json=body)
    assert response.status_code == 400
    assert response.json()["detail"].startswith("parameters.n: is not supported by the provider groq")


@pytest.mark.parametrize("edge", [False, True])
async def test_the_typed_api(edge: bool, strict: Gateway, upstream: OddUpstream) -> None:
    """Both methods have the warnings as typed fields, with paths of the typed request, and a refusal names the field."""
    upstream.script("odd-mistral", WHOLE)
    request = generate_request("odd-mistral")
    request.sampling.logit_bias["1"] = 5
    request.end_user = "u"
    async with grpc.aio.insecure_channel(strict.rest if edge else strict.grpc) as channel:
        stub = chat_pb2_grpc.ChatServiceStub(channel)
        whole = await stub.Generate(request, metadata=METADATA)
        upstream.script("odd-mistral", STREAM)
        events = [event async for message in stub.StreamGenerate(request, metadata=METADATA) for event in message.events]
        started = events[0].started
        assert list(started.warnings) == list(whole.warnings)
        assert [warning.parameter for warning in whole.warnings] == ["sampling.logit_bias", "end_user"]
        assert {warning.treatment for warning in whole.warnings} == {chat_pb2.ParameterWarning.TREATMENT_DROPPED}
        assert all(warning.reason for warning in whole.warnings)
        request.model = "odd-groq"
        request.sampling.logit_bias.clear()
        request.sampling.choices = 2
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Generate(request, metadata=METADATA)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert reason(caught.value) == "UNSUPPORTED"
    assert "sampling.choices" in (caught.value.details() or "")
