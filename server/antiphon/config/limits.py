"""What an operator decides of bounds, and of how much may be used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, SecretStr, model_validator

from antiphon.config.section import Section, read_secret
from antiphon.domain.principal import Quota


class QuotaConfig(Section):
    """How much may be used. Unset or null: no limit; 0: nothing at all."""

    requests_per_minute: int | None = Field(default=None, ge=0)
    """Calls in any 60 seconds, including those that fail."""
    tokens_per_minute: int | None = Field(default=None, ge=0)
    """Tokens of prompts and replies in any 60 seconds."""
    concurrent_streams: int | None = Field(default=None, ge=0)
    """Calls to providers at the same time, streaming or not."""
    daily_usd: float | None = Field(default=None, ge=0)
    """Cost in a day (UTC)."""
    monthly_usd: float | None = Field(default=None, ge=0)
    """Cost in a calendar month (UTC)."""

    def quota(self) -> Quota:
        """As a value of the domain."""
        return Quota(**self.model_dump())


class LimitsConfig(Section):
    """Time-outs, bounds for each worker, and how much may be used. Times are in seconds."""

    request_timeout: float = Field(default=600.0, gt=0)
    """The longest that a call may take. A caller's own deadline can only be shorter."""
    drain_delay: float = Field(default=0.0, ge=0)
    """After SIGTERM: how long everything is still served while health reports "not ready", so that balancers and clients move
    away. 5 behind a balancer."""
    drain: float = Field(default=30.0, ge=0)
    """After `drain_delay`: how long the calls in flight may go on."""
    calls_per_worker: int = Field(default=2000, gt=0)
    """Calls at the same time in one worker. Further calls get 429."""
    request_bytes_per_worker: int = Field(default=1024**3, gt=0)
    """Bytes of all requests in one worker, each counted until its call ends. Further calls get 429. Requests up to 64 KiB are
    not counted; a gRPC request that has not arrived after half a second counts as 32 MiB."""
    overall: QuotaConfig = QuotaConfig()
    """All callers together."""
    per_owner: QuotaConfig = QuotaConfig()
    """Each owner, with all its keys together."""
    owners: Mapping[str, QuotaConfig] = Field(default_factory=dict)
    """The owners named here. What is unset is as in `per_owner`; null is no limit."""
    per_key: QuotaConfig = QuotaConfig()
    """Each key that has no limit of its own."""
    redis_url: SecretStr | None = None
    """The Redis in which all servers count together: `redis://host:6379/0`, `rediss://` or `unix://`. Unset: each worker counts
    for itself and enforces its share of a limit."""
    redis_url_env: str | None = None
    """The environment variable that holds the URL."""
    redis_timeout: float = Field(default=0.5, gt=0)
    """The longest that a call waits for Redis, in seconds."""
    on_failure: Literal["open", "closed"] = "open"
    """While Redis cannot be reached: `open` lets each worker count for itself, `closed` refuses calls that have a limit."""

    @model_validator(mode="after")
    def _one_url(self) -> LimitsConfig:
        if self.redis_url is not None and self.redis_url_env is not None:
            raise ValueError("takes only one of redis_url and redis_url_env")
        return self

    def redis(self, environment: Mapping[str, str]) -> SecretStr | None:
        """Where Redis is; None without one. Raises `ConfigError` if the variable that is named is not there."""
        return self.redis_url or read_secret("limits.redis_url", self.redis_url_env, None, environment)
