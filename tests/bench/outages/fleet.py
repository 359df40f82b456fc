"""The gateways that are put to the test: one of two workers, or two that share Redis and PostgreSQL, each with its own edge."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

from tests.e2e.conftest import READY, Gateway
from tests.postgres import Postgres
from tests.redis import Redis
from tests.waiting import until

PATIENCE: Final = 90.0
"""Seconds that a start may take."""

SETUPS: Final = ("two workers", "two replicas")


@asynccontextmanager
async def fleet(setup: str, folder: Path, config: Mapping[str, Any]) -> AsyncIterator[list[Gateway]]:
    """Run the gateways of one of `SETUPS`, all with the same configuration; of any other name, one gateway of one worker."""
    keys = {"auth": {"keys": [{"name": "test", "key_env": "TEST_KEY"}]}, "log": {"level": "warning"}}
    async with AsyncExitStack() as stack:
        own: list[dict[str, Any]] = [{"workers": 2 if setup == "two workers" else 1}]
        environment = {}
        if setup == "two replicas":
            database, shared = stack.enter_context(Postgres()), stack.enter_context(Redis())
            own = [{"database": {"url": database.url}, "limits": {"redis_url_env": "REDIS_URL"}}] * 2
            environment = {"REDIS_URL": shared.url}
        started = []
        for number, more in enumerate(own):
            place = folder / f"{setup.replace(' ', '-')}-{number}"
            place.mkdir()
            gateway = Gateway(place, {**keys, **config, **more}, **environment)
            stack.push_async_callback(asyncio.to_thread, gateway.stop)
            started.append(gateway)
        for gateway in started:
            await until(lambda: READY in gateway.output_text or gateway.process.poll() is not None, PATIENCE)  # noqa: B023
            assert READY in gateway.output_text, gateway.output_text
        yield started


def two_deployments(east: str, west: str, **more: Any) -> dict[str, Any]:
    """Return the configuration of the model `m` at two deployments of one provider, by their addresses."""
    deployments = {"east": {"base_url": east}, "west": {"base_url": west}}
    return {"providers": {"shared": {"models": ["m"], "deployments": deployments, "api_key_env": "TEST_PROVIDER_KEY", **more}}}
