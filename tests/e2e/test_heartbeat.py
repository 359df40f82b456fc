"""Streams while the model is silent, through the real Envoy."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import grpc
import httpx2
import openai
import pytest
import pytest_asyncio
from llmock.testing import LLMockServer

from antiphon.v1 import chat_pb2_grpc
from tests.e2e.conftest import KEY, READY, Gateway, configuration
from tests.e2e.test_grpc import METADATA, generate_request
from tests.odd_upstream import CUT, LAST, OddUpstream, Step, chunk, delta, head, sse

COMMENT = b": waiting\n\n"
THINKS = delta("", role="assistant")
HELLO: list[Step] = [chunk(sse(delta("Hello", "stop"), "[DONE]")), LAST]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def quick(
    upstream: OddUpstream, llm: LLMockServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[Gateway, None]:
    """Yield a gateway that sends a heartbeat every fifth of a second."""
    more = {
        "streams": {"heartbeat": 0.2},
        "personas": {"thinker": {"model": "odd-thinker"}},
        "auth": {"keys": [{"name": "test", "key_env": "TEST_KEY", "admin": True}]},
    }
    started = Gateway(tmp_path_factory.mktemp("heartbeat"), configuration(upstream, llm, **more))
    await asyncio.to_thread(started.wait_for, READY)
    yield started
    assert await asyncio.to_thread(started.stop) == 0
    assert "call_failed" not in started.output_text


PATHS: list[tuple[str, dict[str, Any], bytes]] = [
    ("/api/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}], "stream": True}, COMMENT * 2),
    ("/api/v1/ai/chat", {"messages": [{"role": "user", "content": "Hi"}], "stream": True}, COMMENT * 2),
    ("/api/v1/chat/generate/stream", {"chat_history": [{"role": "user", "content": "Hi"}], "persona": "thinker"}, COMMENT * 2),
    ("/api/engine/chat/odd", {"chat_input": "Hi", "is_stream": True}, b""),  # bare text has no comments
]


@pytest.mark.parametrize(("path", "body", "before"), PATHS)
async def test_a_stream_shows_that_it_lives(
    path: str, body: dict[str, Any], before: bytes, quick: Gateway, upstream: OddUpstream
) -> None:
    """Headers and comments are sent while the model is silent, and the reply follows."""
    thought = asyncio.Event()
    upstream.script("odd-thinker", [head(), chunk(sse(THINKS)), thought, *HELLO])
    async with httpx2.AsyncClient(timeout=20, trust_env=False) as client:
        request = client.build_request(
            "POST", f"http://{quick.rest}{path}", json={**body, "model": "odd-thinker"}, headers={"authorization": f"Bearer {KEY}"}
        )
        response = await client.send(request, stream=True)
        seen = b""
        pieces = response.aiter_bytes()
        while len(seen) < len(before):
            seen += await anext(pieces)
        assert not thought.is_set()
        thought.set()
        rest = b"".join([piece async for piece in pieces])
    assert response.status_code == 200
    assert seen.startswith(before)
    assert b"Hello" in rest


async def test_a_failure_before_the_first_heartbeat_is_a_status(quick: Gateway, upstream: OddUpstream) -> None:
    """A failure before the first heartbeat is a status, even if the provider had begun its answer."""
    upstream.script("odd-brief", [head(), chunk(sse(THINKS)), CUT])
    async with quick.sdk() as sdk:
        with pytest.raises(openai.InternalServerError) as caught:
            await sdk.chat.completions.create(model="odd-brief", messages=[{"role": "user", "content": "Hi"}], stream=True)
    assert caught.value.status_code == 502


async def test_a_failure_after_a_heartbeat_is_an_event(quick: Gateway, upstream: OddUpstream) -> None:
    """After a heartbeat a failure is an event in the stream. The OpenAI SDK ignores the comment and raises the error."""
    thought = asyncio.Event()
    upstream.script("odd-late", [head(), chunk(sse(THINKS)), thought, CUT])
    async with quick.sdk() as sdk:
        stream = await sdk.chat.completions.create(model="odd-late", messages=[{"role": "user", "content": "Hi"}], stream=True)
        thought.set()  # the headers came, so a heartbeat was sent
        with pytest.raises(openai.APIError, match="odd"):
            async for _ in stream:
                pass


async def test_a_model_that_pauses_within_its_reply_is_covered_too(quick: Gateway, upstream: OddUpstream) -> None:
    """Comments are also sent between two deltas."""
    pause = asyncio.Event()
    upstream.script("odd-pause", [head(), chunk(sse(delta("Hel"))), pause, chunk(sse(delta("lo", "stop"), "[DONE]")), LAST])
    body = {"model": "odd-pause", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
    async with quick.client() as client, client.stream("POST", "/chat/completions", json=body) as response:
        text = b""
        async for piece in response.aiter_bytes():
            text += piece
            if text.endswith(COMMENT):
                pause.set()
    first, _, second = text.partition(COMMENT)
    assert b"Hel" in first
    assert b'"lo"' in second


@pytest.mark.parametrize("way", ["grpc", "rest"])
async def test_a_typed_stream_has_its_headers(way: str, quick: Gateway, upstream: OddUpstream) -> None:
    """A gRPC stream gets its initial metadata early, directly and through Envoy, and no message without events."""
    thought = asyncio.Event()
    upstream.script("odd-typed", [head(), chunk(sse(THINKS)), thought, *HELLO])
    async with grpc.aio.insecure_channel(getattr(quick, way)) as channel:
        call = chat_pb2_grpc.ChatServiceStub(channel).StreamGenerate(generate_request("odd-typed"), metadata=METADATA)
        assert dict(await call.initial_metadata())["x-request-id"]
        thought.set()
        answers = [answer async for answer in call]
    assert all(answer.events for answer in answers)
