"""Cool-downs shared through Redis: what one worker learns of a provider's rate limit, all workers and replicas know at once.

A cool-down is published to those that run, and kept as a key for those that start later, such as the workers of a new
configuration. It is written as the seconds that are left, so the servers' clocks need not agree. Redis is never waited for: without
it each worker learns for itself.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any, Final

import msgspec
import redis.asyncio as client
import structlog
from pydantic import SecretStr
from redis.exceptions import RedisError

from antiphon.config import ConfigError
from antiphon.routing.candidate import Candidate
from antiphon.routing.router import Router

_CHANNEL: Final = "antiphon:cooldowns"
_PREFIX: Final = "antiphon:cooldown:"

_RETRY: Final = 1.0
"""Seconds between two attempts to reach Redis."""

_FAILURES: Final = (RedisError, OSError, TimeoutError)

_SCRIPT: Final = """
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[1]) then redis.call('SET', KEYS[1], '1', 'PX', ARGV[1]) end
redis.call('PUBLISH', ARGV[2], ARGV[3])
"""
"""Keeps the longer one of two cool-downs, and publishes the new one. `PEXPIRE ... GT` would need Redis 7."""

log = structlog.get_logger(__name__)


class _Cooldown(msgspec.Struct, array_like=True):
    """The message: a deployment and model, and the seconds for which it is left alone."""

    deployment: str
    model: str
    seconds: float


class SharedCooldowns:
    """The cool-downs of one process. Belongs to the event loop of its first call."""

    def __init__(self, url: SecretStr, timeout: float, router: Router) -> None:
        """`timeout` is in seconds. Raises `ConfigError`. Does not connect yet."""
        self._deployments = {deployment.name: deployment for deployment in router.deployments()}
        options: Mapping[str, Any] = {"socket_connect_timeout": timeout, "health_check_interval": 5}
        try:
            self._redis = client.Redis.from_url(url.get_secret_value(), socket_timeout=timeout, **options)
            self._listening = client.Redis.from_url(url.get_secret_value(), **options)
        except ValueError:
            raise ConfigError("limits.redis_url: must begin with redis://, rediss:// or unix://") from None
        self._publish = self._redis.register_script(_SCRIPT)
        self._running: set[asyncio.Task[None]] = set()
        self._reachable = True
        for deployment in self._deployments.values():
            deployment.cooled = self.share

    def share(self, candidate: Candidate, seconds: float) -> None:
        """Tell all servers that a candidate is left alone for so many seconds. Returns at once."""
        if seconds >= 0.001:
            task = asyncio.create_task(self._send(_Cooldown(candidate.deployment.name, candidate.model, seconds)))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def run(self) -> None:
        """Apply what other servers tell, until cancelled."""
        while True:
            try:
                async with self._listening.pubsub(ignore_subscribe_messages=True) as subscription:
                    await subscription.subscribe(_CHANNEL)
                    await self._read_all()
                    self._report(reachable=True)
                    async for message in subscription.listen():
                        self._apply(msgspec.json.decode(message["data"], type=_Cooldown))
            except _FAILURES:
                self._report(reachable=False)
            except msgspec.DecodeError:
                pass  # of another version
            await asyncio.sleep(_RETRY)

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()
        await self._listening.aclose()

    async def _send(self, told: _Cooldown) -> None:
        milliseconds = round(told.seconds * 1000)
        key = f"{_PREFIX}{told.deployment}/{told.model}"
        try:
            await self._publish(keys=[key], args=[milliseconds, _CHANNEL, msgspec.json.encode(told)])
        except _FAILURES:
            self._report(reachable=False)

    async def _read_all(self) -> None:
        """Apply what was told before this process listened."""
        async for key in self._redis.scan_iter(match=f"{_PREFIX}*", count=1000):
            route = key.decode().removeprefix(_PREFIX)
            name = max((known for known in self._deployments if route.startswith(f"{known}/")), key=len, default=None)
            left = await self._redis.pttl(key)
            if name is not None and left > 0:
                self._apply(_Cooldown(name, route.removeprefix(f"{name}/"), left / 1000))

    def _apply(self, told: _Cooldown) -> None:
        deployment = self._deployments.get(told.deployment)
        if deployment is not None:
            deployment.candidate(told.model).cool(time.monotonic() + told.seconds)

    def _report(self, *, reachable: bool) -> None:
        """Log the beginning and the end of an outage, once."""
        if reachable is not self._reachable:
            self._reachable = reachable
            if reachable:
                log.info("cooldowns_shared")
            else:
                log.warning("cooldowns_not_shared")
