"""Cool-downs that all servers share through a real Redis."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from antiphon.config import ConfigError
from antiphon.routing.candidate import Candidate
from antiphon.routing.router import Router
from antiphon.routing.shared import SharedCooldowns
from tests.redis import Redis
from tests.unit.scripted import ScriptedProvider
from tests.waiting import until


@asynccontextmanager
async def server(url: str) -> AsyncGenerator[Candidate, None]:
    """Run the sharing of one server, and yield its only candidate."""
    router = Router([(ScriptedProvider(), ["one"])])
    shared = SharedCooldowns(SecretStr(url), 1, router)
    task = asyncio.create_task(shared.run())
    try:
        candidate = router.resolve("one").only
        assert candidate is not None
        yield candidate
    finally:
        task.cancel()
        await asyncio.wait([task])
        await shared.close()


def meet(candidate: Candidate, seconds: float) -> None:
    """Do what happens when a provider names the time for which it wants no calls."""
    now = time.monotonic()
    candidate.cool(now + seconds)
    assert candidate.deployment.cooled is not None
    candidate.deployment.cooled(candidate, candidate.cool_until - now)


def left(candidate: Candidate) -> float:
    return candidate.cool_until - time.monotonic()


async def test_all_servers_learn_of_a_rate_limit_at_once_and_later_ones_too() -> None:
    """A running server learns by a message, one that starts later reads it; a shorter time never replaces a longer one."""
    with Redis() as redis:
        async with server(redis.url) as first, server(redis.url) as second:
            await asyncio.sleep(0.3)  # both listen
            meet(first, 30)
            began = time.monotonic()
            await until(lambda: left(second) > 25)
            assert time.monotonic() - began < 0.5
            meet(second, 5)
            await asyncio.sleep(0.2)
            assert left(first) > 25
        async with server(redis.url) as later:
            await until(lambda: 25 < left(later) <= 30)


async def test_without_redis_each_server_goes_on_alone() -> None:
    """An outage of Redis affects no call, is logged once, and ends by itself."""
    with capture_logs() as logs, Redis() as redis:
        async with server(redis.url) as first, server(redis.url) as second:
            await asyncio.sleep(0.3)
            redis.kill()
            meet(first, 30)
            assert left(first) > 25
            await until(lambda: any(line["event"] == "cooldowns_not_shared" for line in logs))
            redis.start()
            await until(lambda: sum(line["event"] == "cooldowns_shared" for line in logs) >= 2)
            meet(first, 60)
            await until(lambda: left(second) > 55)


async def test_an_invalid_address_is_refused_at_start() -> None:
    """A URL of another kind is a `ConfigError`."""
    with pytest.raises(ConfigError, match="redis_url"):
        SharedCooldowns(SecretStr("http://x"), 1, Router([(ScriptedProvider(), ["one"])]))
