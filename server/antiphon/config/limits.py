"""What an operator decides of bounds, and of how much may be used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, SecretStr, model_validator

from antiphon.config.section import Section, read_secret
from antiphon.domain.principal import Quota


class QuotaConfig(Section):
    """How much may be used; unset or null is no limit, 0 is nothing at all. As `antiphon.domain.principal.Quota`."""

    requests_per_minute: int | None = Field(default=None, ge=0)
    tokens_per_minute: int | None = Field(default=None, ge=0)
    concurrent_streams: int | None = Field(default=None, ge=0)
    daily_usd: float | None = Field(default=None, ge=0)
    monthly_usd: float | None = Field(default=None, ge=0)

    def quota(self) -> Quota:
        """As a value of the domain."""
        return Quota(**self.model_dump())


class LimitsConfig(Section):
    """Bounds on calls, times in seconds, and how much may be used: `antiphon.limits` has the rules."""

    request_timeout: float = Field(default=600.0, gt=0)
    """The longest that a call may take; a caller's own deadline can only be shorter."""
    drain_delay: float = Field(default=0.0, ge=0)
    """On SIGTERM, how long everything is served as before, but unready, so that balancers and clients leave; then comes `drain`."""
    drain: float = Field(default=30.0, ge=0)
    """On SIGTERM, how long the calls in flight may go on once no new ones are taken."""
    calls_per_worker: int = Field(default=2000, gt=0)
    """Calls that may go on at once in one worker, whoever makes them; further ones are refused."""
    request_bytes_per_worker: int = Field(default=1024**3, gt=0)
    """Bytes that the requests of one worker may have together, from their arrival to their calls' end; further ones are refused.
    Those of up to 64 KiB are not counted; over gRPC, one that is not there after half a second counts as 32 MiB."""
    overall: QuotaConfig = QuotaConfig()
    """Of all callers together."""
    per_owner: QuotaConfig = QuotaConfig()
    """Of each owner, all its keys together."""
    owners: Mapping[str, QuotaConfig] = Field(default_factory=dict)
    """Of the owners named here; what is not set is as in `per_owner`, and null is no limit."""
    per_key: QuotaConfig = QuotaConfig()
    """Of each key that has no limit of its own."""
    redis_url: SecretStr | None = None
    """Where all servers count together, such as redis://host:6379/0; also rediss:// and unix://. Unset: each worker counts for
    itself, and has its share of a limit."""
    redis_url_env: str | None = None
    """The environment variable that holds it."""
    redis_timeout: float = Field(default=0.5, gt=0)
    """The longest that a call waits for Redis, in seconds."""
    on_failure: Literal["open", "closed"] = "open"
    """While Redis is out of reach: `open` has each worker count for itself, as without one; `closed` refuses what has a limit."""

    @model_validator(mode="after")
    def _one_url(self) -> LimitsConfig:
        if self.redis_url is not None and self.redis_url_env is not None:
            raise ValueError("takes only one of redis_url and redis_url_env")
        return self

    def redis(self, environment: Mapping[str, str]) -> SecretStr | None:
        """Where Redis is; None without one. Raises `ConfigError` if the variable that is named is not there."""
        return self.redis_url or read_secret("limits.redis_url", self.redis_url_env, None, environment)
