"""What an operator decides of providers, their models and prices."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal, TypeAlias

from pydantic import ConfigDict, Field, SecretStr, field_validator, model_validator

from antiphon.config.credentials import TokenConfig
from antiphon.config.outbound import OutboundConfig
from antiphon.config.routing import AliasConfig, DeploymentConfig, QueueConfig
from antiphon.config.section import Section, read_secret
from antiphon.config.values import HeaderName, Headers

KEEP_ALIVE: Final = 4.0
"""Seconds that an idle connection is kept, unless configured: less than the 5 s of Node.js, uvicorn and hypercorn."""


UnsupportedPolicy: TypeAlias = Literal["map", "drop", "refuse"]
"""What is done with a parameter that a provider or a model does not have."""


class ModelsConfig(Section):
    """Which model answers. Any other name than `default` is a name for several models."""

    model_config = ConfigDict(extra="allow")

    __pydantic_extra__: dict[str, AliasConfig] = Field(init=False)

    default: str | None = None
    """The model for requests that name none. Unset: the first model of the first provider that lists any. Required where all
    providers have patterns only."""
    list_providers: bool = True
    """Whether lists of models also have those that the providers list, as far as `providers.<name>.models` allows them. The
    providers are asked when a caller first wants a list of models. Which model answers a request never depends on their lists."""
    refresh: float = Field(default=3600.0, gt=0)
    """Seconds after which a provider's list is read again. The old one is used meanwhile, and for as long as that fails."""

    @property
    def aliases(self) -> Mapping[str, AliasConfig]:
        """Return the names for several models."""
        return self.__pydantic_extra__ or {}


class TierPriceConfig(Section):
    """The price of a model in one service tier, in USD per million tokens."""

    input: float = Field(ge=0)
    """Tokens of the prompt."""
    output: float = Field(ge=0)
    """Tokens of the reply, with its reasoning."""
    cached_input: float | None = Field(default=None, ge=0)
    """Prompt tokens that the provider read from its cache. Unset: as `input`."""


class PriceConfig(TierPriceConfig):
    """The price of a model, in USD per million tokens."""

    tiers: Mapping[str, TierPriceConfig] = Field(default_factory=dict)
    """Other prices by the service that a call got, in the provider's words: `flex`, `priority`, `batch`. A tier that is not here
    has the model's prices above."""


class ProviderConfig(OutboundConfig):
    """One provider."""

    protocol: str = "openai"
    """`openai` for the chat-completions API and all hosts that follow it, `openai-responses` for OpenAI's Responses API,
    `openai-by-model` for the one of the two that a model of OpenAI has, which is the default at OpenAI's own address,
    `anthropic` for Anthropic's Messages API, `bedrock` for AWS Bedrock's Converse API, `cohere` for version 2 of Cohere's chat
    API, `gemini` for the Gemini API, `vertex` for Google's Vertex AI, or `echo`, which needs no account."""
    base_url: str | None = Field(default=None, repr=False, exclude=True)  # its query may hold a key
    """Where its API begins, such as `https://api.example.com/v1`. May contain `{model}`. Unset: that of the known host with
    this name."""
    api_key_env: str | None = None
    """The environment variable that holds the API key. Unset: the usual one of the known host, if `base_url` is unset too."""
    api_key_file: Path | None = None
    """The file that holds the API key."""
    region: str | None = None
    """The AWS region of the protocol `bedrock`. Unset: that in `base_url`, else that of `AWS_REGION` or `AWS_DEFAULT_REGION`."""
    credentials: TokenConfig | None = None
    """An access token of Google or Microsoft Entra, in place of a key: see [Providers](../guide/providers.md#access-tokens)."""
    project: str | None = Field(default=None, pattern=r"^[A-Za-z0-9:._-]*[A-Za-z0-9]$")
    """The project of Google Cloud whose models the protocol `vertex` reaches. Unset: `GOOGLE_CLOUD_PROJECT`."""
    location: str | None = Field(default=None, pattern=r"^[a-z][a-z0-9-]*$")
    """The region of Google Cloud for it, `global`, `us` or `eu`. Unset: `GOOGLE_CLOUD_LOCATION`, else `global`."""
    models: tuple[str, ...] = ()
    """Names, and patterns with `*`. A model that several providers have belongs to the first of them; each is also reached as
    `<provider>/<model>`."""
    headers: Headers = Field(default_factory=dict, repr=False, exclude=True)  # they may hold keys
    """Sent with every request."""
    query: Mapping[str, str] = Field(default_factory=dict, repr=False, exclude=True)
    """Query parameters of every request, such as Azure's `api-version`."""
    auth_header: HeaderName = "authorization"
    """The header that carries the key: as a bearer token in `authorization`, bare in any other."""
    stream_usage: bool = True
    """Whether the host accepts `stream_options.include_usage`."""
    unsupported: UnsupportedPolicy = "map"
    """What to do with a parameter that the provider or the model does not have. `map`: send the nearest equivalent; if there is
    none, leave it out. `drop`: leave it out. In both cases the reply has a warning. `refuse`: refuse the request with 400."""
    connect_timeout: float = Field(default=10.0, gt=0)
    """Seconds to connect."""
    read_timeout: float = Field(default=300.0, gt=0)
    """The longest silence, in seconds: before the first byte, and between two."""
    keep_alive: float = Field(default=KEEP_ALIVE, gt=0)
    """Seconds that an idle connection is kept. Longer saves new connections (one to three round trips each) where the host is
    known to keep its end as long."""
    first_token_timeout: float | None = Field(default=None, gt=0)
    """Seconds until the first token of a streamed reply. Unset: 30 if there is another deployment or model to try, else no limit
    but `read_timeout`."""
    total_timeout: float | None = Field(default=None, gt=0)
    """Seconds for one try until the end of a reply that is not streamed, or the first token of one that is. Unset: no limit but
    that of the call."""
    deployments: Mapping[str, DeploymentConfig] = Field(default_factory=dict)
    """Several addresses or keys for the same models, by name, without `/`. Unset: one, with the settings of the provider."""
    concurrent: int | None = Field(default=None, ge=1)
    """The most calls at once to one deployment in one worker. Unset: no limit."""
    queue: QueueConfig = QueueConfig()
    """The calls that wait for a deployment, because `concurrent` is reached, or because it is failing and there is no other."""
    token_delay: float = Field(default=0.02, ge=0)
    """Seconds between the words of the `echo` protocol's streams. Ignored by other protocols."""

    @model_validator(mode="after")
    def _one_credential(self) -> ProviderConfig:
        if sum(source is not None for source in (self.api_key_env, self.api_key_file, self.credentials)) > 1:
            raise ValueError("takes only one of api_key_env, api_key_file and credentials")
        return self

    def api_key(self, name: str, environment: Mapping[str, str]) -> SecretStr | None:
        """Return the key of the provider `name`. Raises `ConfigError` if its variable or file does not exist."""
        return read_secret(f"providers.{name}.api_key", self.api_key_env, self.api_key_file, environment)

    @field_validator("deployments")
    @classmethod
    def _names_fit_a_route(cls, deployments: Mapping[str, DeploymentConfig]) -> Mapping[str, DeploymentConfig]:
        for name in deployments:
            if not name.strip() or "/" in name or not name.isprintable():
                raise ValueError(f"{name!r} cannot be used: a name must not be empty, nor have a / or a line break in it")
        return deployments

    @property
    def has_key(self) -> bool:
        """Whether it is asked with an API key, in whose place a caller's own can be sent."""
        own = any(each.api_key_env is not None or each.api_key_file is not None for each in self.deployments.values())
        return own or self.api_key_env is not None or self.api_key_file is not None
