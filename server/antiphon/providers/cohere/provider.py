"""The provider for Cohere's chat API, version 2.

This module builds the calls. `request` and `response` convert in the two directions, `client` makes the calls.
"""

from __future__ import annotations

from functools import partial
from typing import Final
from urllib.parse import quote

from pydantic import SecretStr
from yarl import URL

from antiphon.config import ProviderConfig
from antiphon.domain.request import ChatRequest
from antiphon.net.http import Transport
from antiphon.providers.client import Prepared, ProviderClient
from antiphon.providers.cohere.models import FIRST_PAGE, read_page
from antiphon.providers.cohere.request import encode
from antiphon.providers.cohere.response import CohereReader
from antiphon.providers.credentials.auth import authorize
from antiphon.providers.credentials.cache import TokenCache
from antiphon.providers.host_provider import HostProvider, ModelList
from antiphon.providers.parameters import Parameters
from antiphon.providers.url import MODEL, headers, template

_CHAT: Final = "/v2/chat"

_MODELS: Final = "/v1/models"
"""The list of models, which version 2 of the API does not have."""


class CohereProvider(HostProvider):
    """One configured host. Needs no event loop until the first call, and then belongs to the loop of that call.

    The base URL is that of Cohere's SDKs, without a version. Raises `ConfigError` if it is missing or invalid.
    """

    def __init__(self, name: str, config: ProviderConfig, key: SecretStr | TokenCache | None, transport: Transport) -> None:
        self._url = template(name, config, _CHAT)
        models = ModelList(URL(template(name, config, _MODELS).replace(MODEL, "model")), read_page, FIRST_PAGE)
        self._fixed_url = None if MODEL in self._url else URL(self._url)
        url = URL(self._url.replace(MODEL, "model"))
        # A value in the query may be a key, too.
        auth = authorize(key, config.auth_header, headers(), config.headers, url.query.values())
        super().__init__(name, config.unsupported, ProviderClient(name, transport, auth, url), models)

    def _prepare(self, request: ChatRequest) -> Prepared:
        parameters = Parameters(self.name, self._unsupported)
        url = self._fixed_url or URL(self._url.replace(MODEL, quote(request.model, safe="")))
        body = encode(request, self.name, parameters)
        return Prepared(url, body, partial(CohereReader, request, self.name), warnings=parameters.warnings)
