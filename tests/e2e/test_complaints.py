"""What users of other gateways complain of, a test each.

Two more are elsewhere, as they take more to show:

- encrypted reasoning sent to a deployment that cannot read it: `test_state_affinity.py`;
- the upstream running on after the caller left: `test_leaving.py`.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.e2e.conftest import READY, Gateway, configuration
from tests.e2e.test_routing import BUSY, DOWN, GOOD, HOST, body, is_answered, two
from tests.odd_upstream import LAST, OddUpstream, Pause, Step, answer, chunk, delta, head, sse
from tests.waiting import until


class Scripted(OddUpstream):
    """Answers each request by the next script, and then by the default one."""

    def __init__(self, *scripts: Sequence[Step]) -> None:
        super().__init__()
        self._next = deque(scripts)

    def steps(self, body: bytes) -> Sequence[Step]:
        return self._next.popleft() if self._next else self.default


def busy(seconds: int) -> list[Step]:
    """Return an answer 429 that names a time."""
    return [answer({"error": {"message": "x"}}, "429 Too Many Requests", "application/json", f"retry-after: {seconds}")]


@asynccontextmanager
async def running(folder: Path, config: dict[str, Any]) -> AsyncGenerator[Gateway, None]:
    """Run a gateway."""
    gateway = Gateway(folder, config)
    await asyncio.to_thread(gateway.wait_for, READY)
    yield gateway
    assert await asyncio.to_thread(gateway.stop) == 0
    assert "call_failed" not in gateway.output_text


@pytest.mark.parametrize("later", [busy(1), DOWN], ids=["a shorter rate limit", "another failure"])
async def test_a_cool_down_is_not_shortened_by_a_later_failure(later: list[Step], llm: Any, tmp_path: Path) -> None:
    """Complaint: a cool-down shortened by a later failure. A call in flight fails later, and the wait stays as it was."""
    late = asyncio.Event()
    async with Scripted(busy(60), [late, *later]) as upstream:
        config = configuration(upstream, llm)
        config["providers"][HOST] = {"models": ["m"], "base_url": upstream.base_url}
        config["routing"] = {"attempts": 1}
        async with running(tmp_path, config) as gateway, gateway.client() as http:
            calls = [asyncio.create_task(http.post("/chat/completions", json=body())) for _ in range(2)]
            await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
            await until(lambda: len(upstream.requests) == 2)
            late.set()
            await asyncio.gather(*calls)
            response = await http.post("/chat/completions", json=body())
        assert response.status_code == 429
        assert 50 <= int(response.headers["retry-after"]) <= 60
        assert len(upstream.requests) == 2, "it was called before its time"


async def test_a_deployment_that_always_fails_leaves_the_rotation(llm: Any, tmp_path: Path) -> None:
    """Complaint: 25 failures in a row, and still in rotation. After five of them it gets no calls, and nobody notices any."""
    async with two(tmp_path, llm) as (gateway, east, _), gateway.client() as http:
        east.default = DOWN
        while "deployment_left_alone" not in gateway.output_text:
            assert await is_answered(http)
        assert len(east.requests) == 5
        assert all([await is_answered(http) for _ in range(50)])
        assert len(east.requests) == 5


async def test_the_time_of_a_rate_limit_is_waited_out(llm: Any, tmp_path: Path) -> None:
    """Complaint: Retry-After ignored. A deployment is not called before the time that it named, and is called after it."""
    async with two(tmp_path, llm) as (gateway, east, _), gateway.client() as http:
        east.default = busy(2)
        while not east.requests:
            assert await is_answered(http)
        told = time.monotonic()
        east.default = GOOD
        while time.monotonic() - told < 1.5:
            assert await is_answered(http)
            if time.monotonic() - told < 1.8:  # the machine may have been busy
                assert len(east.requests) == 1
        await asyncio.sleep(1)
        for _ in range(30):
            assert await is_answered(http)
        assert len(east.requests) > 1


async def test_that_all_are_left_alone_is_not_a_failure_of_theirs(llm: Any, tmp_path: Path) -> None:
    """Complaint: "no deployment" told as something that cools the whole group.

    Calls that nobody could answer do not make the wait longer, and other models of the same deployments go on.
    """
    async with OddUpstream() as east, OddUpstream() as west:
        for upstream in (east, west):
            upstream.default = GOOD
            upstream.script("m", DOWN)
        config = configuration(east, llm)
        deployments = {"east": {"base_url": east.base_url}, "west": {"base_url": west.base_url}}
        config["providers"][HOST] = {"models": ["m", "other"], "deployments": deployments}
        config["routing"] = {"attempts": 2, "breaker": {"open": 2, "open_most": 2}}
        async with running(tmp_path, config) as gateway, gateway.client() as http:
            await check_that_calls_wait(gateway, http, (east, west))


async def check_that_calls_wait(gateway: Gateway, http: httpx2.AsyncClient, both: Sequence[OddUpstream]) -> None:
    """Assert that calls wait for the deployments, which fail now, and that another model of theirs is called at once."""
    while gateway.output_text.count("deployment_left_alone") < 2:
        assert (await http.post("/chat/completions", json=body())).status_code == 502
    left_alone = time.monotonic()
    for upstream in both:
        upstream.script("m", GOOD)
    waiting = [asyncio.create_task(is_answered(http)) for _ in range(20)]
    other = body() | {"model": "other"}
    assert "Well" in (await http.post("/chat/completions", json=other)).text
    assert all(await asyncio.gather(*waiting))
    assert time.monotonic() - left_alone < 8
    assert gateway.output_text.count("deployment_left_alone") == 2


async def test_a_call_waits_for_the_first_that_returns(llm: Any, tmp_path: Path) -> None:
    """Complaint: failing instead of waiting for the first that returns. Of two that limit their rate, the sooner one answers."""
    async with two(tmp_path, llm) as (gateway, east, west), gateway.client() as http:
        east.default, west.default = busy(2), BUSY
        for _ in range(20):  # until both have said so
            if east.requests and west.requests:
                break
            asked = asyncio.create_task(is_answered(http))
            await until(lambda: bool(east.requests))
            east.default = GOOD
            assert await asked
            east.default = busy(2)
        assert len(west.requests) == 1
        east.default = GOOD
        assert all(await asyncio.gather(*(is_answered(http) for _ in range(10))))
        assert len(west.requests) == 1, "the one that returns later was called"


async def test_a_rate_limit_inside_a_stream_is_failed_over(llm: Any, tmp_path: Path) -> None:
    """Complaint: a 429 inside a stream that is not failed over. The stream had begun for the gateway, and not for the caller."""
    inside = {"error": {"message": "x", "type": "rate_limit_error", "code": "rate_limit_exceeded"}}
    async with two(tmp_path, llm) as (gateway, east, west), gateway.client() as http:
        east.default = [head(), chunk(sse(delta(role="assistant"))), Pause(0.05), chunk(sse(inside)), LAST]
        while not east.requests:
            assert await is_answered(http)
        for _ in range(10):
            assert await is_answered(http)
        assert len(east.requests) == 1, "it limits its rate, and was called again"
        assert west.requests
