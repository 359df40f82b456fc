"""Tests of the proxy dialect, called without a socket."""

import json
from types import SimpleNamespace
from typing import Any

import pytest
from google.api.httpbody_pb2 import HttpBody
from multidict import CIMultiDict

from antiphon.config import LimitsConfig, ProxyConfig
from antiphon.domain import errors
from antiphon.domain.errors import InvalidRequest, Violation
from antiphon.domain.principal import Principal
from antiphon.limits.limiter import Limiter
from antiphon.limits.quotas import Quotas
from antiphon.net.egress import EgressPolicy
from antiphon.proxying.passthrough import Passthrough
from antiphon.rest.proxy import servicer as proxy
from antiphon.rest.proxy.errors import render_gemini_error, render_openai_error
from antiphon.rest.v1 import proxy_pb2
from tests.odd_upstream import OddUpstream
from tests.odd_upstream import answer as scripted
from tests.unit.rest.caller import USER, Context, as_caller


def answer(status: int = 200, **headers: str) -> Any:
    return SimpleNamespace(status=status, headers=CIMultiDict({name.replace("_", "-"): value for name, value in headers.items()}))


def test_a_header_with_a_key_in_it_does_not_come_back() -> None:
    """Only named response headers are passed on, and none with a sent key or with a value that is not valid metadata."""
    sent = {"authorization": "Bearer sk-own", "x-goog-api-key": "AIza"}
    got = answer(
        200,
        openai_organization="the one of sk-own",
        openai_project="AIza",
        openai_model="m\u00e9",
        openai_version="1",
        X_RateLimit_Limit_Requests="7",
        Set_Cookie="a=b",
        grpc_status="3",
        x_http_status="500",
        X_Request_Id="theirs",
        openai_a_bin="AAAA",
    )
    assert proxy.answer_metadata(got, sent) == {
        "x-http-status": "200",
        "openai-version": "1",
        "x-ratelimit-limit-requests": "7",
        "x-upstream-request-id": "theirs",
    }


def test_429_always_says_when_to_come_again() -> None:
    """A 429 always has `retry-after`: the provider's, or 1 second."""
    assert proxy.answer_metadata(answer(429), {})["retry-after"] == "1"
    assert proxy.answer_metadata(answer(429, retry_after="7"), {})["retry-after"] == "7"
    assert "retry-after" not in proxy.answer_metadata(answer(500), {})


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("application/json; charset=utf-8", "application/json; charset=utf-8"),
        ("", "application/octet-stream"),
        ("application/grpc", "application/octet-stream"),
        ("Application/gRPC-web+proto", "application/octet-stream"),
        ("text/pl\u00e4in", "application/octet-stream"),
    ],
)
def test_content_types(written: str, expected: str) -> None:
    """The content type is passed on, unless it is invalid or would be taken for gRPC's."""
    assert proxy._content_type(answer(content_type=written)) == expected


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, errors.ProviderRejected),
        (401, errors.ProviderCredentials),
        (403, errors.ProviderCredentials),
        (429, errors.ProviderRateLimited),
        (500, errors.ProviderUnavailable),
    ],
)
def test_the_log_knows_a_providers_error_by_its_status(status: int, kind: type[errors.ProviderError]) -> None:
    """The log has a provider's error by its status; its text has been passed to the caller already."""
    error = proxy.upstream_error(answer(status), SimpleNamespace(name="host"))  # type: ignore[arg-type]
    assert type(error) is kind
    assert (error.provider, error.status) == ("host", status)


class FakeAuthenticator:
    """An authenticator that knows one valid and one revoked key."""

    async def authenticate(self, credential: str) -> Principal | None:
        if credential == "ap-revoked":
            raise errors.Unauthenticated("Revoked.")
        return USER if credential == "ap-good" else None


async def violation_of(key: str, where: str, *, in_query: bool = False) -> Violation:
    """Return the violation of a call with this key at this place. Nothing is sent, because there is no client."""
    policy = EgressPolicy(ProxyConfig(allow=("https://generativelanguage.googleapis.com",)))
    servicer: Any = proxy.ProxyServicer(SimpleNamespace(policy=policy), FakeAuthenticator())  # type: ignore[arg-type]
    coded = key.replace("-", "%2D")
    queries = {
        "key": f"alt=sse&%6bey={coded}",
        "api_key": f"api_key=x&api_key={key}",
        "access_token": f"access_token=Bearer+{key}",
        "authorization": f"authorization={key}",
        "query": f"a&{coded}&b=",
    }
    metadata = {proxy.QUERY: queries[where]} if in_query else {} if where == "api_key" else {where: key}
    context: Any = Context(**metadata)
    if (where == "api_key" and not in_query) or where.startswith("openai-"):
        body = HttpBody(data=b'{"model":"m","messages":[]}')
        path_key = key if where == "api_key" else "sk-theirs"
        openai_request = proxy_pb2.ProxyChatCompletionRequest(
            api_key=path_key, proxy_url="https://generativelanguage.googleapis.com", body=body
        )
        answer = servicer.ProxyChatCompletion(openai_request, context)
    else:
        gemini_request = proxy_pb2.ProxyGeminiRequest(
            gemini_url="https://generativelanguage.googleapis.com", model_name_and_task="m:generateContent",
            body=HttpBody(data=b'{"contents":[{"parts":[]}]}'),
        )  # fmt: skip
        answer = servicer.ProxyGemini(gemini_request, context)
    with pytest.raises(InvalidRequest) as caught:
        await anext(answer)
    assert render_gemini_error(caught.value)[0] == 400
    assert key not in str(caught.value)
    return caught.value.violations[0]


@pytest.mark.parametrize("where", ["api_key", "x-goog-api-key", "x-goog-user-project", "user-agent", "openai-organization"])
@pytest.mark.parametrize("key", ["ap-good", "ap-revoked"])
async def test_a_key_of_the_gateway_does_not_leave_in_the_place_of_the_providers(key: str, where: str) -> None:
    """A gateway key in the path or in a header that is passed on is refused."""
    assert (await violation_of(key, where)).path == (where,)
    if where != "api_key":
        assert (await violation_of(f"Bearer {key}", where)).path == (where,)


@pytest.mark.parametrize("where", ["key", "api_key", "access_token", "authorization", "query"])
@pytest.mark.parametrize("key", ["ap-good", "ap-revoked"])
async def test_a_key_of_the_gateway_does_not_leave_in_the_query(key: str, where: str) -> None:
    """A gateway key in the query is refused, under any name or none, and in any encoding."""
    assert (await violation_of(key, where, in_query=True)).path == (where,)


async def test_a_wrong_target_is_reported_in_one_sentence() -> None:
    """A wrong target is reported in one sentence that names the field."""
    policy = EgressPolicy(ProxyConfig())
    servicer: Any = proxy.ProxyServicer(SimpleNamespace(policy=policy), FakeAuthenticator())  # type: ignore[arg-type]
    request = proxy_pb2.ProxyChatCompletionRequest(api_key="sk-theirs", proxy_url="https://a..b")
    context: Any = Context()
    with pytest.raises(InvalidRequest) as caught:
        await anext(servicer.ProxyChatCompletion(request, context))
    error = json.loads(render_openai_error(caught.value)[2])["error"]
    assert (error["message"], error["param"]) == ("proxy_url: The target's host is not a host name.", "proxy_url")


def test_the_contract_marks_the_key_as_one() -> None:
    """The proto marks the API key as `debug_redact`, so that tools do not print it."""
    field = proxy_pb2.ProxyChatCompletionRequest.DESCRIPTOR.fields_by_name["api_key"]
    assert field.GetOptions().debug_redact


@pytest.mark.parametrize("provider_sends_limits", [False, True])
async def test_rate_limit_headers_are_the_providers_or_the_gateways(provider_sends_limits: bool) -> None:
    """The rate-limit headers are the provider's if it sends any, and else the gateway's."""
    given = ("x-ratelimit-limit-requests: 7",) if provider_sends_limits else ("openai-version: 1",)
    async with OddUpstream() as upstream:
        upstream.script("odd", [scripted(b"{}", "200 OK", "application/json", *given)])
        url = upstream.base_url
        limiter = Limiter(Quotas(LimitsConfig.model_validate({"overall": {"requests_per_minute": 100}})))
        through = Passthrough(ProxyConfig(allow=(url.removesuffix("/v1"),)), timeout=5, limiter=limiter)
        added = as_caller(USER).headers
        body = HttpBody(data=b'{"model":"odd","messages":[]}')
        request = proxy_pb2.ProxyChatCompletionRequest(api_key="sk-theirs", proxy_url=url, body=body)
        context: Any = Context()
        pieces = [piece.data async for piece in proxy.ProxyServicer(through).ProxyChatCompletion(request, context)]
        await through.close()
    assert b"".join(pieces) == b"{}"
    limits = {name: value for name, value in added.items() if name.startswith("x-ratelimit-")}
    if provider_sends_limits:
        assert limits == {"x-ratelimit-limit-requests": "7"}
    else:
        assert limits.keys() == {f"x-ratelimit-{word}-requests" for word in ("limit", "remaining", "reset")}
