"""OpenAI's own host: chat completions, and the Responses API for the models that have no other.

Which models these are: https://platform.openai.com/docs/models, "Endpoints" on the page of each.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from functools import lru_cache
from typing import Final

from pydantic import SecretStr

from antiphon.config import ProviderConfig
from antiphon.domain.events import Batch
from antiphon.domain.model_names import matches
from antiphon.domain.models import ModelInfo
from antiphon.domain.request import ChatRequest
from antiphon.domain.warnings import Warnings, ignore
from antiphon.net.http import Transport
from antiphon.providers.credentials.cache import TokenCache
from antiphon.providers.openai.provider import OpenAIProvider
from antiphon.providers.responses.provider import ResponsesProvider

_ONLY_RESPONSES: Final = ("o1-pro*", "o3-pro*", "gpt-*-pro*", "gpt-*codex*", "codex-*", "o*-deep-research*", "computer-use-*")
"""Patterns of the names of these models."""

_MOST_MODELS: Final = 256
"""The names of models, which callers choose, whose protocol is remembered."""


@lru_cache(_MOST_MODELS)
def needs_responses(model: str) -> bool:
    """Return whether a model of OpenAI can be reached by the Responses API alone."""
    return any(matches(model.lower(), pattern) for pattern in _ONLY_RESPONSES)


class OpenAIByModel:
    """OpenAI by both of its protocols, over the same connections. Raises `ConfigError` if the base URL is missing or invalid."""

    def __init__(self, name: str, config: ProviderConfig, key: SecretStr | TokenCache | None, transport: Transport) -> None:
        self.name = name
        self._chat = OpenAIProvider(name, config, key, transport)
        self._responses = ResponsesProvider(name, config, key, transport)

    def stream(self, request: ChatRequest, warn: Callable[[Warnings], None] = ignore) -> AsyncGenerator[Batch, None]:
        """Send a request, and yield the events of the reply (see `Provider.stream`)."""
        provider = self._responses if needs_responses(request.model) else self._chat
        return provider.stream(request, warn)

    async def probe(self) -> int | None:
        """Return the status of the list of models (see `Provider.probe`)."""
        return await self._chat.probe()

    async def list_models(self) -> tuple[ModelInfo, ...] | None:
        """Return the list of models (see `Provider.list_models`)."""
        return await self._chat.list_models()

    @property
    def buffered(self) -> int:
        """Return the bytes received but not read yet (see `Provider.buffered`)."""
        return self._chat.buffered

    async def close(self) -> None:
        """Close the connections that are kept open."""
        await self._chat.close()
