"""The provider for OpenAI's Responses API, and for hosts that follow it.

This module builds the calls. `request` and `response` convert in the two directions, `client` makes the calls.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from functools import partial
from typing import Final
from urllib.parse import quote

from pydantic import SecretStr
from yarl import URL

from antiphon.config import ProviderConfig
from antiphon.domain.errors import ProviderRejected
from antiphon.domain.events import Batch
from antiphon.domain.request import ChatRequest
from antiphon.domain.warnings import Warnings, ignore
from antiphon.net.http import Transport
from antiphon.providers.client import Prepared, ProviderClient
from antiphon.providers.credentials.auth import authorize
from antiphon.providers.credentials.cache import TokenCache
from antiphon.providers.host_provider import HostProvider, ModelList
from antiphon.providers.hosts import lists_models
from antiphon.providers.openai_model_list import read_page
from antiphon.providers.parameters import Parameters
from antiphon.providers.responses.replayed import has_encrypted, without_states
from antiphon.providers.responses.request import encode
from antiphon.providers.responses.response import ResponsesReader
from antiphon.providers.url import MODEL, headers, template

_RESPONSES: Final = "/responses"
_MODELS: Final = "/models"

_UNREADABLE: Final = "invalid_encrypted_content"
"""The code with which the provider refuses encrypted content, before any output."""


class ResponsesProvider(HostProvider):
    """One configured host. Needs no event loop until the first call, and then belongs to the loop of that call.

    The base URL is that of chat completions, with a version. Raises `ConfigError` if it is missing or invalid.
    """

    def __init__(self, name: str, config: ProviderConfig, key: SecretStr | TokenCache | None, transport: Transport) -> None:
        self._url = template(name, config, _RESPONSES)
        self._fixed_url = None if MODEL in self._url else URL(self._url)
        has_list = self._fixed_url is not None and lists_models(name, config.base_url)
        models = ModelList(URL(template(name, config, _MODELS).replace(MODEL, "model")), read_page if has_list else None)
        url = URL(self._url.replace(MODEL, "model"))
        # A value in the query may be a key, too.
        auth = authorize(key, config.auth_header, headers(), config.headers, url.query.values())
        super().__init__(name, config.unsupported, ProviderClient(name, transport, auth, url), models)

    def stream(self, request: ChatRequest, warn: Callable[[Warnings], None] = ignore) -> AsyncGenerator[Batch, None]:
        """Send a request, and yield the events of the reply (see `Provider.stream`)."""
        if not has_encrypted(request):
            return self._client.stream(request, self._prepare, warn)
        return self._stream_replayed(request, warn)

    async def _stream_replayed(self, request: ChatRequest, warn: Callable[[Warnings], None]) -> AsyncGenerator[Batch, None]:
        """Send a request with encrypted content of earlier replies; once more without it, if the provider refuses that.

        It can be read by the organisation and in the region that made it alone, and not for ever.
        """
        has_begun = False
        try:
            async with aclosing(self._client.stream(request, self._prepare, warn)) as batches:
                async for batch in batches:
                    has_begun = True
                    yield batch
        except ProviderRejected as error:
            if has_begun or error.code != _UNREADABLE:
                raise
        else:
            return
        async with aclosing(self._client.stream(without_states(request), self._prepare, warn)) as batches:
            async for batch in batches:
                yield batch

    def _prepare(self, request: ChatRequest) -> Prepared:
        parameters = Parameters(self.name, self._unsupported)
        url = self._fixed_url or URL(self._url.replace(MODEL, quote(request.model, safe="")))
        body = encode(request, self.name, parameters)
        return Prepared(url, body, partial(ResponsesReader, request, self.name), warnings=parameters.warnings)
