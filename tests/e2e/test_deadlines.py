"""A REST caller's deadline, `grpc-timeout`, at a worker that is too busy to notice that it passed, or with a caller that is."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncGenerator
from typing import Any, NamedTuple
from urllib.parse import quote

import httpx2
import pytest
import pytest_asyncio
from llmock.testing import LLMockServer

from tests.e2e.conftest import READY, Gateway, configuration
from tests.e2e.test_rolling import workers
from tests.odd_upstream import HANG, OddUpstream, chunk, delta, head, sse
from tests.waiting import until

MESSAGES = [{"role": "user", "content": "Hi"}]
CHAT = {"model": "odd-x", "messages": MESSAGES}
STORED = {"chat_history": MESSAGES}
GEMINI = {"contents": [{"parts": [{"text": "Hi"}]}]}
ENGINE = {"model": "odd-x", "chat_input": "Hi"}


class Busy(NamedTuple):
    """A gateway with one worker."""

    gateway: Gateway
    worker: int
    """Its process id."""
    target: str
    """The upstream's URL, for the paths of proxies."""

    async def post(self, path: str, body: dict[str, Any]) -> httpx2.Response:
        """Call with a deadline of one second, while the worker stands still from before it passes until after."""

        async def stand_still() -> None:
            await asyncio.sleep(0.6)
            os.kill(self.worker, signal.SIGSTOP)
            await asyncio.sleep(0.8)
            os.kill(self.worker, signal.SIGCONT)

        url = f"http://{self.gateway.rest}{path.format(target=quote(self.target, safe=''))}"
        async with self.gateway.client() as http:
            standing = asyncio.create_task(stand_still())
            try:
                return await http.post(url, json=body, headers={"grpc-timeout": "1S"})
            finally:
                await standing


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def busy(tmp_path_factory: pytest.TempPathFactory, llm: LLMockServer) -> AsyncGenerator[Busy, None]:
    async with OddUpstream() as upstream:
        upstream.default = [head(), chunk(sse(delta("Hel"))), HANG]
        upstream.script("odd-endless", [head(), *[chunk(sse(delta("x" * 60_000)))] * 1000, HANG])
        target = upstream.base_url.removesuffix("/v1")
        more = {
            "auth": {"keys": [{"name": "boss", "key_env": "TEST_KEY", "admin": True}]},
            "workers": 1,
            "models": {"default": "odd-x"},
            "proxy": {"allow": [target]},
        }
        gateway = Gateway(tmp_path_factory.mktemp("busy"), configuration(upstream, llm, **more))
        await asyncio.to_thread(gateway.wait_for, READY)
        (worker,) = workers(gateway)
        yield Busy(gateway, worker, target)
        assert await asyncio.to_thread(gateway.stop) == 0
        assert "call_failed" not in gateway.output_text


OPENAI = {"type": "server_error", "param": None, "code": "deadline_exceeded"}
OPENAI_PROXY = "/api/v1/proxy/{target}%2Fv1/sk-x/chat/completions"
GEMINI_PROXY = "/api/v1/proxy/{target}/v1beta/models/odd-x:streamGenerateContent"

STREAMS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "openai": ("/v1/chat/completions", {**CHAT, "stream": True}, {"error": OPENAI}),
    "assistant": ("/api/v1/chat/generate/stream", STORED, {"type": "error", "content": None, "error": {}}),
    "analytics": ("/api/v1/ai/chat", {**CHAT, "stream": True}, {"error": "Gateway Timeout", "code": 504}),
    "openai proxy": (OPENAI_PROXY, {**CHAT, "stream": True}, {"error": OPENAI}),
    "gemini proxy": (GEMINI_PROXY, GEMINI, {"error": {"code": 504, "status": "DEADLINE_EXCEEDED"}}),
}
WHOLE: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "openai": ("/v1/chat/completions", CHAT, {"error": OPENAI, "detail": ...}),
    "assistant": ("/api/v1/chat/generate", STORED, {}),
    "assistant, not stored": ("/api/v1/chat", STORED, {}),
    "analytics": ("/api/v1/ai/chat", CHAT, {"error": "Gateway Timeout", "code": 504}),
    "engine": ("/api/engine/chat/odd", ENGINE, {"detail": ...}),
}
UNMARKED: dict[str, dict[str, Any]] = {
    "text": {**ENGINE, "is_stream": True, "has_end_token": True},
    "chunks": {"model": "odd-x", "chat_input": "Hi", "is_stream": True, "retries": 0, "parameters": {}},
}


def without_message(error: dict[str, Any]) -> dict[str, Any]:
    """Return an error without its message, which is the same in every dialect, and `...` for one as `detail`."""
    said = "The deadline of the call passed before the reply was whole."
    found = [error[name] for name in ("message", "detail") if name in error]
    inner = error.get("error")
    if isinstance(inner, dict):
        found.append(inner["message"])
        error = {**error, "error": {name: value for name, value in inner.items() if name != "message"}}
    assert found, error
    assert set(found) == {said}
    return {name: ... if name == "detail" else value for name, value in error.items() if name != "message"}


@pytest.mark.parametrize("name", STREAMS)
async def test_a_stream_ends_with_its_error_event(name: str, busy: Busy) -> None:
    """What has come is followed by the dialect's error event, and not by a clean end."""
    path, body, error = STREAMS[name]
    response = await busy.post(path, body)
    assert response.status_code == 200
    *events, last = response.text.removesuffix("\n\n").split("\n\n")
    assert "Hel" in events[-1]
    assert without_message(json.loads(last.removeprefix("data: "))) == error


@pytest.mark.parametrize("name", WHOLE)
async def test_a_json_answer_is_504_in_its_dialects_shape(name: str, busy: Busy) -> None:
    """The error is the dialect's own."""
    path, body, error = WHOLE[name]
    response = await busy.post(path, body)
    assert response.status_code == 504
    assert without_message(response.json()) == error


@pytest.mark.parametrize("name", UNMARKED)
async def test_a_stream_without_error_events_breaks_off(name: str, busy: Busy) -> None:
    """Formats that cannot report an error have no clean end either."""
    with pytest.raises(httpx2.RemoteProtocolError):
        await busy.post("/api/engine/chat/odd", UNMARKED[name])


@pytest.mark.parametrize("name", ["openai", "openai proxy"])
async def test_a_caller_that_reads_too_late_finds_the_stream_broken_off(name: str, busy: Busy) -> None:
    """After its deadline a stream that nobody read has neither a clean end nor none: it breaks off."""
    path, body, _ = STREAMS[name]
    url = f"http://{busy.gateway.rest}{path.format(target=quote(busy.target, safe=''))}"
    async with (
        busy.gateway.client() as http,
        http.stream("POST", url, json={**body, "model": "odd-endless"}, headers={"grpc-timeout": "1S"}) as response,
    ):
        ended = f'"request_id":"{response.headers["x-request-id"]}"'  # its log line
        await until(lambda: ended in busy.gateway.output_text, 20)
        with pytest.raises(httpx2.RemoteProtocolError):
            await response.aread()
