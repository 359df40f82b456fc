"""The Converse API over a real socket."""

from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
from pydantic import SecretStr

from antiphon.config import ConfigError, ProviderConfig, TimeoutsConfig
from antiphon.domain.content import Message, Role, Text
from antiphon.domain.errors import (
    ProviderCredentials,
    ProviderError,
    ProviderProtocolError,
    ProviderRateLimited,
    ProviderRejected,
    ProviderTimeout,
    ProviderUnavailable,
    Unsupported,
)
from antiphon.domain.events import Batch, Finished, TextDelta, Usage
from antiphon.domain.request import ChatRequest, Sampling
from antiphon.domain.warnings import Warnings
from antiphon.net.http import Transport
from antiphon.providers.bedrock.provider import BedrockProvider
from antiphon.providers.registry import build
from tests.eventstream import exception, stream
from tests.odd_upstream import CUT, HANG, LAST, RESET, OddUpstream, Step, answer, chunk, head
from tests.unit.providers.bedrock.test_response import HELLO, METADATA, delta, end

MODEL = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
STREAM = "application/vnd.amazon.eventstream"
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "AKID",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_SESSION_TOKEN": "tok",
    "AWS_REGION": "eu-west-1",
}


@pytest.fixture
async def upstream() -> AsyncIterator[OddUpstream]:
    async with OddUpstream() as server:
        yield server


def make(upstream: OddUpstream, key: str | None = "sesame", environment: Mapping[str, str] = {}, **fields: Any) -> BedrockProvider:
    config = ProviderConfig(base_url=f"http://127.0.0.1:{upstream.port}/?a=b c", timeouts=TimeoutsConfig(stall=5), **fields)
    secret = None if key is None else SecretStr(key)
    return BedrockProvider("acme", config, secret, Transport("acme", config), environment)


@pytest.fixture
async def provider(upstream: OddUpstream) -> AsyncIterator[BedrockProvider]:
    made = make(upstream)
    yield made
    await made.close()


async def ask(provider: BedrockProvider, upstream: OddUpstream, *steps: Step, stream: bool = True, **fields: Any) -> list[Batch]:
    upstream.default = steps
    request = ChatRequest(MODEL, (Message(Role.USER, (Text("hello"),)),), stream=stream, **fields)
    return [batch async for batch in provider.stream(request)]


@pytest.mark.parametrize("last", [LAST, HANG, CUT], ids=["end", "held", "cut after the end"])
async def test_stream(upstream: OddUpstream, provider: BedrockProvider, last: Step) -> None:
    """The tokens are the end of the call, whatever the host does then."""
    batches = await ask(provider, upstream, head(content_type=STREAM), chunk(stream(*HELLO)), last)
    events = [event for batch in batches for event in batch]
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == "Hello"
    assert isinstance(events[-1], Finished)
    (sent,) = upstream.requests
    assert sent.path == "/model/us.anthropic.claude-sonnet-4-5-20250929-v1%3A0/converse-stream?a=b+c"
    assert sent.headers["authorization"] == "Bearer sesame"
    assert sent.headers["accept"] == f"application/json, {STREAM}"
    assert sent.json == {"messages": [{"role": "user", "content": [{"text": "hello"}]}]}


async def test_byte_by_byte(upstream: OddUpstream, provider: BedrockProvider) -> None:
    """A stream may arrive in any pieces."""
    data = stream(*HELLO)
    batches = await ask(provider, upstream, head(content_type=STREAM), *(chunk(data[at : at + 1]) for at in range(len(data))), LAST)
    assert batches[-1][-2] == Usage(3, 4, 7)


async def test_a_whole_reply(upstream: OddUpstream, provider: BedrockProvider) -> None:
    """It is asked for as one object."""
    body = {"output": {"message": {"role": "assistant", "content": [{"text": "Hello"}]}}, "stopReason": "end_turn", "usage": {}}
    (batch,) = await ask(provider, upstream, answer(body), stream=False)
    assert TextDelta(0, "Hello") in batch
    assert upstream.requests[0].path.startswith("/model/us.anthropic.claude-sonnet-4-5-20250929-v1%3A0/converse?")


async def test_signed(upstream: OddUpstream) -> None:
    """Without a key, requests are signed by the credentials of the environment; a caller's own key is a bearer key."""
    provider = make(upstream, None, ENVIRONMENT)
    steps = (head(content_type=STREAM), chunk(stream(*HELLO)), LAST)
    await ask(provider, upstream, *steps)
    await ask(provider, upstream, *steps, api_key=SecretStr("own"))
    await provider.close()
    first, second = upstream.requests
    assert first.headers["authorization"].startswith("AWS4-HMAC-SHA256 Credential=AKID/")
    assert (
        "/eu-west-1/bedrock/aws4_request, SignedHeaders=content-type;host;x-amz-date;x-amz-security-token,"
        in (first.headers["authorization"])
    )
    assert first.headers["x-amz-security-token"] == "tok"
    assert second.headers["authorization"] == "Bearer own"
    assert "x-amz-date" not in second.headers


async def test_configurations(upstream: OddUpstream) -> None:
    """There has to be a way to authorize calls, and a region to sign for; that of the configuration counts first."""
    with pytest.raises(ConfigError, match=r"providers\.acme\.region: set it, or AWS_REGION"):
        make(upstream, None, {})
    with pytest.raises(ConfigError, match="AWS_BEARER_TOKEN_BEDROCK"):
        make(upstream, None, {"AWS_REGION": "eu-west-1"})
    provider = make(upstream, None, ENVIRONMENT, region="us-west-2")
    await ask(provider, upstream, head(content_type=STREAM), chunk(stream(*HELLO)), LAST)
    await provider.close()
    assert "/us-west-2/bedrock/" in upstream.requests[0].headers["authorization"]


def refusal(status: str, kind: str, text: str = "why", *, in_body: bool = False) -> list[Step]:
    """Return an answer with an error, whose name is in a header or in the body."""
    if in_body:
        return [answer({"__type": f"com.amazon.coral.service#{kind}", "message": text}, status)]
    return [answer({"message": text}, status, "application/json", f"x-amzn-errortype: {kind}:http://internal.amazon.com/coral/x/")]


BEGUN = [head(content_type=STREAM), chunk(stream(*HELLO[:3]))]
FAILURES: list[tuple[list[Step], type[ProviderError], bool | None]] = [
    (refusal("400 Bad Request", "ValidationException"), ProviderRejected, None),
    (refusal("400 Bad Request", "ServiceQuotaExceededException"), ProviderRateLimited, False),
    (refusal("400 Bad Request", "ThrottlingException", in_body=True), ProviderRateLimited, True),
    (refusal("400 Bad Request", "ExpiredTokenException", in_body=True), ProviderCredentials, None),
    (refusal("403 Forbidden", "AccessDeniedException"), ProviderCredentials, None),
    (refusal("403 Forbidden", "UnrecognizedClientException"), ProviderCredentials, None),
    (refusal("404 Not Found", "ResourceNotFoundException"), ProviderCredentials, None),
    (refusal("408 Request Timeout", "ModelTimeoutException"), ProviderTimeout, None),
    (refusal("424 Failed Dependency", "ModelErrorException"), ProviderUnavailable, True),
    (refusal("429 Too Many Requests", "ThrottlingException"), ProviderRateLimited, True),
    (refusal("429 Too Many Requests", "ModelNotReadyException"), ProviderRateLimited, True),
    (refusal("500 Internal Server Error", "InternalServerException"), ProviderUnavailable, True),
    (refusal("503 Service Unavailable", "ServiceUnavailableException"), ProviderUnavailable, True),
    ([*BEGUN, chunk(exception("throttlingException", {"message": "why"})), LAST], ProviderRateLimited, True),
    ([*BEGUN, chunk(exception("validationException", {"message": "why"})), LAST], ProviderRejected, None),
    ([*BEGUN, chunk(stream(end("malformed_tool_use"), METADATA)), LAST], ProviderUnavailable, None),
    ([*BEGUN, LAST], ProviderProtocolError, None),
    ([*BEGUN, CUT], ProviderProtocolError, None),
    ([*BEGUN, RESET], ProviderProtocolError, None),
    ([head(content_type=STREAM), chunk(b"data: {}\n\n"), LAST], ProviderProtocolError, None),
    ([head(content_type=STREAM), chunk(b"\0\0\0"), LAST], ProviderProtocolError, None),
    ([answer(b"<html>", "200 OK", "text/html")], ProviderProtocolError, None),
    ([answer({"message": "why"})], ProviderUnavailable, None),
]


@pytest.mark.parametrize(("steps", "error", "retryable"), FAILURES)
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
async def test_failures(
    upstream: OddUpstream,
    provider: BedrockProvider,
    steps: list[Step],
    error: type[ProviderError],
    retryable: bool | None,
    stream: bool,
) -> None:
    """Each failure has its error; a caller reads only why a request was refused."""
    with pytest.raises(error) as caught:
        await ask(provider, upstream, *steps, stream=stream)
    assert type(caught.value) is error
    if retryable is not None:
        assert caught.value.retryable is retryable
    assert getattr(caught.value, "explanation", None) == ("why" if error is ProviderRejected else None)


async def test_the_model_is_missing(upstream: OddUpstream, provider: BedrockProvider) -> None:
    """A model that the region does not have is told from a bad key."""
    with pytest.raises(ProviderCredentials) as caught:
        await ask(provider, upstream, *refusal("404 Not Found", "ResourceNotFoundException"))
    assert caught.value.is_about_model


async def test_without_tokens(upstream: OddUpstream, provider: BedrockProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that does not send the tokens ends the reply by its silence, soon after the stop."""
    monkeypatch.setattr("antiphon.providers.bedrock.response._WAIT", 0.05)
    batches = await ask(provider, upstream, head(content_type=STREAM), chunk(stream(delta(0, text="x"), end())), HANG)
    assert isinstance(batches[-1][-1], Finished)


async def test_probe(upstream: OddUpstream, provider: BedrockProvider) -> None:
    """Only AWS's own hosts have a control plane with a list of models."""
    assert await provider.probe() is None
    assert upstream.requests == []
    config = ProviderConfig(base_url="https://bedrock-runtime.eu-central-1.amazonaws.com")
    known = BedrockProvider("acme", config, SecretStr("k"), Transport("acme", config), {})
    assert known._models is not None
    assert str(known._models.url) == "https://bedrock.eu-central-1.amazonaws.com/foundation-models"
    config = ProviderConfig(base_url="https://vpce-1.bedrock-runtime.eu-central-1.vpce.amazonaws.com")
    assert await BedrockProvider("acme", config, SecretStr("k"), Transport("acme", config), {}).probe() is None


async def test_the_environment_of_the_configuration_counts(upstream: OddUpstream, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests are signed with the credentials of the environment that the provider is built for, not with those of the process."""
    for name, value in {**ENVIRONMENT, "AWS_ACCESS_KEY_ID": "OTHER", "AWS_REGION": "us-east-1"}.items():
        monkeypatch.setenv(name, value)
    config = ProviderConfig(protocol="bedrock", base_url=f"http://127.0.0.1:{upstream.port}", timeouts=TimeoutsConfig(stall=5))
    with pytest.raises(ConfigError, match=r"providers\.acme\.region: set it, or AWS_REGION"):
        build("acme", config, {})
    provider = build("acme", config, ENVIRONMENT)
    upstream.default = [head(content_type=STREAM), chunk(stream(*HELLO)), LAST]
    request = ChatRequest(MODEL, (Message(Role.USER, (Text("hello"),)),), stream=True)
    assert [batch async for batch in provider.stream(request)]
    assert "Credential=AKID/" in upstream.requests[0].headers["authorization"]
    assert "/eu-west-1/bedrock/" in upstream.requests[0].headers["authorization"]
    await provider.close()


async def test_options_that_are_lacking(upstream: OddUpstream) -> None:
    """What was left out is told before the reply; with the policy `refuse`, nothing is sent."""
    asked = ChatRequest(MODEL, (Message(Role.USER, (Text("hello"),)),), stream=True, sampling=Sampling(seed=4))
    upstream.default = [head(content_type=STREAM), chunk(stream(*HELLO)), LAST]
    provider = make(upstream)
    seen: list[Warnings] = []
    assert [batch async for batch in provider.stream(asked, seen.append)]
    assert [warning.path for warnings in seen for warning in warnings] == [("sampling", "seed")]
    await provider.close()
    strict = make(upstream, unsupported="refuse")
    with pytest.raises(Unsupported, match=r"sampling\.seed: the API has no seed"):
        [batch async for batch in strict.stream(asked)]
    assert len(upstream.requests) == 1
    await strict.close()
