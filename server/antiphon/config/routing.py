"""What an operator decides of routes: names for several models, retries, and when a deployment that fails is left alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SecretStr

from antiphon.config.prices import PriceConfig
from antiphon.config.section import Section, read_secret
from antiphon.config.values import Headers


def _tiers(value: Any) -> Any:
    """Return tiers in their long form: a mapping of models to weights for each."""
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list | tuple):
        return value
    return [
        {tier: 1.0}
        if isinstance(tier, str)
        else dict.fromkeys(tier, 1.0)
        if isinstance(tier, list | tuple) and all(isinstance(each, str) for each in tier)
        else tier
        for tier in value
    ]


Weight = Annotated[float, Field(gt=0)]
"""A part of the calls, relative to the others' parts."""

Tiers = Annotated[tuple[Annotated[Mapping[str, Weight], Field(min_length=1)], ...], BeforeValidator(_tiers), Field(min_length=1)]
"""Models and their weights, tier by tier."""


class AliasConfig(Section):
    """One name for several models."""

    tiers: Tiers = Field(alias="try")
    """The tiers, in order: each is a model (`openai/gpt-5.6`), or several with weights (`{openai/gpt-5.6: 3, azure/gpt-5.6: 1}`),
    which share the calls. The next tier is tried when the one before fails."""
    when: Mapping[Literal["context_too_long", "refused"], str] = Field(default_factory=dict)
    """The model that is tried instead if a request is longer than the context window of the others, or if a content filter or the
    model itself refuses it. Unset: the caller gets that answer."""


class TimeoutsConfig(Section):
    """How long the parts of one try may take, in seconds. The deadline of the call ends all of them."""

    connect: float = Field(default=10.0, gt=0)
    """To connect: names, TCP and TLS."""
    first_token: float | None = Field(default=None, gt=0)
    """Until the first token of a streamed reply. Unset: 30 if there is another deployment or model to try, else no limit but
    `stall`."""
    stall: float = Field(default=300.0, gt=0)
    """The longest silence: before the first byte, and between two. A reply that is not streamed is silent until it is complete."""
    total: float | None = Field(default=None, gt=0)
    """For the whole try, until the end of its reply, streamed or not, without the time in which the caller does not read. Unset: no
    limit but that of the call."""

    def overridden(self, own: DeploymentTimeoutsConfig) -> TimeoutsConfig:
        """Return these times with those that a deployment sets itself."""
        return self.model_copy(update={name: value for name, value in own if value is not None})


class DeploymentTimeoutsConfig(Section):
    """Times of one deployment. What is unset is as at the provider."""

    connect: float | None = Field(default=None, gt=0)
    """To connect."""
    first_token: float | None = Field(default=None, gt=0)
    """Until the first token of a streamed reply."""
    stall: float | None = Field(default=None, gt=0)
    """The longest silence."""
    total: float | None = Field(default=None, gt=0)
    """For the whole try."""


class DeploymentConfig(Section):
    """One deployment of a provider: another address or key for the same models. What is unset is as at the provider."""

    base_url: str | None = Field(default=None, repr=False, exclude=True)  # its query may hold a key
    """Where its API begins."""
    api_key_env: str | None = None
    """The environment variable that holds its API key."""
    api_key_file: Path | None = None
    """The file that holds its API key."""
    headers: Headers | None = Field(default=None, repr=False, exclude=True)  # they may hold keys
    """Sent with every request, in place of the provider's headers."""
    query: Mapping[str, str] | None = Field(default=None, repr=False, exclude=True)
    """Query parameters of every request, in place of the provider's."""
    weight: float = Field(default=1.0, gt=0)
    """Its part of the calls, relative to the other deployments."""
    concurrent: int | None = Field(default=None, ge=1)
    """The most calls at once in one worker. Unset: as at the provider."""
    requests_per_minute: int | None = Field(default=None, ge=1)
    """The requests that each of its models is granted in any 60 seconds. Unset: as at the provider."""
    tokens_per_minute: int | None = Field(default=None, ge=1)
    """The tokens that each of its models is granted in any 60 seconds. Unset: as at the provider."""
    timeouts: DeploymentTimeoutsConfig = DeploymentTimeoutsConfig()
    """Its own times, in seconds."""
    prices: Mapping[str, PriceConfig] = Field(default_factory=dict)
    """Its own prices, by model; `*` is every other model. Unset: those of the provider."""

    def api_key(self, setting: str, environment: Mapping[str, str]) -> SecretStr | None:
        """Return its own key; None if it has none. Raises `ConfigError` if the variable or file does not exist."""
        return read_secret(f"{setting}.api_key", self.api_key_env, self.api_key_file, environment)


class QueueConfig(Section):
    """The calls that wait for a deployment. Owners of keys take turns in it."""

    size: int = Field(default=100, ge=0)
    """The most calls that wait for one deployment in one worker. Further ones get 429."""
    wait: float = Field(default=5.0, ge=0)
    """The longest that a call waits, in seconds; then it gets 429, or 503 if the deployment is failing."""


class BackoffConfig(Section):
    """The wait before the same deployment is tried again: a random time from 0 to a limit."""

    first: float = Field(default=0.25, ge=0)
    """The limit before the first retry, in seconds. It doubles with each further one."""
    most: float = Field(default=8.0, ge=0)
    """The largest limit."""


class BreakerConfig(Section):
    """When a deployment that fails is left alone. Times are in seconds."""

    consecutive: int = Field(default=5, ge=1)
    """After so many failures in a row."""
    ratio: float = Field(default=0.5, gt=0, le=1)
    """Or if this part of the calls within `window` failed,"""
    of: int = Field(default=20, ge=1)
    """if there were at least so many."""
    window: float = Field(default=30.0, gt=0)
    """The time over which `ratio` is counted."""
    open: float = Field(default=5.0, gt=0)
    """How long it is left alone before one call probes it; twice as long after each failed probe, give or take 20 %. While a
    route has nothing that works, a call probes it each fifth of this time."""
    open_most: float = Field(default=120.0, gt=0)
    """The longest of these times."""


class RoutingConfig(Section):
    """What happens when a provider fails, before any part of a reply was sent. Afterwards no call is tried again."""

    attempts: int = Field(default=3, ge=1, le=10)
    """The most tries of a call, over all tiers and deployments."""
    backoff: BackoffConfig = BackoffConfig()
    """Before the same deployment is tried again."""
    retry_after_most: float = Field(default=20.0, ge=0)
    """The longest that a call waits for a deployment that limits its rate, in seconds, if there is no other."""
    budget: float = Field(default=0.1, ge=0, le=1)
    """How many calls may be sent to the same deployment again, as a part of its calls."""
    breaker: BreakerConfig = BreakerConfig()
    """When a deployment is left alone."""
    affinity: Literal["state", "conversation", "none"] = "state"
    """What keeps calls at one deployment. `state`: signatures and encrypted reasoning in the request, which only the deployment
    that made them can read. `conversation`: also the start of the conversation, for the cache of the provider. `none`: nothing."""
