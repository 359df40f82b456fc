"""What an operator decides of the REST dialects: proxies, personas, sessions, clients, the engine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import Field, SecretStr, model_validator

from antiphon.config.outbound import OutboundConfig
from antiphon.config.section import Section, read_secret
from antiphon.config.values import Headers


class ProxyConfig(OutboundConfig):
    """Which targets the two proxy paths may reach.

    With an outbound proxy, that proxy looks up the names and has to refuse private addresses; only names are checked here then.
    """

    allow: tuple[str, ...] = ()
    """Base URLs, such as `https://api.openai.com` or `http://models.internal:8000/v1`: scheme, host and port; with a path,
    everything below it. Only an entry with a port, or with an IP address as host, may be in a private network."""
    aliases: Mapping[str, str] = Field(default_factory=dict)
    """Short names of base URLs, such as `default: https://api.openai.com/v1`. Their targets are allowed."""
    connect_timeout: float = Field(default=10.0, gt=0)
    """Seconds to connect."""
    read_timeout: float = Field(default=300.0, gt=0)
    """The longest silence of a target, in seconds: before the first byte, and between two."""


class PersonaConfig(Section):
    """A persona of the chat paths under `/api/v1/chat`."""

    system: str = ""
    """The system prompt. It is never stored with a conversation."""
    model: str | None = None
    """Unset: the default model."""
    temperature: float | None = Field(default=None, ge=0, le=2)
    """Unset: the provider's default."""
    top_p: float | None = Field(default=None, ge=0, le=1)
    """Unset: the provider's default."""
    max_tokens: int | None = Field(default=None, gt=0)
    """The longest reply, in tokens."""


class SessionsConfig(Section):
    """Sessions of chat completions."""

    automatic: bool = False
    """Whether a call without a `session_id` begins a session and is stored. Of several replies (`n`) the first is stored."""


class ClientConfig(OutboundConfig):
    """The context that conversations of one client of `/api/v1/ai/chat` begin with."""

    context: str | None = None
    """The text itself."""
    file: Path | None = None
    """A file with the text. A relative path is relative to the working directory."""
    url: str | None = Field(default=None, repr=False, exclude=True)  # its query may hold a key
    """A URL that answers with the text."""
    headers: Headers = Field(default_factory=dict, repr=False, exclude=True)  # they may hold keys
    """Sent to the URL."""
    api_key_env: str | None = None
    """The environment variable that holds a bearer token for the URL."""
    api_key_file: Path | None = None
    """The file that holds a bearer token for the URL."""
    ttl: float = Field(default=300.0, ge=0)
    """Seconds after which the text is read again."""
    stale: float = Field(default=86400.0, ge=0)
    """Seconds beyond `ttl` for which the old text is used while it cannot be read again."""
    timeout: float = Field(default=5.0, gt=0)
    """Seconds that reading may take."""
    max_bytes: int = Field(default=1024 * 1024, gt=0)
    """The largest text, in bytes."""

    @model_validator(mode="after")
    def _one_source(self) -> ClientConfig:
        if sum(source is not None for source in (self.context, self.file, self.url)) != 1:
            raise ValueError("needs one of context, file and url")
        return self

    def api_key(self, name: str, environment: Mapping[str, str]) -> SecretStr | None:
        """Return the token for the URL of the client `name`. Raises `ConfigError` if its variable or file does not exist."""
        return read_secret(f"clients.{name}.api_key", self.api_key_env, self.api_key_file, environment)


class EngineConfig(Section):
    """The paths under `/api/engine`."""

    own_key_providers: tuple[str, ...] = ()
    """Providers that a caller may use without a key of this gateway, with an API key of its own. Name none that accepts calls
    without a key, or whose `headers` or `query` hold one: anybody could use it."""
