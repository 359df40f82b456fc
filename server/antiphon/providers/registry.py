"""From a protocol's name in the configuration to the class that speaks it. A new protocol is one file, and one line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

from pydantic import SecretStr

from antiphon.config import ConfigError, ProviderConfig
from antiphon.net import outbound
from antiphon.net.outbound import Outbound
from antiphon.providers.base import Provider
from antiphon.providers.echo import EchoProvider
from antiphon.providers.openai.provider import OpenAIProvider

_Build: TypeAlias = Callable[[str, ProviderConfig, SecretStr | None, Outbound], Provider]

PROTOCOLS: Final[Mapping[str, _Build]] = {
    "openai": OpenAIProvider,
    "echo": lambda name, config, *_: EchoProvider(name, config),
}


def build(name: str, config: ProviderConfig, environment: Mapping[str, str]) -> Provider:
    """The provider `name`, whose configuration is complete (`hosts.complete`). Needs no event loop.

    Raises `ConfigError`: no such protocol, no base URL, a key that is not there, a proxy or authorities that are no good.
    """
    protocol = PROTOCOLS.get(config.protocol)
    if protocol is None:
        known = ", ".join(sorted(PROTOCOLS))
        raise ConfigError(f"providers.{name}.protocol: {config.protocol!r} is not known; known are {known}")
    way = outbound.build(f"providers.{name}", config, environment)
    return protocol(name, config, config.api_key(name, environment), way)
