"""Where AWS credentials come from, over real sockets."""

from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from antiphon.config import ConfigError
from antiphon.domain.errors import ProviderUnavailable
from antiphon.providers.bedrock.credentials import AwsCredentials, find
from tests.odd_upstream import OddUpstream, answer

STATIC = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "s"}
XML = (
    b'<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleWithWebIdentityResult>'
    b"<Credentials><AccessKeyId>ASIA1</AccessKeyId><SecretAccessKey>se/cr+et=</SecretAccessKey><SessionToken>tok/en+=="
    b"</SessionToken><Expiration>2026-11-29T13:00:00Z</Expiration></Credentials></AssumeRoleWithWebIdentityResult>"
    b"</AssumeRoleWithWebIdentityResponse>"
)


@pytest.fixture
async def upstream() -> AsyncIterator[OddUpstream]:
    async with OddUpstream() as server:
        yield server


async def get(environment: dict[str, str]) -> AwsCredentials:
    source = find("acme", environment, "eu-central-1")
    assert source is not None
    try:
        return await source.get()
    finally:
        await source.close()


async def test_variables() -> None:
    """Keys in variables count first; a token makes them temporary."""
    assert find("acme", {}, "eu-central-1") is None
    assert find("acme", {"AWS_ACCESS_KEY_ID": "a", "AWS_WEB_IDENTITY_TOKEN_FILE": "x"}, "eu-central-1") is None
    assert await get(STATIC) == AwsCredentials("a", "s")
    more = {"AWS_SESSION_TOKEN": "t", "AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1:1/"}
    assert await get({**STATIC, **more}) == AwsCredentials("a", "s", "t")


async def test_a_service_account(upstream: OddUpstream, tmp_path: Path) -> None:
    """The token in the file is exchanged for credentials of the role, once for many calls."""
    file = tmp_path / "token"
    file.write_text("jwt.of.pod\n")
    upstream.default = [answer(XML, "200 OK", "text/xml")]
    environment = {
        "AWS_WEB_IDENTITY_TOKEN_FILE": str(file),
        "AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/x",
        "AWS_ENDPOINT_URL_STS": f"http://127.0.0.1:{upstream.port}/",
    }
    source = find("acme", environment, "eu-central-1")
    assert source is not None
    for _ in range(3):
        assert await source.get() == AwsCredentials("ASIA1", "se/cr+et=", "tok/en+==")
    await source.close()
    (sent,) = upstream.requests
    assert parse_qs(urlsplit(sent.path).query) == {
        "Action": ["AssumeRoleWithWebIdentity"],
        "Version": ["2011-06-15"],
        "RoleArn": ["arn:aws:iam::123456789012:role/x"],
        "RoleSessionName": ["antiphon"],
        "WebIdentityToken": ["jwt.of.pod"],
    }
    assert "authorization" not in sent.headers


async def test_an_agent(upstream: OddUpstream, tmp_path: Path) -> None:
    """It is asked with the token of the pod, as it is in the file."""
    file = tmp_path / "token"
    file.write_text("pod-token\n")
    upstream.default = [answer({"AccessKeyId": "a", "SecretAccessKey": "s", "Token": "t", "Expiration": "2026-11-29T13:00:00Z"})]
    environment = {
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"http://127.0.0.1:{upstream.port}/v1/credentials",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(file),
    }
    assert await get(environment) == AwsCredentials("a", "s", "t")
    del environment["AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"]
    assert await get({**environment, "AWS_CONTAINER_AUTHORIZATION_TOKEN": "other"}) == AwsCredentials("a", "s", "t")
    assert [(sent.path, sent.headers["authorization"]) for sent in upstream.requests] == [
        ("/v1/credentials", "pod-token"),
        ("/v1/credentials", "other"),
    ]


@pytest.mark.parametrize(
    "url", ["http://evil.test/", "http://10.0.0.1/", "ftp://127.0.0.1/", "nonsense", "http://169.254.169.254/", "http://[fe80::1]/"]
)
def test_other_addresses(url: str) -> None:
    """A variable cannot send the token of the pod anywhere else over plain HTTP."""
    with pytest.raises(ConfigError, match="AWS_CONTAINER_CREDENTIALS_FULL_URI"):
        find("acme", {"AWS_CONTAINER_CREDENTIALS_FULL_URI": url}, "eu-central-1")


@pytest.mark.parametrize(
    "environment",
    [
        {"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/v2/credentials/x"},
        {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://169.254.170.23/v1/credentials"},
        {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://[fd00:ec2::23]/v1/credentials"},
        {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "https://agent.test/"},
    ],
)
def test_addresses_of_agents(environment: dict[str, str]) -> None:
    """The agents of ECS and EKS may be asked."""
    assert find("acme", environment, "eu-central-1") is not None


async def test_failures(upstream: OddUpstream, tmp_path: Path) -> None:
    """A refusal, an answer of another kind, and a missing file are failures of the provider, without the reason's words."""
    full = {"AWS_CONTAINER_CREDENTIALS_FULL_URI": f"http://127.0.0.1:{upstream.port}/"}
    identity = {
        "AWS_WEB_IDENTITY_TOKEN_FILE": str(tmp_path / "none"),
        "AWS_ROLE_ARN": "r",
        "AWS_ENDPOINT_URL_STS": f"http://127.0.0.1:{upstream.port}",
    }
    for environment, steps in (
        (full, [answer(b"no", "403 Forbidden")]),
        (full, [answer(b"{}")]),
        (full, [answer(b"[]")]),
        (full, [answer({"AccessKeyId": "a", "SecretAccessKey": 1, "Token": "t"})]),
        (identity, [answer(XML)]),
    ):
        upstream.default = steps
        with pytest.raises(ProviderUnavailable, match="could not be fetched"):
            await get(environment)
    (tmp_path / "none").write_text("token")
    upstream.default = [answer(XML.replace(b"SessionToken", b"Other"))]
    with pytest.raises(ProviderUnavailable, match="could not be fetched"):
        await get(identity)
