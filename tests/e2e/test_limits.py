"""Limits through the real Envoy: in every dialect, shared by two gateways through a real Redis, and while that is down."""

import asyncio
import re
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import grpc
import httpx2
import openai
import pytest
import pytest_asyncio
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from llmock.testing import LLMockServer

from antiphon.rest.registry import DIALECTS as ROWS
from antiphon.rest.shared.paths import bindings, pattern_of
from antiphon.v1 import chat_pb2, chat_pb2_grpc, message_pb2
from tests.e2e.conftest import READY, Gateway, configuration
from tests.odd_upstream import LAST, End, OddUpstream, chunk, delta, head, sse
from tests.redis import Redis
from tests.waiting import until

HELLO: Any = [{"role": "user", "content": "Hello"}]
ASKED = {"model": "echo", "messages": HELLO}
TYPED = chat_pb2.GenerateRequest(
    model="echo", messages=[message_pb2.Message(role="ROLE_USER", blocks=[message_pb2.Block(text=message_pb2.Text(text="Hello"))])]
)

# By name: a path below /api/v1, and a body.
DIALECTS: dict[str, tuple[str, dict[str, Any]]] = {
    "openai": ("/chat/completions", ASKED),
    "openai-stream": ("/chat/completions", {**ASKED, "stream": True}),
    "analytics": ("/ai/chat", ASKED),
    "chat": ("/chat", {"chat_history": HELLO}),
    "generate": ("/chat/generate", {"chat_history": HELLO}),
    "generate-stream": ("/chat/generate/stream", {"chat_history": HELLO}),
    "engine": ("/../engine/chat/echo", {"model": "echo", "chat_input": "Hello"}),
}
PROXIES = ("proxy-openai", "proxy-gemini")
TYPED_METHODS = ("grpc", "grpc-stream")
NAMES = (*DIALECTS, *PROXIES, *TYPED_METHODS, "sdk")


def key_of(name: str) -> str:
    return f"sk-limited-{name}"


def variable(name: str) -> str:
    return "KEY_" + name.replace("-", "_").upper()


def keys(**quotas: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration of keys with these limits. Each is an admin key, as one dialect needs that."""
    return {"keys": [{"name": n, "key_env": variable(n), "admin": True, "limits": quota} for n, quota in quotas.items()]}


def environment(*names: str) -> dict[str, str]:
    return {variable(name): key_of(name) for name in names}


def calling(gateway: Gateway, name: str) -> httpx2.AsyncClient:
    return gateway.client(headers={"authorization": f"Bearer {key_of(name)}"})


def detail(error: grpc.aio.AioRpcError, kind: Any) -> Any:
    status = rpc_status.from_call(error)
    assert status is not None
    for packed in status.details:
        found = kind()
        if packed.Unpack(found):
            return found
    return None


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def limited(
    upstream: OddUpstream, llm: LLMockServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[Gateway, None]:
    """Yield a gateway with, for each dialect, a key for one call a minute and a key with a tiny budget."""
    quotas = {name: {"requests_per_minute": 1, "tokens_per_minute": 1000} for name in NAMES}
    budgets = {f"{name}-poor": {"daily_usd": 0.000001} for name in (*NAMES, "keyed")}
    written = {name: {"tokens_per_minute": 2000} for name in ("caller", "broken-caller", "tooled", "teller")}
    more = {
        "models": {"default": "echo"},
        "auth": keys(**quotas, **budgets, slow={"concurrent_streams": 1, "tokens_per_minute": 2000}, **written),
        "prices": {"echo": {"input": 1, "output": 1}},
        "proxy": {"allow": [upstream.base_url.removesuffix("/v1"), llm.base_url("openai"), llm.base_url("gemini")]},
    }
    folder = tmp_path_factory.mktemp("limited")
    started = Gateway(folder, {**configuration(upstream, llm), **more}, **environment(*quotas, *budgets, *written, "slow"))
    await asyncio.to_thread(started.wait_for, READY)
    yield started
    assert await asyncio.to_thread(started.stop) == 0
    assert "call_failed" not in started.output_text


def body_of(name: str, status: int, message: str, wait: int) -> Any:
    """Return the documented error body of a dialect."""
    limit = status == 429
    kind, code = ("rate_limit_error", "rate_limit_exceeded") if limit else ("insufficient_quota", "budget_exceeded")
    error = {"message": message, "type": kind, "param": None, "code": code}
    match name:
        case "openai" | "openai-stream":
            return {"detail": message, "error": error}
        case "analytics":
            word = {429: "Too Many Requests", 402: "Payment Required"}[status]
            return {"error": word, "message": message, "code": status, **({"retryAfter": wait} if limit else {})}
        case "engine":
            return {"detail": message}
        case "proxy-openai":
            return {"error": error}
        case "proxy-gemini":
            return {"error": {"code": status, "message": message, "status": "RESOURCE_EXHAUSTED"}}
        case _:
            return {"message": message}


async def post(http: httpx2.AsyncClient, name: str, llm: LLMockServer) -> httpx2.Response:
    match name:
        case "proxy-openai":
            path = f"/proxy/{quote(llm.base_url('openai'), safe='')}/sk-own/chat/completions"
            return await http.post(path, json={"model": "gpt-4o", "messages": HELLO})
        case "proxy-gemini":
            path = f"/proxy/{quote(llm.base_url('gemini'), safe='')}/v1beta/models/gemini-2.0-flash:generateContent"
            return await http.post(path, json={"contents": [{"parts": [{"text": "Hello"}]}]}, headers={"x-goog-api-key": "own"})
        case _:
            return await http.post(f"{http.base_url.join(path_of(name))}", json=DIALECTS[name][1])


def path_of(name: str) -> str:
    """Return the whole path of a dialect."""
    path, _ = DIALECTS[name]
    return path.replace("/..", "/api", 1) if path.startswith("/..") else f"/api/v1{path}"


def test_every_method_that_asks_a_model_is_here() -> None:
    """Every method that calls a model is tested here, so a new dialect must be limited too."""
    paths = [path_of(name) for name in DIALECTS]
    for row in ROWS:
        for name, method in row.methods.items():
            templates = [pattern_of(path) for _, path in bindings(row.service.methods_by_name[name])]
            found = any(re.fullmatch(template, path) for template in templates for path in paths)
            assert found or 402 not in method.statuses, f"tests/e2e/test_limits.py: add {name} of {row.name} to DIALECTS"


@pytest.mark.parametrize("name", [*DIALECTS, *PROXIES])
async def test_a_limit_is_reported_in_each_dialect(name: str, limited: Gateway, llm: LLMockServer) -> None:
    """An allowed call reports what is left. The next one gets 429 in the dialect's format with the time to wait."""
    async with calling(limited, name) as http:
        first = await post(http, name, llm)
        assert first.status_code in {200, 201}, first.text
        assert first.headers["x-ratelimit-limit-requests"] == "1"
        assert first.headers["x-ratelimit-remaining-requests"] == "0"
        assert first.headers["x-ratelimit-reset-requests"].startswith(("1m0", "59", "1m"))
        if name not in PROXIES:  # the tokens of proxied calls are not known
            assert first.headers["x-ratelimit-limit-tokens"] == "1000"
            assert 0 < int(first.headers["x-ratelimit-remaining-tokens"]) < 1000
        second = await post(http, name, llm)
    assert second.status_code == 429
    wait = int(second.headers["retry-after"])
    assert 50 < wait <= 60
    assert "x-should-retry" not in second.headers
    assert second.headers["x-ratelimit-remaining-requests"] == "0"
    assert second.headers["x-request-id"]
    message = "The limit of this key, 1 requests a minute, is reached."
    actual = second.json()
    assert message in second.text
    full = next(value for value in _texts(actual) if value.startswith(message))
    assert actual == body_of(name, 429, full, wait)


@pytest.mark.parametrize("name", DIALECTS)
async def test_a_spent_budget_is_reported_in_each_dialect(name: str, limited: Gateway, llm: LLMockServer) -> None:
    """A spent budget gives 402 in the dialect's format, without a time to retry."""
    async with calling(limited, f"{name}-poor") as http:
        assert (await post(http, name, llm)).status_code in {200, 201}
        second = await post(http, name, llm)
    assert second.status_code == 402
    assert "retry-after" not in second.headers
    assert second.headers["x-should-retry"] == "false"
    assert second.json() == body_of(name, 402, "The budget of this key for today, 1e-06 USD, is spent.", 0)


async def test_only_a_key_in_place_of_the_gateways_pays(limited: Gateway) -> None:
    """A caller's own key avoids the budget only if the provider uses it in place of the gateway's."""

    async def ask(provider: str, model: str, **key: str) -> int:
        body = {"model": model, "chat_input": "Hello", **key}
        return (await http.post(f"http://{limited.rest}/api/engine/chat/{provider}", json=body)).status_code

    async with calling(limited, "keyed-poor") as http:
        assert [await ask("echo", "echo", api_key="x") for _ in range(3)] == [200, 402, 402]
        assert [await ask("llmock", "gpt-4o", api_key="sk-own") for _ in range(2)] == [200, 200]
        assert await ask("llmock", "gpt-4o") == 402


def _texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for inner in value.values() for text in _texts(inner)]
    return [value] if isinstance(value, str) else []


@pytest.mark.parametrize("name", TYPED_METHODS)
async def test_over_grpc_a_limit_is_a_reason_and_a_time(name: str, limited: Gateway) -> None:
    """Over gRPC a limit is RESOURCE_EXHAUSTED with its name and the time to wait; a budget has no time."""
    async with grpc.aio.insecure_channel(limited.grpc) as channel:
        stub = chat_pb2_grpc.ChatServiceStub(channel)

        async def call(key: str) -> None:
            metadata = (("authorization", f"Bearer {key_of(key)}"),)
            if name == "grpc":
                await stub.Generate(TYPED, metadata=metadata)
            else:
                assert [_ async for _ in stub.StreamGenerate(TYPED, metadata=metadata)]

        for key, reason, limit in (
            (name, "RATE_LIMIT_EXCEEDED", {"limit": "requests_per_minute", "scope": "key", "quota": "1"}),
            (f"{name}-poor", "BUDGET_EXCEEDED", {"limit": "daily_usd", "scope": "key", "quota": "1e-06"}),
        ):
            await call(key)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(key)
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            info = detail(caught.value, error_details_pb2.ErrorInfo)
            assert (info.reason, dict(info.metadata)) == (reason, limit)
            retry = detail(caught.value, error_details_pb2.RetryInfo)
            if reason == "BUDGET_EXCEEDED":
                assert retry is None
            else:
                assert 50 < retry.retry_delay.ToSeconds() <= 60


async def test_the_openai_sdk_knows_the_limit(limited: Gateway) -> None:
    """The OpenAI SDK raises its own error class for a limit."""
    async with limited.sdk(api_key=key_of("sdk")) as sdk:
        raw = await sdk.chat.completions.with_raw_response.create(**ASKED)  # type: ignore[call-overload]
        assert raw.headers["x-ratelimit-remaining-requests"] == "0"
        with pytest.raises(openai.RateLimitError) as caught:
            await sdk.chat.completions.create(**ASKED)  # type: ignore[call-overload]
    assert (caught.value.code, caught.value.type) == ("rate_limit_exceeded", "rate_limit_error")


async def test_a_cancelled_stream_gives_back_its_place_and_its_tokens(limited: Gateway, upstream: OddUpstream) -> None:
    """A cancelled stream frees its place at once, and only the tokens received so far are counted."""
    upstream.script("odd-slow", [head(), chunk(sse(delta("Hello"))), asyncio.Event()])
    upstream.script("odd-quick", [head(), chunk(sse(delta("Hi", "stop"), "[DONE]")), LAST])
    quick = {"model": "odd-quick", "messages": HELLO, "max_tokens": 400}
    async with calling(limited, "slow") as http:
        body = {"model": "odd-slow", "messages": HELLO, "stream": True, "max_tokens": 400}
        async with http.stream("POST", "/chat/completions", json=body) as response:
            pieces = response.aiter_text()
            while "Hello" not in await anext(pieces):
                pass
            answer = await http.post("/chat/completions", json=quick)
            assert answer.status_code == 429
            assert "1 calls at once" in answer.text
            assert answer.headers["retry-after"] == "1"

        async def room() -> bool:
            nonlocal answer
            answer = await http.post("/chat/completions", json=quick)
            return answer.status_code != 429

        await until(room)
    assert answer.status_code == 200
    assert int(answer.headers["x-ratelimit-remaining-tokens"]) > 2000 - 406 - 50


@pytest.mark.parametrize("broken", [False, True], ids=["whole", "broken-off"])
async def test_tool_calls_without_usage_count_towards_the_limit(broken: bool, limited: Gateway, upstream: OddUpstream) -> None:
    """If the upstream reports no usage, tokens of tool calls are estimated and counted, even if the reply breaks off."""
    call = {"index": 0, "id": "c", "type": "function", "function": {"name": "write", "arguments": "x" * 8000}}
    arguments = chunk(sse(delta(tool_calls=[call])))
    end = [End.RESET] if broken else [chunk(sse(delta(finish="tool_calls"), "[DONE]")), LAST]
    upstream.script("odd-caller", [head(), arguments, *end])
    name = "broken-caller" if broken else "caller"
    body = {"model": "odd-caller", "messages": HELLO, "stream": True, "max_tokens": 10}
    async with calling(limited, name) as http:
        first = await http.post("/chat/completions", json={**body, "stream_options": {"include_usage": True}})
        assert first.status_code == 200
        second = await http.post("/chat/completions", json=body)
    assert second.status_code == 429
    assert "2000 tokens a minute" in second.text
    if not broken:
        assert '"completion_tokens":2002,' in first.text
        assert '"estimated":true' in first.text


async def test_an_estimate_is_the_same_in_each_dialect(limited: Gateway, upstream: OddUpstream) -> None:
    """Estimated usage is the same in each dialect, for a reply with only a tool call."""
    call = {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": "x" * 399}}
    upstream.script("odd-teller", [head(), chunk(sse(delta(tool_calls=[call]), delta(finish="tool_calls"), "[DONE]")), LAST])
    body = {"model": "odd-teller", "messages": HELLO}
    async with calling(limited, "teller") as http:
        openai_ = (await http.post("/chat/completions", json=body)).json()["usage"]
        analytics = (await http.post("/ai/chat", json=body)).json()["data"]["usage"]
        body = {"model": "odd-teller", "chat_input": "Hello"}
        engine = (await http.post(f"http://{limited.rest}/api/engine/chat/odd", json=body)).json()["metrics"]
    async with grpc.aio.insecure_channel(limited.grpc) as channel:
        request = chat_pb2.GenerateRequest(model="odd-teller", messages=TYPED.messages)
        metadata = (("authorization", f"Bearer {key_of('teller')}"),)
        typed = (await chat_pb2_grpc.ChatServiceStub(channel).Generate(request, metadata=metadata)).usage
    actual = [(usage["prompt_tokens"], usage["completion_tokens"], usage["estimated"]) for usage in (openai_, analytics)]
    assert actual == [(6, 100, True)] * 2
    assert (typed.input_tokens, typed.output_tokens, typed.estimated) == (6, 100, True)
    assert (engine["input_tokens"], engine["output_tokens"]) == (6, 100)


async def test_tools_and_pictures_count_towards_the_limit(limited: Gateway) -> None:
    """Tools and pictures count as prompt tokens. The base64 data of a picture does not count as text."""
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "description": "x" * 9000}}}
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 100_000, "detail": "low"}}
    async with calling(limited, "tooled") as http:
        refused = await http.post("/chat/completions", json={**ASKED, "tools": [tool]})
        allowed = await http.post("/chat/completions", json={**ASKED, "messages": [{"role": "user", "content": [picture]}]})
    assert (refused.status_code, allowed.status_code) == (429, 200)
    assert "too large" in refused.text
    assert allowed.json()["usage"]["prompt_tokens"] < 100


@pytest.mark.slow
async def test_two_workers_have_a_share_each(tmp_path: Path, upstream: OddUpstream, llm: LLMockServer) -> None:
    """Without Redis each of two workers has half of the limit, so both together allow exactly the limit."""
    more = {"workers": 2, "auth": keys(shared={"requests_per_minute": 20})}
    gateway = Gateway(tmp_path, {**configuration(upstream, llm), **more}, **environment("shared"))
    await asyncio.to_thread(gateway.wait_for, READY)
    async with calling(gateway, "shared") as http:
        statuses = [(await http.post("/chat/completions", json=ASKED)).status_code for _ in range(60)]
    assert statuses.count(200) == 20
    assert await asyncio.to_thread(gateway.stop) == 0


@pytest.mark.slow
async def test_a_budget_survives_a_restart(tmp_path: Path, upstream: OddUpstream, llm: LLMockServer) -> None:
    """After a restart the gateway knows what was spent."""
    more = {
        "auth": keys(spender={"monthly_usd": 0.00002}),
        "prices": {"echo": {"input": 1, "output": 1}},
        "database": {"url": "sqlite:///spent.db"},
    }
    for expected in ({200}, {402}):
        gateway = Gateway(tmp_path, {**configuration(upstream, llm), **more}, **environment("spender"))
        await asyncio.to_thread(gateway.wait_for, READY)
        async with calling(gateway, "spender") as http:
            statuses = set()
            for _ in range(20):
                statuses.add((await http.post("/chat/completions", json=ASKED)).status_code)
                if 402 in statuses:
                    break
        assert await asyncio.to_thread(gateway.stop) == 0
        assert expected <= statuses
    assert statuses == {402}


# Redis.


async def two_gateways(folder: Path, config: dict[str, Any], redis: Redis, *names: str) -> list[Gateway]:
    started = []
    for number in range(2):
        own = folder / str(number)
        own.mkdir()
        started.append(Gateway(own, config, REDIS_URL=redis.url, **environment(*names)))
    for gateway in started:
        await asyncio.to_thread(gateway.wait_for, READY)
    return started


async def test_two_gateways_with_one_redis_hold_the_limit(tmp_path: Path, upstream: OddUpstream, llm: LLMockServer) -> None:
    """Two gateways with one Redis together allow exactly the limit for 64 callers at once."""
    more = {
        "workers": 2,
        "auth": keys(many={"requests_per_minute": 300, "concurrent_streams": 1000}),
        "limits": {"redis_url_env": "REDIS_URL"},
        "log": {"level": "warning"},
    }
    with Redis() as redis:
        gateways = await two_gateways(tmp_path, {**configuration(upstream, llm), **more}, redis, "many")

        async def caller(number: int) -> list[int]:
            async with calling(gateways[number % 2], "many") as http:
                return [(await http.post("/chat/completions", json=ASKED)).status_code for _ in range(8)]

        statuses = [status for found in await asyncio.gather(*map(caller, range(64))) for status in found]
        for gateway in gateways:
            assert await asyncio.to_thread(gateway.stop) == 0
            assert "limits_unavailable" not in gateway.output_text
            assert Redis.PASSWORD not in gateway.output_text
    assert (statuses.count(200), statuses.count(429)) == (300, 212)


@pytest.mark.slow
async def test_a_redis_that_dies_under_load(tmp_path: Path, upstream: OddUpstream, llm: LLMockServer) -> None:
    """If Redis dies, `open` goes on and `closed` refuses with 503. Each logs it once, and both recover when it is back."""
    config = {
        **configuration(upstream, llm),
        "auth": keys(many={"requests_per_minute": 100_000}, few={"requests_per_minute": 5}),
        "log": {"level": "info"},
    }
    with Redis() as redis:
        gateways = {}
        for way in ("open", "closed"):
            folder = tmp_path / way
            folder.mkdir()
            limits = {"redis_url_env": "REDIS_URL", "on_failure": way}
            started = Gateway(folder, {**config, "limits": limits}, REDIS_URL=redis.url, **environment("many", "few"))
            gateways[way] = started
        for gateway in gateways.values():
            await asyncio.to_thread(gateway.wait_for, READY)
        found: dict[str, list[int]] = {"open": [], "closed": []}
        bodies: list[Any] = []
        ended = asyncio.Event()

        async def load(way: str) -> None:
            async with calling(gateways[way], "many") as http:
                while not ended.is_set():
                    answer = await http.post("/chat/completions", json=ASKED)
                    found[way].append(answer.status_code)
                    if answer.status_code == 503:
                        bodies.append(answer.json())

        async def get(way: str, status: int) -> None:
            count = len(found[way])
            await until(lambda: status in found[way][count:])

        loads = [asyncio.create_task(load(way)) for way in ("open", "closed") for _ in range(4)]
        await asyncio.gather(get("open", 200), get("closed", 200))
        redis.kill()
        await asyncio.gather(get("open", 200), get("closed", 503))
        async with calling(gateways["open"], "few") as http:  # this gateway counts for itself
            statuses = [(await http.post("/chat/completions", json=ASKED)).status_code for _ in range(8)]
        assert statuses == [200] * 5 + [429] * 3
        redis.start()
        await get("closed", 200)
        await asyncio.to_thread(gateways["open"].wait_for, "limits_available")
        before = len(found["closed"])
        await until(lambda: len(found["closed"]) >= before + 20)
        assert set(found["closed"][before:]) == {200}
        ended.set()
        await asyncio.gather(*loads)
        assert set(found["open"]) == {200}
        assert set(found["closed"]) == {200, 503}
        assert bodies[0]["error"]["code"] == "limits_unavailable"
        for gateway in gateways.values():
            assert await asyncio.to_thread(gateway.stop) == 0
            assert gateway.output_text.count('"event":"limits_unavailable"') == 1
            assert Redis.PASSWORD not in gateway.output_text
