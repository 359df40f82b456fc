"""The whole configuration: what an operator decides, and the defaults. Checked whole at start; `file` reads it.

What may hold a secret all the same, such as a URL, is neither printed nor dumped. No I/O.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from antiphon.config.access import AuthConfig
from antiphon.config.database import DatabaseConfig
from antiphon.config.dialects import ClientConfig, EngineConfig, PersonaConfig, ProxyConfig, SessionsConfig
from antiphon.config.guards import GuardConfig
from antiphon.config.history import HistoryConfig
from antiphon.config.limits import LimitsConfig
from antiphon.config.ports import GrpcConfig, MetricsConfig, RestConfig
from antiphon.config.prices import PriceConfig
from antiphon.config.providers import ModelsConfig, ProviderConfig
from antiphon.config.routing import RoutingConfig
from antiphon.config.section import Section
from antiphon.config.traces import TracesConfig


class LogConfig(Section):
    """The log: JSON, one object a line. On standard error, lines of plain text from the supervisor are mixed in."""

    level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(lambda v: str(v).lower())] = "info"
    """The least important level that is logged."""
    file: Path | None = None
    """A file, with mode 0600. Unset: a standard stream. What the supervisor says to people stays on that stream."""
    stream: Literal["stderr", "stdout"] = "stderr"
    """Which stream, if there is no file. `stdout` is for containers and services: standard output then has nothing but JSON, also
    from the supervisor, and the banner appears on a terminal only."""


class StreamsConfig(Section):
    """How replies are streamed."""

    heartbeat: float = Field(default=15.0, ge=0)
    """Seconds of silence after which a stream sends its headers and, over SSE, a comment; and again after each such silence.
    gRPC and the engine paths send headers alone. 0: never."""
    coalesce: float = Field(default=0.02, ge=0, le=1)
    """The longest time in seconds for which a busy worker collects tokens of a stream before it sends them together. The first
    token is sent at once, and a worker that is not busy collects nothing. On a worker that is full tokens wait longer, as new
    calls come first. 0: never."""


class Config(Section):
    """The whole configuration. `config.file.load` reads it."""

    grpc: GrpcConfig = GrpcConfig()
    rest: RestConfig = RestConfig()
    metrics: MetricsConfig = MetricsConfig()
    traces: TracesConfig = TracesConfig()
    workers: int = Field(default=1, ge=1, le=256)
    """Server processes. Each uses one core."""
    database: DatabaseConfig = DatabaseConfig()
    history: HistoryConfig = HistoryConfig()
    models: ModelsConfig = ModelsConfig()
    providers: Mapping[str, ProviderConfig] = Field(default_factory=dict)
    """By name, without `/`. Unset: every provider whose usual environment variable is set, and `echo`."""
    routing: RoutingConfig = RoutingConfig()
    prices: Mapping[str, PriceConfig] = Field(default_factory=dict)
    """By model or `provider/model`, in place of the published price."""
    auth: AuthConfig = AuthConfig()
    log: LogConfig = LogConfig()
    proxy: ProxyConfig = ProxyConfig()
    clients: Mapping[str, ClientConfig] = Field(default_factory=dict)
    """By `client_id`."""
    engine: EngineConfig = EngineConfig()
    limits: LimitsConfig = LimitsConfig()
    personas: Mapping[str, PersonaConfig] = Field(default_factory=dict)
    """By name. `maya` is always there, and answers requests that name none."""
    sessions: SessionsConfig = SessionsConfig()
    streams: StreamsConfig = StreamsConfig()
    guards: tuple[GuardConfig, ...] = ()
    """Read in this order."""

    @model_validator(mode="after")
    def _addresses_of_their_own(self) -> Config:
        if self.rest.listen == self.grpc.listen:
            raise ValueError(f"rest.listen and grpc.listen are both {self.rest.listen}: each needs an address of its own")
        if self.metrics.listen in {self.rest.listen, self.grpc.listen}:
            raise ValueError(f"metrics.listen is {self.metrics.listen}, as another port is: each needs an address of its own")
        return self

    @field_validator("providers")
    @classmethod
    def _names_fit_a_path(cls, providers: Mapping[str, ProviderConfig]) -> Mapping[str, ProviderConfig]:
        for name in providers:
            if not name.strip() or "/" in name or not name.isprintable():
                raise ValueError(f"{name!r} cannot be reached: a name must not be empty, nor have a / or a line break in it")
        return providers

    @model_validator(mode="after")
    def _keys_that_envoy_can_read(self) -> Config:
        if self.rest.jwt_authn and not self.auth.tokens:
            raise ValueError("rest.jwt_authn: there are no issuers in auth.tokens")
        if self.rest.jwt_authn and (without := [issuer.name for issuer in self.auth.tokens if issuer.jwks_url is None]):
            raise ValueError(
                f"rest.jwt_authn: Envoy reads keys only from a jwks_url, and {', '.join(without)} in auth.tokens has none"
            )
        return self

    @field_validator("guards")
    @classmethod
    def _one_name_each(cls, guards: tuple[GuardConfig, ...]) -> tuple[GuardConfig, ...]:
        if len({guard.name for guard in guards}) < len(guards):
            raise ValueError("each guard needs a name of its own")
        return guards


def data_directory(environment: Mapping[str, str] = os.environ) -> Path:
    """Where Antiphon keeps its own files for this user: `$XDG_DATA_HOME/antiphon`, by default `~/.local/share/antiphon`."""
    base = environment.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local" / "share") / "antiphon"


def database_url(config: Config, environment: Mapping[str, str] = os.environ) -> str:
    """Where history is kept: as configured, or SQLite in the user's data directory. Raises `ConfigError`."""
    return config.database.address(environment) or f"sqlite:///{data_directory() / 'antiphon.db'}"
