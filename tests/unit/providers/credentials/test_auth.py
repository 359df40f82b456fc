"""Tests of the authorization by access tokens: for every protocol, and through an outbound proxy."""

import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from antiphon.config import ProviderConfig
from antiphon.domain.content import Message, Role, Text
from antiphon.domain.errors import ProviderCredentials, ProviderError, ProviderUnavailable
from antiphon.domain.request import ChatRequest
from antiphon.providers.registry import PROTOCOLS, build
from tests.certificates import Authority
from tests.odd_upstream import OddUpstream, answer
from tests.outbound_proxy import OutboundProxy
from tests.token_endpoint import CLIENT_ID, SECRET, TENANT, TokenEndpoint

ENVIRONMENT = {"AZURE_TENANT_ID": TENANT, "AZURE_CLIENT_ID": CLIENT_ID, "AZURE_CLIENT_SECRET": SECRET}
REQUEST = ChatRequest("gemini-x", (Message(Role.USER, (Text("hello"),)),), stream=False)


@pytest.fixture
async def endpoint() -> AsyncIterator[TokenEndpoint]:
    async with TokenEndpoint() as made:
        yield made


@pytest.mark.parametrize("protocol", sorted(set(PROTOCOLS) - {"echo"}))
async def test_every_protocol_takes_access_tokens(endpoint: TokenEndpoint, protocol: str) -> None:
    """A provider of any protocol sends the token as a bearer token, and no key; after a 401 it sends another one."""
    async with OddUpstream() as upstream:
        upstream.default = [answer({"error": {"message": "no"}}, "401 Unauthorized")]
        config = ProviderConfig.model_validate(
            {
                "protocol": protocol,
                "base_url": upstream.base_url,
                "project": "acme",
                "auth_header": "api-key",
                "credentials": {"kind": "entra_secret", "authority": endpoint.url},
            }
        )
        provider = build("acme", config, ENVIRONMENT)
        with pytest.raises(ProviderCredentials):
            _ = [batch async for batch in provider.stream(REQUEST)]
        await provider.close()
    assert [request.headers["authorization"] for request in upstream.requests] == [
        "Bearer token-1-secret",
        "Bearer token-2-secret",
    ]
    assert not {"api-key", "x-api-key", "x-goog-api-key"} & set(upstream.requests[0].headers)
    assert upstream.requests[0].body == upstream.requests[1].body


async def test_configured_headers_do_not_replace_the_token(endpoint: TokenEndpoint) -> None:
    """Other headers of the configuration are sent beside the token, such as the key of an API gateway in between."""
    async with OddUpstream() as upstream:
        upstream.default = [answer({"error": {"message": "no"}}, "400 Bad Request")]
        config = ProviderConfig.model_validate(
            {
                "base_url": upstream.base_url,
                "headers": {"Ocp-Apim-Subscription-Key": "of-the-gateway"},
                "credentials": {"kind": "entra_secret", "authority": endpoint.url},
            }
        )
        provider = build("acme", config, ENVIRONMENT)
        with pytest.raises(ProviderError):
            _ = [batch async for batch in provider.stream(REQUEST)]
        await provider.close()
    (sent,) = upstream.requests
    assert (sent.headers["authorization"], sent.headers["ocp-apim-subscription-key"]) == ("Bearer token-1-secret", "of-the-gateway")


async def test_tokens_are_fetched_through_the_outbound_proxy(tmp_path: Path) -> None:
    """The endpoint is reached through the provider's outbound proxy, and verified with the provider's authorities."""
    authority = Authority()
    tls: ssl.SSLContext = authority.issue("models.test", "login.test").context(tmp_path)
    async with OddUpstream(tls) as host:
        host.default = [answer({"access_token": "a-token", "expires_in": 3600, "token_type": "Bearer"})]
        with OutboundProxy(tmp_path) as proxy:
            settings = {
                "base_url": f"https://models.test:{host.port}/v1",
                "proxy_env": "PROXY_URL",
                "credentials": {"kind": "entra_secret", "authority": f"https://login.test:{host.port}"},
            }
            environment = {**ENVIRONMENT, "PROXY_URL": proxy.url_with_password}
            trusted = ProviderConfig.model_validate({**settings, "ca": authority.write(tmp_path / "ca.pem")})
            provider = build("acme", trusted, environment)
            with pytest.raises(ProviderError):  # the same answer, which is no chat completion
                _ = [batch async for batch in provider.stream(REQUEST)]
            await provider.close()
            assert [request.path for request in host.requests] == [f"/{TENANT}/oauth2/v2.0/token", "/v1/chat/completions"]
            assert host.requests[1].headers["authorization"] == "Bearer a-token"
            assert proxy.requests[:2] == [f"CONNECT login.test:{host.port}", f"CONNECT models.test:{host.port}"]

            provider = build("acme", ProviderConfig.model_validate(settings), environment)
            with pytest.raises(ProviderUnavailable, match="^There is no token for the provider acme now.$"):
                _ = [batch async for batch in provider.stream(REQUEST)]
            await provider.close()
            assert len(host.requests) == 2


async def test_a_metadata_service_is_not_asked_through_the_proxy(endpoint: TokenEndpoint, tmp_path: Path) -> None:
    """A metadata service is asked directly: it answers only to its own machine, and its token is not for a proxy to see."""
    with OutboundProxy(tmp_path) as proxy:
        config = ProviderConfig.model_validate(
            {
                "base_url": "http://models.test/v1",
                "proxy_env": "PROXY_URL",
                "credentials": {"kind": "entra_managed", "metadata_url": endpoint.url},
            }
        )
        provider = build("acme", config, {"PROXY_URL": proxy.url_with_password})
        with pytest.raises(ProviderError):
            _ = [batch async for batch in provider.stream(REQUEST)]
        await provider.close()
        assert len(endpoint.issued) == 1
        assert not any(endpoint.url.removeprefix("http://") in request for request in proxy.requests), json.dumps(proxy.requests)
