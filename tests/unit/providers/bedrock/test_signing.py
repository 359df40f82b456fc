"""Signatures are those of AWS's own client, byte for byte, over the same URL."""

import asyncio
import json
from datetime import datetime
from typing import Any

import pytest
from botocore.awsrequest import AWSResponse
from botocore.session import get_session
from multidict import CIMultiDict
from pydantic import SecretStr
from yarl import URL

from antiphon.config import ConfigError, ProviderConfig
from antiphon.domain.content import Message, Role, Text
from antiphon.domain.request import ChatRequest
from antiphon.net.http import Transport
from antiphon.providers.bedrock import signing
from antiphon.providers.bedrock.credentials import AwsCredentials, Fixed
from antiphon.providers.bedrock.provider import BedrockProvider
from antiphon.providers.bedrock.signing import SignatureAuth
from antiphon.providers.client import Credentials

NOW = datetime(2026, 11, 29, 12, 0, 0)  # noqa: DTZ001  # as botocore has it
REGION = "eu-central-1"
KEY = AwsCredentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
TEMPORARY = AwsCredentials(KEY.access_key, KEY.secret_key, "session/token+=")
MODELS = (
    "anthropic.claude-3-5-sonnet-20240620-v1:0",
    "arn:aws:bedrock:eu-central-1:123456789012:application-inference-profile/abc123",
    "meta.llama3-3-70b-instruct-v1:0",
)


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop the clock of the signer."""
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda: NOW)


def theirs(credentials: AwsCredentials, model: str, *, stream: bool) -> Any:
    """Return the request that AWS's own client sends."""
    session = get_session()
    client = session.create_client(
        "bedrock-runtime",
        region_name=REGION,
        aws_access_key_id=credentials.access_key,
        aws_secret_access_key=credentials.secret_key,
        aws_session_token=credentials.token,
    )
    sent: list[Any] = []

    def take(request: Any, **_: Any) -> AWSResponse:
        sent.append(request)
        return AWSResponse(request.url, 403, {}, type("Raw", (), {"stream": lambda self: [b"{}"], "read": lambda self: b"{}"})())

    client.meta.events.register("before-send", take)
    call = client.converse_stream if stream else client.converse
    with pytest.raises(client.exceptions.ClientError):
        call(modelId=model, messages=[{"role": "user", "content": [{"text": "hü"}]}])
    return sent[0]


def ours(credentials: AwsCredentials, url: URL, body: bytes, **headers: str) -> Credentials:
    auth = SignatureAuth("p", Fixed(credentials), REGION, CIMultiDict(headers), {"X-More": "more"})
    return asyncio.run(auth.credentials(url, body, None))


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("credentials", [KEY, TEMPORARY], ids=["key", "temporary"])
def test_a_request(model: str, stream: bool, credentials: AwsCredentials) -> None:
    """The URL, the signed headers and the signature are the same."""
    expected = theirs(credentials, model, stream=stream)
    config = ProviderConfig(base_url=f"https://bedrock-runtime.{REGION}.amazonaws.com")
    provider = BedrockProvider("p", config, SecretStr("k"), Transport("p", config), {})
    request = ChatRequest(model, (Message(Role.USER, (Text("hü"),)),), stream=stream)
    prepared = provider._prepare(request)
    assert str(prepared.url) == expected.url
    assert json.loads(prepared.body) == json.loads(expected.body)
    made = ours(credentials, prepared.url, expected.body, **{"content-type": "application/json"})
    assert made.headers["authorization"] == expected.headers["Authorization"].decode()
    assert made.headers["x-amz-date"] == "20261129T120000Z"
    assert made.headers.get("x-amz-security-token") == credentials.token
    assert made.headers["x-more"] == "more"
    assert credentials.secret_key in made.secrets
    assert credentials.token is None or credentials.token in made.secrets


def test_a_request_without_a_body() -> None:
    """It is a GET, as that for the list of models."""
    url = URL("https://bedrock.eu-central-1.amazonaws.com/foundation-models")
    empty, full = ours(KEY, url, b""), ours(KEY, url, b"{}")
    assert empty.headers["authorization"] != full.headers["authorization"]
    assert "SignedHeaders=host;x-amz-date" in empty.headers["authorization"]


def test_another_host() -> None:
    """A configured host is signed in the place of that of the URL."""
    url = URL("https://vpce-1.bedrock-runtime.eu-central-1.vpce.amazonaws.com/model/m/converse")
    auth = SignatureAuth("p", Fixed(KEY), REGION, CIMultiDict(), {"Host": "bedrock-runtime.eu-central-1.amazonaws.com"})
    made = asyncio.run(auth.credentials(url, b"{}", None))
    direct = ours(KEY, url.with_host("bedrock-runtime.eu-central-1.amazonaws.com"), b"{}")
    assert made.headers["authorization"] == direct.headers["authorization"]


def test_a_callers_key() -> None:
    """It is a bearer key, and the gateway's credentials are not used."""
    auth = SignatureAuth("p", Fixed(KEY), REGION, CIMultiDict(), {})
    made = asyncio.run(auth.credentials(URL("https://x.test/"), b"{}", SecretStr("own")))
    assert dict(made.headers) == {"authorization": "Bearer own"}
    assert made.secrets == ("own",)


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """The configuration is refused with the command that installs it."""
    monkeypatch.setattr(signing, "INSTALLED", False)
    with pytest.raises(ConfigError, match=r"pip install 'antiphon\[bedrock\]'"):
        SignatureAuth("p", Fixed(KEY), REGION, CIMultiDict(), {})


def test_no_secret_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The signer's own log, which has the token, stays silent."""
    caplog.set_level("DEBUG")
    ours(TEMPORARY, URL("https://x.test/"), b"{}")
    assert "session/token" not in caplog.text
    assert KEY.secret_key not in repr(KEY)
