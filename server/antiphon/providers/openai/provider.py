"""The provider for the OpenAI chat-completions protocol: OpenAI, Azure, and every compatible host.

This module builds the calls. `request` and `response` convert in the two directions, `providers.client` makes the
calls. Hosts are rows in `hosts`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Final
from urllib.parse import quote, urlencode

from multidict import CIMultiDict
from pydantic import SecretStr
from yarl import URL

from antiphon.config import ConfigError, ProviderConfig
from antiphon.domain.events import Batch
from antiphon.domain.models import ModelInfo
from antiphon.domain.request import ChatRequest
from antiphon.net.http import Transport
from antiphon.providers.client import HeaderAuth, Prepared, ProviderClient
from antiphon.providers.hosts import capabilities, lists_models
from antiphon.providers.openai.models import read_page
from antiphon.providers.openai.request import encode
from antiphon.providers.openai.response import ReplyReader

_PATH: Final = "/chat/completions"
_MODEL: Final = "{model}"


class OpenAIProvider:
    """One configured host. Needs no event loop until the first call, and then belongs to the loop of that call.

    Raises `ConfigError` if the base URL is missing or invalid. A `{model}` in it is replaced by the model's name.
    """

    def __init__(self, name: str, config: ProviderConfig, api_key: SecretStr | None, transport: Transport) -> None:
        self.name = name
        self._url = _template(name, config)
        self._fixed_url = None if _MODEL in self._url else URL(self._url)
        path, _, query = self._url.replace(_MODEL, "model").partition("?")
        self._models = URL(f"{path.removesuffix(_PATH)}/models{'?' if query else ''}{query}")
        self._lists_models = lists_models(name, config.base_url)
        self._stream_usage = config.stream_usage
        self._capabilities = capabilities(name, config.base_url)
        url = URL(self._url.replace(_MODEL, "model"))
        key = None if api_key is None else api_key.get_secret_value()
        # A value in the query may be a key, too.
        auth = HeaderAuth(config.auth_header, key, _headers(), config.headers, url.query.values())
        self._client = ProviderClient(name, transport, auth, url)

    def stream(self, request: ChatRequest) -> AsyncGenerator[Batch, None]:
        """Send a request, and yield the events of the reply (see `Provider.stream`)."""
        return self._client.stream(request, self._prepare)

    async def probe(self) -> int | None:
        """Return the status of the list of models (see `Provider.probe`)."""
        return await self._client.status_of(self._models)

    async def list_models(self) -> tuple[ModelInfo, ...] | None:
        """Return the list of models (see `Provider.list_models`). None if each model has a URL of its own, or the host no list."""
        if self._fixed_url is None or not self._lists_models:
            return None
        return await self._client.list_models(self._models, read_page)

    @property
    def buffered(self) -> int:
        """Return the bytes received but not read yet (see `Provider.buffered`)."""
        return self._client.buffered

    async def close(self) -> None:
        """Close the connections that are kept open."""
        await self._client.close()

    def _prepare(self, request: ChatRequest) -> Prepared:
        body = encode(request, self.name, stream_usage=self._stream_usage, host=self._capabilities)
        url = self._fixed_url or URL(self._url.replace(_MODEL, quote(request.model, safe="")))
        return Prepared(url, body, ReplyReader(request, self.name))


def _template(name: str, config: ProviderConfig) -> str:
    """Return the URL of chat completions, with `{model}` still in it. Raises `ConfigError` if the base URL is invalid."""
    base, _, query = (config.base_url or "").partition("?")
    query = "&".join(filter(None, (query, urlencode(dict(config.query)))))
    text = f"{base.rstrip('/')}{_PATH}{'?' if query else ''}{query}"
    unreadable = ConfigError(f"providers.{name}.base_url: is not a valid URL")
    if not text.isprintable():  # yarl would drop line breaks silently
        raise unreadable
    try:
        url = URL(text.replace(_MODEL, "model"))
    except ValueError:  # its message may quote part of a password
        raise unreadable from None
    if url.scheme not in ("http", "https") or not url.host:
        raise ConfigError(f'providers.{name}.base_url: must be a URL such as "https://api.example.com/v1"')
    if url.user is not None or url.password is not None:
        raise ConfigError(f"providers.{name}.base_url: must not hold a password; use api_key_env or headers")
    return text


def _headers() -> CIMultiDict[str]:
    headers = {
        "accept": "application/json, text/event-stream",
        "accept-encoding": "identity",
        "content-type": "application/json",
        "user-agent": "antiphon",
    }
    return CIMultiDict(headers)
