"""Maps the protocol names of the configuration to provider classes. A new protocol is a folder, and a line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

from pydantic import SecretStr

from antiphon.config import ConfigError, ProviderConfig
from antiphon.net import outbound
from antiphon.net.coalescing import Coalescer
from antiphon.net.fetch import Fetcher
from antiphon.net.http import Transport
from antiphon.net.outbound import Outbound
from antiphon.providers.anthropic.provider import AnthropicProvider
from antiphon.providers.base import Provider
from antiphon.providers.bedrock.provider import BedrockProvider
from antiphon.providers.cohere.provider import CohereProvider
from antiphon.providers.credentials.build import token_source
from antiphon.providers.credentials.cache import TokenCache
from antiphon.providers.echo import EchoProvider
from antiphon.providers.gemini.provider import GeminiProvider
from antiphon.providers.openai.provider import OpenAIProvider
from antiphon.providers.openai_by_model import OpenAIByModel
from antiphon.providers.responses.provider import ResponsesProvider
from antiphon.providers.vertex.provider import VertexProvider

_Key: TypeAlias = SecretStr | TokenCache | None
_Build: TypeAlias = Callable[[str, ProviderConfig, _Key, Transport, Mapping[str, str]], Provider]
"""Makes a provider from its name, settings, key and transport, and the environment."""


def _of(protocol: Callable[[str, ProviderConfig, _Key, Transport], Provider]) -> _Build:
    """Return what makes the providers of a protocol that needs nothing of the environment."""
    return lambda name, config, key, transport, _: protocol(name, config, key, transport)


PROTOCOLS: Final[Mapping[str, _Build]] = {
    "anthropic": _of(AnthropicProvider),
    "bedrock": BedrockProvider,
    "cohere": _of(CohereProvider),
    "gemini": _of(GeminiProvider),
    "openai": _of(OpenAIProvider),
    "openai-by-model": _of(OpenAIByModel),
    "openai-responses": _of(ResponsesProvider),
    "vertex": _of(VertexProvider),
    "echo": lambda name, config, *_: EchoProvider(name, config),
}


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
    return protocol(name, config, key, Transport(name, config, way, coalescer), environment)


def _tokens(name: str, config: ProviderConfig, environment: Mapping[str, str], way: Outbound) -> TokenCache | None:
    """Return the tokens of a provider that has no key; None if it has no credentials either. Raises `ConfigError`."""
    if config.credentials is None:
        return None
    fetcher = Fetcher()
    source = token_source(config.credentials, f"providers.{name}.credentials", environment, fetcher, way)
    return TokenCache(name, config.credentials, source, fetcher)
