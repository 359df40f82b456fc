"""Tests of building a provider by its protocol."""

import pytest

from antiphon.config import ConfigError, ProviderConfig
from antiphon.providers.anthropic.provider import AnthropicProvider
from antiphon.providers.cohere.provider import CohereProvider
from antiphon.providers.echo import EchoProvider
from antiphon.providers.gemini.provider import GeminiProvider
from antiphon.providers.openai.provider import OpenAIProvider
from antiphon.providers.registry import build
from antiphon.providers.responses.provider import ResponsesProvider


def test_build() -> None:
    """A provider of the configured protocol is built under its configured name, without an event loop."""
    provider = build("mine", ProviderConfig(base_url="http://x/v1", api_key_env="K"), {"K": "k"})
    assert isinstance(provider, OpenAIProvider)
    assert provider.name == "mine"
    assert isinstance(build("a", ProviderConfig(protocol="anthropic", base_url="http://x"), {}), AnthropicProvider)
    assert isinstance(build("c", ProviderConfig(protocol="cohere", base_url="http://x"), {}), CohereProvider)
    assert isinstance(build("g", ProviderConfig(protocol="gemini", base_url="http://x"), {}), GeminiProvider)
    assert isinstance(build("r", ProviderConfig(protocol="openai-responses", base_url="http://x/v1"), {}), ResponsesProvider)
    assert isinstance(build("echo", ProviderConfig(protocol="echo"), {}), EchoProvider)


def test_unknown_protocol() -> None:
    """An unknown protocol is a `ConfigError` that lists the known ones."""
    with pytest.raises(
        ConfigError,
        match="'smtp' is not known; known are anthropic, bedrock, cohere, echo, gemini, openai, ",
    ):
        build("mine", ProviderConfig(protocol="smtp"), {})


@pytest.mark.parametrize(
    "url", [None, "", "not a url", "ftp://x/v1", "http://", "http://user:pass@x/v1", "http://x:port/v1", "http://x\n/v1"]
)
def test_bad_base_url(url: str | None) -> None:
    """An invalid base URL is a `ConfigError` at the start, without its password."""
    with pytest.raises(ConfigError, match=r"providers\.mine\.base_url") as raised:
        build("mine", ProviderConfig(base_url=url), {})
    assert "pass@" not in str(raised.value)


def test_missing_key() -> None:
    """A configured key that is not set is a `ConfigError` at the start."""
    with pytest.raises(ConfigError, match="variable K"):
        build("mine", ProviderConfig(base_url="http://x/v1", api_key_env="K"), {})
