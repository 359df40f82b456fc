"""Maps the protocol names of the configuration to provider classes. A new protocol is a folder, and a line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Final

from antiphon.config import ConfigError, ProviderConfig
from antiphon.net import outbound
from antiphon.net.coalescing import Coalescer
from antiphon.net.http import Transport
from antiphon.net.outbound import Outbound
from antiphon.providers.base import Provider

if TYPE_CHECKING:
    from antiphon.providers.credentials.cache import TokenCache

PROTOCOLS: Final[Mapping[str, str]] = {
    "anthropic": "anthropic.provider:AnthropicProvider",
    "bedrock": "bedrock.provider:BedrockProvider",
    "cohere": "cohere.provider:CohereProvider",
    "gemini": "gemini.provider:GeminiProvider",
    "openai": "openai.provider:OpenAIProvider",
    "openai-by-model": "openai_by_model:OpenAIByModel",
    "openai-responses": "responses.provider:ResponsesProvider",
    "vertex": "vertex.provider:VertexProvider",
    "echo": "echo:EchoProvider",
}
"""The module and the class of each protocol. Only those in use are imported: all take 3 MB, and 50 ms of a start."""

_WITH_ENVIRONMENT: Final = frozenset({"bedrock"})
"""Protocols that read more from the environment than a key: their class is given it, after what the others are given."""


def build(name: str, config: ProviderConfig, environment: Mapping[str, str], coalescer: Coalescer | None = None) -> Provider:
    """Return the provider `name`. Its configuration must be complete (`hosts.complete`). Needs no event loop.

    `coalescer` joins reads of its streams; None: each is passed on at once.
    Raises `ConfigError` for an unknown protocol, a missing base URL, key or credential, or an invalid proxy or authority.
    """
    protocol = PROTOCOLS.get(config.protocol)
    if protocol is None:
        known = ", ".join(sorted(PROTOCOLS))
        raise ConfigError(f"providers.{name}.protocol: {config.protocol!r} is not known; known are {known}")
    way = outbound.build(f"providers.{name}", config, environment)
    key = config.api_key(name, environment) or _tokens(name, config, environment, way)
    make: Callable[..., Provider] = resolve_name(f"antiphon.providers.{protocol}")
    others = (environment,) if config.protocol in _WITH_ENVIRONMENT else ()
    return make(name, config, key, Transport(name, config, way, coalescer), *others)


def _tokens(name: str, config: ProviderConfig, environment: Mapping[str, str], way: Outbound) -> TokenCache | None:
    """Return the tokens of a provider that has no key; None if it has no credentials either. Raises `ConfigError`.

    Few have credentials, and what fetches a token takes 2 MB.
    """
    if config.credentials is None:
        return None
    from antiphon.net.fetch import Fetcher
    from antiphon.providers.credentials.build import token_source
    from antiphon.providers.credentials.cache import TokenCache

    fetcher = Fetcher()
    source = token_source(config.credentials, f"providers.{name}.credentials", environment, fetcher, way)
    return TokenCache(name, config.credentials, source, fetcher)
