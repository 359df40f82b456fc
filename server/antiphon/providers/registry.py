"""Maps the protocol names of the configuration to provider classes. A new protocol is a folder, and a line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

from pydantic import SecretStr

from antiphon.config import ConfigError, ProviderConfig
from antiphon.net import outbound
from antiphon.net.coalescing import Coalescer
from antiphon.net.http import Transport
from antiphon.providers.anthropic.provider import AnthropicProvider
from antiphon.providers.base import Provider
from antiphon.providers.cohere.provider import CohereProvider
from antiphon.providers.echo import EchoProvider
from antiphon.providers.gemini.provider import GeminiProvider
from antiphon.providers.openai.provider import OpenAIProvider
from antiphon.providers.responses.provider import ResponsesProvider

_Build: TypeAlias = Callable[[str, ProviderConfig, SecretStr | None, Transport], Provider]

PROTOCOLS: Final[Mapping[str, _Build]] = {
    "anthropic": AnthropicProvider,
    "cohere": CohereProvider,
    "gemini": GeminiProvider,
    "openai": OpenAIProvider,
    "openai-responses": ResponsesProvider,
    "echo": lambda name, config, *_: EchoProvider(name, config),
}


def build(name: str, config: ProviderConfig, environment: Mapping[str, str], coalescer: Coalescer | None = None) -> Provider:
    """Return the provider `name`. Its configuration must be complete (`hosts.complete`). Needs no event loop.

    `coalescer` joins reads of its streams; None: each is passed on at once.
    Raises `ConfigError` for an unknown protocol, a missing base URL or key, or an invalid proxy or certificate authority.
    """
    protocol = PROTOCOLS.get(config.protocol)
    if protocol is None:
        known = ", ".join(sorted(PROTOCOLS))
        raise ConfigError(f"providers.{name}.protocol: {config.protocol!r} is not known; known are {known}")
    transport = Transport(name, config, outbound.build(f"providers.{name}", config, environment), coalescer)
    return protocol(name, config, config.api_key(name, environment), transport)
