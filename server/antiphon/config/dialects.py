"""What an operator decides of the REST dialects: proxies, personas, sessions, clients, the engine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import Field, SecretStr, model_validator

from antiphon.config.outbound import OutboundConfig
from antiphon.config.section import Section, read_secret
from antiphon.config.values import Headers


class ProxyConfig(OutboundConfig):
    """Which targets the proxy paths may reach: none, unless they are named here. `antiphon.net.egress` has the rules.

    With an outbound proxy of its own it is that which looks names up, and which has to refuse addresses: here only names are held
    against the list then.
    """

    allow: tuple[str, ...] = ()
    """Base URLs, such as https://api.openai.com or http://models.internal:8000/v1: scheme, host, port; with a path, all below it.
    Only one with a port in it, or with an address for a host, may lie in a private network."""
    aliases: Mapping[str, str] = Field(default_factory=dict)
    """Short names of base URLs, such as default: https://api.openai.com/v1. What has one is allowed."""
    connect_timeout: float = Field(default=10.0, gt=0)
    """Seconds."""
    read_timeout: float = Field(default=300.0, gt=0)
    """The longest silence of a target, in seconds: until the first byte, and between two."""


class PersonaConfig(Section):
    """Who answers on the chat paths of `/api/v1/chat`. What is unset is left to the request's defaults."""

    system: str = ""
    """What the model is told before the conversation. Never stored with it."""
    model: str | None = None
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, ge=0, le=1)
    max_tokens: int | None = Field(default=None, gt=0)


class SessionsConfig(Section):
    """Sessions of `/api/v1/chat/completions`."""

    automatic: bool = False
    """Whether a call without a `session_id` begins one: all that is said there is then stored."""


class ClientConfig(OutboundConfig):
    """What the conversations of one client of `/api/v1/ai/chat` begin with: a text, a file, or what a URL answers."""

    context: str | None = None
    file: Path | None = None
    url: str | None = Field(default=None, repr=False, exclude=True)  # its query may hold a key
    headers: Headers = Field(default_factory=dict, repr=False, exclude=True)  # they may hold keys
    """Sent to the URL."""
    api_key_env: str | None = None
    """The environment variable, or the file, that holds a bearer token for the URL."""
    api_key_file: Path | None = None
    ttl: float = Field(default=300.0, ge=0)
    """Seconds for which what was read is used before it is read again."""
    stale: float = Field(default=86400.0, ge=0)
    """Seconds beyond that for which it is still used while it cannot be read again."""
    timeout: float = Field(default=5.0, gt=0)
    """Seconds that reading it may take."""
    max_bytes: int = Field(default=1024 * 1024, gt=0)
    """The largest that it may be."""

    @model_validator(mode="after")
    def _one_source(self) -> ClientConfig:
        if sum(source is not None for source in (self.context, self.file, self.url)) != 1:
            raise ValueError("needs one of context, file and url")
        return self

    def api_key(self, name: str, environment: Mapping[str, str]) -> SecretStr | None:
        """The token for the URL, of the client `name`. Raises `ConfigError` if the variable or file that is named is not there."""
        return read_secret(f"clients.{name}.api_key", self.api_key_env, self.api_key_file, environment)


class EngineConfig(Section):
    """The paths under /api/engine."""

    own_key_providers: tuple[str, ...] = ()
    """Providers that may be asked without a key of this gateway, by a caller that brings a key of the provider's own. Name none
    that takes calls without a key, or whose `headers` or `query` hold one: anybody could use it."""
