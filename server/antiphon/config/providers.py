"""What an operator decides of providers, their models and prices."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from pydantic import Field, SecretStr

from antiphon.config.outbound import OutboundConfig
from antiphon.config.section import Section, read_secret
from antiphon.config.values import HeaderName, Headers

KEEP_ALIVE: Final = 4.0
"""Seconds that an idle connection is kept, unless configured: less than the 5 s of Node.js, uvicorn and hypercorn."""


class ModelsConfig(Section):
    """Which model answers a request that names none. Unset: the first model of the first provider."""

    default: str | None = None


class PriceConfig(Section):
    """The price of a model, in USD for a million tokens. Unset `cached_input`: as `input`."""

    input: float = Field(ge=0)
    output: float = Field(ge=0)
    cached_input: float | None = Field(default=None, ge=0)


class ProviderConfig(OutboundConfig):
    """One provider. `models` are names, or patterns with `*`; a name that several providers have belongs to the first."""

    protocol: str = "openai"
    base_url: str | None = Field(default=None, repr=False, exclude=True)  # its query may hold a key
    api_key_env: str | None = None
    api_key_file: Path | None = None
    models: tuple[str, ...] = ()
    headers: Headers = Field(default_factory=dict, repr=False, exclude=True)  # they may hold keys
    """Sent with every request."""
    query: Mapping[str, str] = Field(default_factory=dict, repr=False, exclude=True)
    """Sent with every request, such as Azure's `api-version`."""
    auth_header: HeaderName = "authorization"
    """The header that carries the key: as a bearer token in `authorization`, bare in any other."""
    stream_usage: bool = True
    """Whether it knows `stream_options.include_usage`."""
    connect_timeout: float = Field(default=10.0, gt=0)
    """Seconds."""
    read_timeout: float = Field(default=300.0, gt=0)
    """The longest silence, in seconds: until the first byte, and between two."""
    keep_alive: float = Field(default=KEEP_ALIVE, gt=0)
    """Seconds that an idle connection is kept.

    A new connection costs a call one to three round trips, so more may pay for a host that is known to keep its end for longer.
    """
    token_delay: float = Field(default=0.02, ge=0)
    """Seconds between the words of the `echo` protocol's streams; the other protocols ignore it."""

    def api_key(self, name: str, environment: Mapping[str, str]) -> SecretStr | None:
        """The key of the provider `name`, from the variable or file that is named. Raises `ConfigError` if that is not there."""
        return read_secret(f"providers.{name}.api_key", self.api_key_env, self.api_key_file, environment)

    @property
    def has_key(self) -> bool:
        """Whether it is asked with an API key, in whose place a caller's own can be sent."""
        return self.api_key_env is not None or self.api_key_file is not None
