"""The provider for Anthropic's Messages API.

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
from antiphon.providers.anthropic.models import FIRST_PAGE, read_page
from antiphon.providers.anthropic.request import betas, encode
from antiphon.providers.anthropic.response import AnthropicReader
from antiphon.providers.client import Prepared, ProviderClient
from antiphon.providers.credentials.auth import authorize
from antiphon.providers.credentials.cache import TokenCache
from antiphon.providers.host_provider import HostProvider, ModelList
from antiphon.providers.parameters import Parameters
from antiphon.providers.url import MODEL, headers, template

_API: Final = "/v1"
_MESSAGES: Final = "/messages"
_MODELS: Final = "/models"

_VERSION: Final = "2023-06-01"
"""The version of the API. That of 2026-10-21 only takes away: sampling, which older models have. `headers` can set another one."""

BETAS_HEADER: Final = "anthropic-beta"


class AnthropicProvider(HostProvider):
    """One configured host. Needs no event loop until the first call, and then belongs to the loop of that call.

    The base URL is that of Anthropic's SDKs, without a version; one that ends in "/v1" is the same. Raises `ConfigError` if it is
    missing or invalid.
    """

    def __init__(self, name: str, config: ProviderConfig, key: SecretStr | TokenCache | None, transport: Transport) -> None:
        base = (config.base_url or "").partition("?")[0].rstrip("/")
        api = "" if base.endswith(_API) else _API
        self._url = template(name, config, api + _MESSAGES)
        models = ModelList(URL(template(name, config, api + _MODELS).replace(MODEL, "model")), read_page, FIRST_PAGE)
        self._fixed_url = None if MODEL in self._url else URL(self._url)
        url = URL(self._url.replace(MODEL, "model"))
        fixed = headers()
        fixed["anthropic-version"] = _VERSION
        header = config.auth_header if "auth_header" in config.model_fields_set else "x-api-key"
        # A value in the query may be a key, too.
        auth = authorize(key, header, fixed, config.headers, url.query.values())
        self._betas = next((value for header, value in config.headers.items() if header.lower() == BETAS_HEADER), "")
        super().__init__(name, config.unsupported, ProviderClient(name, transport, auth, url), models)

    def _prepare(self, request: ChatRequest) -> Prepared:
        parameters = Parameters(self.name, self._unsupported)
        url = self._fixed_url or URL(self._url.replace(MODEL, quote(request.model, safe="")))
        wanted = betas(request)
        more = {} if wanted is None else {BETAS_HEADER: ",".join(filter(None, (self._betas, wanted)))}
        body = encode(request, self.name, parameters)
        return Prepared(url, body, partial(AnthropicReader, request, self.name), more, parameters.warnings)
