"""Routes that survive their providers, seen by callers of a real gateway."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import httpx2
import pytest

from antiphon.v1 import admin_pb2, admin_pb2_grpc, history_pb2, history_pb2_grpc
from tests.e2e.conftest import KEY, READY, Gateway, configuration
from tests.e2e.test_grpc import METADATA
from tests.e2e.test_up import children
from tests.odd_upstream import HANG, LAST, OddUpstream, Pause, Step, answer, chunk, delta, head, sse
from tests.redis import Redis
from tests.waiting import until

HOST = "openrouter"
"""A host that is sent encrypted reasoning."""

MANY = 400
"""So many calls that a deployment in use gets one, also when its first answer was slow and it is only measured again."""

GOOD: list[Step] = [head(), chunk(sse(delta("Well"))), chunk(sse(delta(finish="stop"), "[DONE]")), LAST]
BUSY: list[Step] = [answer({"error": {"message": "x"}}, "429 Too Many Requests", "application/json", "retry-after: 30")]
DOWN: list[Step] = [answer({"error": {"message": "x"}}, "503 Service Unavailable")]


@asynccontextmanager
async def two(
    folder: Path, llm: Any, provider: Any = None, **more: Any
) -> AsyncGenerator[tuple[Gateway, OddUpstream, OddUpstream], None]:
    """Run a gateway whose provider, with such settings, has the deployments `east` and `west`."""
    async with OddUpstream() as east, OddUpstream() as west:
        east.default = west.default = GOOD
        config = configuration(east, llm)
        provider = {"deployments": {}, **(provider or {})}
        addresses = {"east": {"base_url": east.base_url}, "west": {"base_url": west.base_url}}
        deployments = {name: address | provider["deployments"].get(name, {}) for name, address in addresses.items()}
        common = {"models": ["m"], "timeouts": {"first_token": 2}}
        config["providers"][HOST] = {**common, **provider, "deployments": deployments}
        config |= {"routing": {}, **more}
        gateway = Gateway(folder, config)
        await asyncio.to_thread(gateway.wait_for, READY)
        yield gateway, east, west
        assert await asyncio.to_thread(gateway.stop) == 0
        assert "call_failed" not in gateway.output_text


def body(stream: bool = True, **more: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": "Hello"}], "stream": stream, **more}


async def is_answered(http: httpx2.AsyncClient) -> bool:
    response = await http.post("/chat/completions", json=body())
    return response.status_code == 200 and "Well" in response.text and "[DONE]" in response.text


@pytest.mark.parametrize("fault", ["down", "busy", "part", "silent", "slow", "gone"])
async def test_an_outage_of_one_of_two_deployments_is_not_noticed(fault: str, llm: Any, tmp_path: Path) -> None:
    """While one of two deployments fails in any way, every call is answered, with at most a tenth more calls to providers."""
    async with two(tmp_path, llm) as (gateway, east, west), gateway.client() as http:
        assert await is_answered(http)
        scripts: dict[str, list[Step]] = {
            "down": DOWN,
            "busy": BUSY,
            "silent": [HANG],
            "slow": [Pause(0.3), *GOOD],
            "part": GOOD,
        }
        if fault == "gone":
            await east.stop()
        else:
            east.default = scripts[fault]
        before = len(east.requests) + len(west.requests)
        began, results = time.monotonic(), list[bool]()
        for number in range(60):
            if fault == "part":
                east.default = DOWN if number % 3 == 0 else GOOD
            results += await asyncio.gather(*(is_answered(http) for _ in range(5)))
            if number == 0 and fault != "silent":
                assert time.monotonic() - began < 1, "the first good answer came late"
        assert all(results), Counter(results)
        made = len(east.requests) + len(west.requests) - before
        assert made <= 1.1 * len(results) + 10


async def test_the_tokens_of_a_failed_try_are_in_the_log_line_of_the_call(llm: Any, tmp_path: Path) -> None:
    """A provider that fails after its work says what it used together with the error; another one answers, and both are charged."""
    failed = {"error": {"message": "x", "type": "server_error"}, "usage": {"prompt_tokens": 7000, "completion_tokens": 500}}
    async with two(tmp_path, llm) as (gateway, east, _), gateway.client() as http:
        east.default = [head(), chunk(sse(delta(role="assistant"), failed)), LAST]
        while not east.requests:
            assert await is_answered(http)
        lines = [json.loads(line) for line in gateway.output_text.splitlines() if '"event":"call"' in line]
        (line,) = [line for line in lines if len(line.get("attempts", ())) == 2]
        assert 7000 < line["prompt_tokens"] < 7100
        assert 500 < line["completion_tokens"] < 510


async def test_a_deployment_that_returns_gets_its_calls_slowly(llm: Any, tmp_path: Path) -> None:
    """After an outage one call probes the deployment, and the others return to it over some seconds: no stampede."""
    routing = {"breaker": {"open": 0.5, "open_most": 0.5}}
    async with two(tmp_path, llm, routing=routing) as (gateway, east, west), gateway.client() as http:
        east.default = DOWN
        while "deployment_left_alone" not in gateway.output_text:
            assert await is_answered(http)
        east.default = GOOD
        while len(east.requests) < 12 and west.requests:
            seen = len(east.requests)
            assert all(await asyncio.gather(*(is_answered(http) for _ in range(10))))
            assert len(east.requests) - seen <= 8


async def test_calls_wait_for_the_first_that_returns_when_all_are_down(llm: Any, tmp_path: Path) -> None:
    """If all deployments are left alone, calls queue and are answered soon after one is well; beyond the time they get 503.

    Soon: an early probe is made each second, long before the end of the five for which they are left alone.
    """
    routing = {"attempts": 1, "breaker": {"open": 5}}
    async with two(tmp_path, llm, routing=routing) as (gateway, east, west), gateway.client() as http:
        east.default = west.default = DOWN
        while gateway.output_text.count("deployment_left_alone") < 2:
            await http.post("/chat/completions", json=body())
        east.default = west.default = GOOD
        began = time.monotonic()
        calls = [asyncio.create_task(is_answered(http)) for _ in range(5)]
        await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        assert time.monotonic() - began < 2.5, "a second, and the time that a busy machine takes"
        assert all(await asyncio.gather(*calls))
    strict = {"attempts": 1, "breaker": {"open": 60}}
    (tmp_path / "strict").mkdir()
    async with two(tmp_path / "strict", llm, routing=strict) as (gateway, east, west), gateway.client() as http:
        east.default = west.default = DOWN
        while gateway.output_text.count("deployment_left_alone") < 2:
            await http.post("/chat/completions", json=body())
        made = len(east.requests) + len(west.requests)
        response = await http.post("/chat/completions", json=body())
        assert response.status_code == 503
        assert 8 < int(response.headers["retry-after"]) <= 15, "a fifth of the time, as nothing else works"
        assert len(east.requests) + len(west.requests) == made, "25 failures in a row, and still in rotation"


async def test_a_rate_limit_with_its_time_is_obeyed(llm: Any, tmp_path: Path) -> None:
    """`Retry-After` is waited out at that deployment, and a later, shorter one does not end the wait."""
    async with two(tmp_path, llm) as (gateway, east, west), gateway.client() as http:
        east.default = BUSY
        for _ in range(30):
            assert await is_answered(http)
        assert len(east.requests) == 1
        west.default = BUSY
        response = await http.post("/chat/completions", json=body())
        assert response.status_code == 429
        assert 20 <= int(response.headers["retry-after"]) <= 30
        assert len(east.requests) == 1


async def test_a_caller_that_leaves_ends_every_attempt(llm: Any, tmp_path: Path) -> None:
    """The provider's call is closed at once when its caller leaves during a second attempt."""
    async with two(tmp_path, llm) as (gateway, east, west), gateway.client() as http:
        east.default = west.default = DOWN
        east.script("m", DOWN)
        west.script("m", [head(), HANG])
        request = asyncio.create_task(http.post("/chat/completions", json=body(), timeout=20))
        async with asyncio.timeout(10):
            while not west.requests:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        request.cancel()
        left = time.monotonic()
        assert await asyncio.wait_for(west.left.get(), 5) - left < 0.5


async def test_history_keeps_the_route_that_answered(llm: Any, tmp_path: Path) -> None:
    """A recorded reply has the deployment that made it, and the log line of the call has the attempts."""
    async with two(tmp_path, llm) as (gateway, east, _), gateway.client() as http:
        east.default = DOWN
        for _ in range(20):
            made = (await http.post("/chat/new", json={"messages": [{"role": "user", "content": "Hello"}]})).json()["chatId"]
            response = await http.post("/chat/completions", json=body(session_id=made))
            if response.headers["x-antiphon-attempts"] == "2":
                break
        assert response.headers["x-antiphon-route"] == f"{HOST}/west/m"
        async with grpc.aio.insecure_channel(gateway.rest) as channel:
            history: Any = history_pb2_grpc.HistoryServiceStub(channel)
            request = history_pb2.ListMessagesRequest(conversation_id=made)
            last = (await history.ListMessages(request, metadata=METADATA)).messages[-1]
        assert last.message.origin.deployment == f"{HOST}/west"
        calls = [json.loads(line) for line in gateway.output_text.splitlines() if '"event":"call"' in line]
        (call,) = [one for one in calls if one.get("request_id") == response.headers["x-request-id"]]
        assert call["attempts"] == [f"{HOST}/east: overloaded", f"{HOST}/west: ok"]


async def test_tool_loops_with_signatures_never_meet_the_wrong_deployment(llm: Any, tmp_path: Path) -> None:
    """Encrypted reasoning goes back to the deployment that made it: 100 loops of two turns, and nobody gets another's."""
    async with two(tmp_path, llm) as (gateway, east, west), gateway.client() as http:
        for name, upstream in (("east", east), ("west", west)):
            details = [{"type": "reasoning.encrypted", "id": "r1", "format": "x", "index": 0, "data": f"secret-of-{name}"}]
            reply = delta(reasoning_details=details)
            upstream.default = [head(), chunk(sse(reply, delta("Hm"), delta(finish="stop"), "[DONE]")), LAST]

        async def loop() -> None:
            first = await http.post("/chat/completions", json=body(stream=False))
            message = first.json()["choices"][0]["message"]
            route = first.headers["x-antiphon-route"]
            wrapped = message["reasoning_details"][0]["data"]
            assert wrapped.startswith("ap1.")
            user = {"role": "user", "content": "And then?"}
            second = await http.post("/chat/completions", json=body(False) | {"messages": [user, message, user]})
            assert second.status_code == 200
            assert second.headers["x-antiphon-route"] == route

        for _ in range(10):
            await asyncio.gather(*(loop() for _ in range(10)))
        for name, other, upstream in (("east", "west", east), ("west", "east", west)):
            sent = b"".join(received.body for received in upstream.requests)
            assert f"secret-of-{other}".encode() not in sent, f"{name} got the state of {other}"
            assert b"ap1." not in sent


async def test_a_deployment_can_be_taken_out_of_use_on_every_worker(llm: Any, tmp_path: Path) -> None:
    """Within two seconds no worker calls a drained deployment, until it is restored or its time is over."""
    keys = {"keys": [{"name": "test", "key_env": "TEST_KEY", "scopes": ["chat", "history", "admin"]}]}
    async with two(tmp_path, llm, workers=2, auth=keys) as (gateway, east, _):
        assert await is_used(gateway, east, MANY)
        assert "out of use" in await routes(gateway, "drain", f"{HOST}/east")
        await asyncio.sleep(2)
        assert not await is_used(gateway, east)
        assert (await listed(gateway, f"{HOST}/east"))["drained"] is True
        assert "in use" in await routes(gateway, "restore", f"{HOST}/east")
        await asyncio.sleep(2)
        assert await is_used(gateway, east, MANY)
        await routes(gateway, "drain", f"{HOST}/east", "--for", "4")
        await asyncio.sleep(2)
        assert not await is_used(gateway, east, 12)
        await asyncio.sleep(4)
        assert await is_used(gateway, east, MANY)


async def test_a_deployment_can_be_tripped_on_every_worker(llm: Any, tmp_path: Path) -> None:
    """Within two seconds no worker calls it, nor one that starts later; it comes back by itself, or at once if it is restored."""
    keys = {"keys": [{"name": "test", "key_env": "TEST_KEY", "scopes": ["chat", "history", "admin"]}]}
    async with two(tmp_path, llm, workers=2, auth=keys) as (gateway, east, _):
        assert await is_used(gateway, east, MANY)
        assert "is tripped." in await routes(gateway, "trip", f"{HOST}/east")
        await asyncio.sleep(2)
        assert not await is_used(gateway, east)
        found = await listed(gateway, f"{HOST}/east")
        left = datetime.fromisoformat(found["tripped_until"]) - datetime.now(UTC)
        assert timedelta(seconds=30) < left < timedelta(seconds=60)
        assert ([model["breaker"] for model in found["models"]], found["drained"]) == (["open"], False)
        assert "tripped until 20" in " ".join((await routes(gateway, "list")).split())

        os.kill(children(gateway, "antiphon.worker")[0], signal.SIGKILL)
        await asyncio.to_thread(gateway.wait_for, '"event":"serving"', 3)
        await asyncio.sleep(2)
        assert not await is_used(gateway, east)

        assert "in use" in await routes(gateway, "restore", f"{HOST}/east")
        await asyncio.sleep(2)
        found = await listed(gateway, f"{HOST}/east")
        assert ([model["breaker"] for model in found["models"]], found["tripped_until"]) == (["closed"], None)
        assert await is_used(gateway, east, MANY)

        await routes(gateway, "trip", f"{HOST}/east", "--for", "4")
        await asyncio.sleep(2)
        assert not await is_used(gateway, east, 12)
        await asyncio.sleep(4)
        assert await is_used(gateway, east, MANY)
        async with grpc.aio.insecure_channel(gateway.grpc) as channel:
            log = await admin_pb2_grpc.AdminServiceStub(channel).ListAuditEvents(
                admin_pb2.ListAuditEventsRequest(action="deployments.trip"), metadata=METADATA
            )
        assert [event.target for event in log.events] == [f"{HOST}/east"] * 2


async def routes(gateway: Gateway, *words: str) -> str:
    """Run `antiphon routes`, and return what it prints."""
    made = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "antiphon", "routes", *words, "--address", gateway.rest],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "ANTIPHON_KEY": KEY, "COLUMNS": "200"},
        timeout=30,
    )
    assert made.returncode == 0, made.stderr
    return made.stdout


async def listed(gateway: Gateway, name: str) -> Any:
    """Return what `antiphon routes list` has of a deployment."""
    found = json.loads(await routes(gateway, "list", "--json"))["deployments"]
    return next(one for one in found if one["name"] == name)


async def is_used(gateway: Gateway, upstream: OddUpstream, calls: int = 40) -> bool:
    """Return whether one of so many calls goes to the upstream. Each has a connection of its own, so that all workers answer."""

    async def call() -> None:
        async with gateway.client() as http:
            assert await is_answered(http)

    before = len(upstream.requests)
    for _ in range(calls // 4):
        async with asyncio.TaskGroup() as group:
            for _ in range(4):
                group.create_task(call())
        if len(upstream.requests) > before:
            return True
    return False


async def test_the_total_time_of_a_deployment_cuts_a_slow_drip(llm: Any, tmp_path: Path) -> None:
    """A stream that outlasts `timeouts.total` ends with an error and keeps what came; one without output is answered elsewhere."""
    slow = {"east": {"timeouts": {"total": 2, "first_token": 30}, "weight": 1e9}, "west": {"weight": 1e-9}}
    async with two(tmp_path, llm, {"deployments": slow}) as (gateway, east, west), gateway.client() as http:
        east.default = [head(), *(step for _ in range(60) for step in (chunk(sse(delta("drip "))), Pause(0.2))), LAST]
        began = time.monotonic()
        response = await http.post("/chat/completions", json=body())
        assert 1.9 < time.monotonic() - began < 10
        assert "drip " in "".join(json.loads(line[6:])["choices"][0]["delta"].get("content", "") for line in _deltas(response))
        assert '"error"' in response.text
        assert "[DONE]" not in response.text
    # Another gateway, as this one would avoid the deployment that failed just now, whatever its weight.
    async with two(tmp_path, llm, {"deployments": slow}) as (gateway, east, west), gateway.client() as http:
        east.default = [HANG]
        began = time.monotonic()
        assert await is_answered(http)
        assert 1.9 < time.monotonic() - began < 10
        assert len(west.requests) == 1


def _deltas(response: httpx2.Response) -> list[str]:
    return [line for line in response.text.splitlines() if line.startswith("data: {") and '"choices"' in line]


async def test_what_a_provider_grants_is_kept_before_it_refuses(llm: Any, tmp_path: Path) -> None:
    """Calls beyond the requests a minute of one deployment go to the other, then get 429; no provider has to refuse any."""
    granted = {"requests_per_minute": 4, "deployments": {"west": {"requests_per_minute": 6}}}
    async with two(tmp_path, llm, granted) as (gateway, east, west), gateway.client() as http:
        answers = await asyncio.gather(*(is_answered(http) for _ in range(10)))
        assert all(answers)
        assert (len(east.requests), len(west.requests)) == (4, 6)
        refused = await http.post("/chat/completions", json=body())
        assert refused.status_code == 429
        assert 50 <= int(refused.headers["retry-after"]) <= 60
        assert "requests" in refused.json()["error"]["message"]
        assert len(east.requests) + len(west.requests) == 10


async def test_a_call_waits_for_tokens_that_others_return(llm: Any, tmp_path: Path) -> None:
    """Tokens are reserved by an estimate and settled by usage: one that does not fit waits until those in flight have ended."""
    usage = {"prompt_tokens": 5, "completion_tokens": 5, "total_tokens": 10}
    ending = [chunk(sse(delta(finish="stop"))), chunk(sse({"choices": [], "usage": usage})), chunk(sse("[DONE]")), LAST]
    slow: list[Step] = [
        head(),
        chunk(sse(delta("Well"))),
        Pause(1),
        *ending,
    ]
    granted = {"tokens_per_minute": 1000, "queue": {"size": 10, "wait": 10}, "deployments": {"west": {"weight": 1e-9}}}
    async with two(tmp_path, llm, granted) as (gateway, east, west), gateway.client() as http:
        east.default = west.default = slow
        large = body(max_tokens=900, messages=[{"role": "user", "content": "x" * 2400}])

        async def timed() -> float:
            began = time.monotonic()
            response = await http.post("/chat/completions", json=large)
            assert response.status_code == 200
            assert "[DONE]" in response.text
            return time.monotonic() - began

        took = sorted(await asyncio.gather(*(timed() for _ in range(4))))
        assert took[1] < 1.9, "one call fits each deployment"
        assert 1.9 < took[2] <= took[3] < 5, "and the others fit when these have ended"
        assert len(east.requests) + len(west.requests) == 4


@pytest.mark.parametrize("shared", [True, False])
async def test_two_workers_keep_one_grant(shared: bool, llm: Any, tmp_path: Path) -> None:
    """With Redis all workers together use the whole grant; without it each has its half. Neither sends more."""
    with Redis() as redis:
        limits = {"limits": {"redis_url": redis.url}} if shared else {}
        provider = {"requests_per_minute": 21, "deployments": {"west": {"weight": 1e-9, "requests_per_minute": 1}}}
        async with two(tmp_path, llm, provider, workers=2, **limits) as (gateway, east, west):

            async def caller() -> list[bool]:
                async with gateway.client() as http:
                    return [await is_answered(http) for _ in range(6)]

            found = [one for each in await asyncio.gather(*(caller() for _ in range(12))) for one in each]
            assert (len(east.requests), len(west.requests)) == ((21, 1) if shared else (20, 2))
            assert found.count(True) == 22


async def test_each_try_costs_what_its_deployment_does(llm: Any, tmp_path: Path) -> None:
    """The reply costs the price of the deployment that answered; a try that failed is booked to the model that used the tokens."""
    usage = {"prompt_tokens": 30, "completion_tokens": 20, "total_tokens": 50}
    told = chunk(sse({"choices": [], "usage": usage}))
    role = chunk(sse(delta("", role="assistant")))
    east_price, west_price = ({"*": {"input": dollars * 10**6, "output": 0}} for dollars in (1, 7))
    provider = {
        "models": ["m", "n"],
        "deployments": {"east": {"prices": east_price, "weight": 1e9}, "west": {"prices": west_price, "weight": 1e-9}},
    }
    models = {"default": "m", "any": {"try": [f"{HOST}/m", f"{HOST}/n"]}}
    more = {"models": models, "auth": {"keys": [{"name": "test", "key_env": "TEST_KEY", "admin": True}]}}
    async with two(tmp_path, llm, provider, **more) as (gateway, east, west), gateway.client() as http:
        failed = [head(), role, Pause(0.1), chunk(sse({"error": {"message": "overloaded", "code": 503}})), LAST]
        east.script("m", failed)
        west.script("m", failed)
        good = [head(), chunk(sse(delta("Well"))), chunk(sse(delta(finish="stop"))), told, chunk(sse("[DONE]")), LAST]
        east.script("n", good)
        response = await http.post("/chat/completions", json=body() | {"model": "any"})
        assert "Well" in response.text
        assert response.headers["x-antiphon-route"] == f"{HOST}/east/n"

        def line() -> dict[str, Any] | None:
            found = [json.loads(each) for each in gateway.output_text.splitlines() if '"event":"call"' in each.replace(": ", ":")]
            return next((each for each in found if each.get("route") == "any"), None)

        await until(lambda: line() is not None)
        logged = line()
        assert logged is not None
        assert logged["cost_usd"] == 6 * 1 + 6 * 7 + 30 * 1, "a try without usage costs its prompt of 6 tokens"
        assert (logged["prompt_tokens"], logged["completion_tokens"]) == (42, 20)

        async def booked() -> list[tuple[str, str, int, int, float]]:
            async with grpc.aio.insecure_channel(gateway.grpc) as channel:
                stub: Any = admin_pb2_grpc.AdminServiceStub(channel)
                asked = admin_pb2.GetUsageRequest(group_by=[admin_pb2.USAGE_DIMENSION_MODEL, admin_pb2.USAGE_DIMENSION_DEPLOYMENT])
                page = await stub.GetUsage(asked, metadata=METADATA)
                return [(use.model, use.deployment, use.requests, use.prompt_tokens, use.cost_usd) for use in page.days]

        async def is_booked() -> bool:
            return bool(await booked())

        await until(is_booked)
        assert await booked() == [
            ("m", f"{HOST}/east", 0, 6, 6.0),
            ("m", f"{HOST}/west", 0, 6, 42.0),
            ("n", f"{HOST}/east", 1, 30, 30.0),
        ]
