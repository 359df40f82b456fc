"""Tests of each kind of access token, against an endpoint that checks the grants."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import requests
from google.auth import identity_pool
from google.auth.transport.requests import Request
from google.oauth2 import service_account
from pydantic import ValidationError

from antiphon.config import ConfigError, TokenConfig, TokenKind
from antiphon.net.fetch import Fetcher
from antiphon.net.outbound import DIRECT
from antiphon.providers.credentials.build import token_source
from antiphon.providers.credentials.token import AccessToken, TokenFailed, TokenSource
from tests.token_endpoint import (
    AUDIENCE,
    CLIENT_ID,
    EMAIL,
    GOOGLE_SCOPE,
    IDENTITY_HEADER,
    KEY,
    OTHER_KEY,
    REFRESH_TOKEN,
    SECRET,
    TENANT,
    TokenEndpoint,
    pem,
    workload_token,
)

ENTRA = {"AZURE_TENANT_ID": TENANT, "AZURE_CLIENT_ID": CLIENT_ID}


@pytest.fixture
async def endpoint() -> AsyncIterator[TokenEndpoint]:
    async with TokenEndpoint() as made:
        yield made


@pytest.fixture
async def source() -> AsyncIterator[Callable[..., TokenSource]]:
    fetcher = Fetcher()

    def made(environment: Mapping[str, str] = {}, **settings: Any) -> TokenSource:
        return token_source(TokenConfig(**settings), "providers.x.credentials", environment, fetcher, DIRECT)

    yield made
    await fetcher.close()


def is_from(endpoint: TokenEndpoint, token: AccessToken) -> bool:
    return endpoint.accepts(f"Bearer {token.value}") and abs(token.lifetime - endpoint.lifetime) < 5


async def test_a_service_account(endpoint: TokenEndpoint, source: Callable[..., TokenSource], tmp_path: Path) -> None:
    """A service account's signed grant is accepted, with the file of the setting or of the usual variable."""
    path = endpoint.service_account(tmp_path / "a.json")
    assert is_from(endpoint, await source(kind="google", file=path).fetch())
    assert is_from(endpoint, await source({"GOOGLE_APPLICATION_CREDENTIALS": str(path)}, kind="google").fetch())


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"private_key": pem(OTHER_KEY)}, "invalid_grant"),
        ({"client_email": "other@acme.iam.gserviceaccount.com"}, "invalid_grant"),
    ],
)
async def test_a_refused_service_account(
    endpoint: TokenEndpoint, source: Callable[..., TokenSource], tmp_path: Path, changes: dict[str, str], word: str
) -> None:
    """A refused grant raises with the endpoint's word, and with nothing of its sentence, which may quote the grant."""
    with pytest.raises(TokenFailed) as caught:
        await source(kind="google", file=endpoint.service_account(tmp_path / "a.json", **changes)).fetch()
    assert str(caught.value) == f"status 400, {word}"
    assert caught.value.refused


async def test_a_wrong_scope_is_refused(endpoint: TokenEndpoint, source: Callable[..., TokenSource], tmp_path: Path) -> None:
    """The scope of the settings is what is asked for."""
    path = endpoint.service_account(tmp_path / "a.json")
    with pytest.raises(TokenFailed, match="invalid_scope"):
        await source(kind="google", file=path, scope="https://www.googleapis.com/auth/other").fetch()


async def test_a_user(endpoint: TokenEndpoint, source: Callable[..., TokenSource], tmp_path: Path) -> None:
    """A refresh token is accepted, and the project that is billed goes with each call."""
    made = source(kind="google", file=endpoint.user(tmp_path / "a.json"))
    assert is_from(endpoint, await made.fetch())
    assert made.headers == {"x-goog-user-project": "quota"}
    revoked = endpoint.user(tmp_path / "b.json", refresh_token="revoked")  # noqa: S106 - not one
    with pytest.raises(TokenFailed, match="^status 400, invalid_grant$"):
        await source(kind="google", file=revoked).fetch()


@pytest.mark.parametrize("impersonated", [True, False])
async def test_workload_identity_federation(
    endpoint: TokenEndpoint, source: Callable[..., TokenSource], tmp_path: Path, *, impersonated: bool
) -> None:
    """The token of a file is exchanged, and that for one of a service account if the file says so. It is read each time."""
    token = tmp_path / "token"
    token.write_text(f"{workload_token(AUDIENCE)}\n")
    changes = {} if impersonated else {"service_account_impersonation_url": None}
    made = source(kind="google", file=endpoint.federated(tmp_path / "a.json", token, **changes))
    assert is_from(endpoint, await made.fetch())
    assert len(endpoint.issued) == (2 if impersonated else 1)
    token.write_text(workload_token(AUDIENCE, OTHER_KEY))
    with pytest.raises(TokenFailed, match="^status 400, invalid_grant$"):
        await made.fetch()
    token.unlink()
    with pytest.raises(TokenFailed, match="^the token file cannot be read: No such file"):
        await made.fetch()


async def test_a_subject_token_in_json(endpoint: TokenEndpoint, source: Callable[..., TokenSource], tmp_path: Path) -> None:
    """The token may be a field of a JSON file."""
    token = tmp_path / "token"
    token.write_text(json.dumps({"id": workload_token(AUDIENCE)}))
    where = {"file": str(token), "format": {"type": "json", "subject_token_field_name": "id"}}
    made = source(kind="google", file=endpoint.federated(tmp_path / "a.json", token, credential_source=where))
    assert is_from(endpoint, await made.fetch())
    token.write_text("{}")
    with pytest.raises(TokenFailed, match="^the token file has no token$"):
        await made.fetch()


async def test_an_impersonated_service_account(endpoint: TokenEndpoint, source: Callable[..., TokenSource], tmp_path: Path) -> None:
    """A user's token is turned into one of a service account."""
    user = json.loads(endpoint.user(tmp_path / "user.json").read_text())
    fields = {
        "type": "impersonated_service_account",
        "source_credentials": user,
        "service_account_impersonation_url": f"{endpoint.url}/impersonate/{EMAIL}:generateAccessToken",
    }
    path = tmp_path / "a.json"
    path.write_text(json.dumps(fields))
    assert is_from(endpoint, await source(kind="google", file=path).fetch())
    path.write_text(json.dumps(fields | {"service_account_impersonation_url": f"{endpoint.url}/impersonate/x:generateAccessToken"}))
    with pytest.raises(TokenFailed, match="^status 403, PERMISSION_DENIED$"):
        await source(kind="google", file=path).fetch()


@pytest.mark.parametrize("kind", ["service_account", "federated"])
async def test_the_endpoint_accepts_google_s_own_library(endpoint: TokenEndpoint, tmp_path: Path, kind: str) -> None:
    """The endpoint of these tests is no stricter and no laxer than the grants that google-auth makes from the same files.

    That of a user is left out: the library sends it to Google's own address.
    """
    token = tmp_path / "token"
    token.write_text(workload_token(AUDIENCE))
    path = tmp_path / "a.json"
    match kind:
        case "federated":
            # The library insists on the host of this URL, and so asks for no impersonation here.
            endpoint.federated(path, token, service_account_impersonation_url=None)
        case _:
            endpoint.service_account(path)

    def fetched() -> str:
        match kind:
            case "federated":
                made: Any = identity_pool.Credentials.from_file(str(path), scopes=[GOOGLE_SCOPE])
            case _:
                made = service_account.Credentials.from_service_account_file(str(path), scopes=[GOOGLE_SCOPE])
        with requests.Session() as session:
            made.refresh(Request(session))
        return str(made.token)

    assert endpoint.accepts(f"Bearer {await asyncio.to_thread(fetched)}")


async def test_google_s_metadata_server(endpoint: TokenEndpoint, source: Callable[..., TokenSource]) -> None:
    """The metadata server is asked with its header, at the address of the settings or of the usual variable."""
    assert is_from(endpoint, await source(kind="google_metadata", metadata_url=endpoint.url).fetch())
    host = endpoint.url.removeprefix("http://")
    assert is_from(endpoint, await source({"GCE_METADATA_HOST": host}, kind="google_metadata").fetch())
    with pytest.raises(TokenFailed, match="^status 404$"):
        await source(kind="google_metadata", metadata_url=endpoint.url, account="none@acme.test").fetch()


async def test_whoever_is_not_the_metadata_server_is_not_believed(
    endpoint: TokenEndpoint, source: Callable[..., TokenSource]
) -> None:
    """An answer without the metadata server's header is no token, though it looks like one."""
    endpoint.flavor = {}
    with pytest.raises(TokenFailed, match="not one of the metadata server"):
        await source(kind="google_metadata", metadata_url=endpoint.url).fetch()


async def test_a_client_secret(endpoint: TokenEndpoint, source: Callable[..., TokenSource], tmp_path: Path) -> None:
    """A client secret comes from the usual variable, another one, or a file."""
    path = tmp_path / "secret"
    path.write_text(f"{SECRET}\n")
    at = {"kind": "entra_secret", "authority": endpoint.url}
    assert is_from(endpoint, await source(ENTRA | {"AZURE_CLIENT_SECRET": SECRET}, **at).fetch())
    assert is_from(endpoint, await source(ENTRA | {"S": SECRET}, **at, client_secret_env="S").fetch())  # noqa: S106
    given = {"tenant_id": TENANT, "client_id": CLIENT_ID, "client_secret_file": path}
    assert is_from(endpoint, await source({"AZURE_AUTHORITY_HOST": endpoint.url}, kind="entra_secret", **given).fetch())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"AZURE_CLIENT_SECRET": "wrong-secret"}, "status 401, invalid_client, AADSTS7000215"),
        ({"AZURE_CLIENT_ID": "other"}, "status 400, unauthorized_client, AADSTS700016"),
        ({"AZURE_TENANT_ID": "other"}, "status 400, invalid_request, AADSTS90002"),
    ],
)
async def test_a_refused_application(
    endpoint: TokenEndpoint, source: Callable[..., TokenSource], changes: dict[str, str], message: str
) -> None:
    """A refusal has the endpoint's word and Microsoft's number, and nothing of the sentence, which may quote the secret."""
    made = source(ENTRA | {"AZURE_CLIENT_SECRET": SECRET} | changes, kind="entra_secret", authority=endpoint.url)
    with pytest.raises(TokenFailed) as caught:
        await made.fetch()
    assert (str(caught.value), caught.value.refused) == (message, True)


async def test_a_workload_identity(endpoint: TokenEndpoint, source: Callable[..., TokenSource], tmp_path: Path) -> None:
    """The token of a pod is sent as it is at that time: the cluster replaces it."""
    token = tmp_path / "token"
    token.write_text(workload_token("api://AzureADTokenExchange", lifetime=-900))
    made = source(ENTRA | {"AZURE_FEDERATED_TOKEN_FILE": str(token)}, kind="entra_workload", authority=endpoint.url)
    with pytest.raises(TokenFailed, match="^status 401, invalid_client, AADSTS700213$"):
        await made.fetch()
    token.write_text(workload_token("api://AzureADTokenExchange"))
    assert is_from(endpoint, await made.fetch())


async def test_a_managed_identity(endpoint: TokenEndpoint, source: Callable[..., TokenSource]) -> None:
    """A machine's identity is asked of its metadata service; App Service and Container Apps announce another."""
    assert is_from(endpoint, await source(kind="entra_managed", metadata_url=endpoint.url).fetch())
    assert is_from(endpoint, await source(kind="entra_managed", metadata_url=endpoint.url, client_id=CLIENT_ID).fetch())
    announced = {"IDENTITY_ENDPOINT": f"{endpoint.url}/msi/token", "IDENTITY_HEADER": IDENTITY_HEADER}
    assert is_from(endpoint, await source(announced, kind="entra_managed").fetch())
    assert endpoint.requests[-1].startswith("/msi/token?")
    with pytest.raises(TokenFailed, match="^status 403$"):
        await source(announced | {"IDENTITY_HEADER": "wrong"}, kind="entra_managed").fetch()


@pytest.mark.parametrize(
    ("environment", "settings", "message"),
    [
        ({}, {"kind": "google"}, "providers.x.credentials.file: set it, or GOOGLE_APPLICATION_CREDENTIALS"),
        ({}, {"kind": "entra_secret"}, "providers.x.credentials.tenant_id: set it, or AZURE_TENANT_ID"),
        (
            ENTRA,
            {"kind": "entra_secret"},
            "providers.x.credentials.client_secret_env: the environment variable AZURE_CLIENT_SECRET",
        ),
        (ENTRA, {"kind": "entra_workload"}, "providers.x.credentials.token_file: set it, or AZURE_FEDERATED_TOKEN_FILE"),
        (
            ENTRA | {"AZURE_CLIENT_SECRET": SECRET},
            {"kind": "entra_secret", "authority": "http://login.test"},
            "providers.x.credentials.authority: must be an https URL",
        ),
        ({"GCE_METADATA_HOST": "8.8.8.8"}, {"kind": "google_metadata"}, "GCE_METADATA_HOST: must be an http URL of an address of"),
        (
            {},
            {"kind": "entra_managed", "metadata_url": "http://example.com"},
            "providers.x.credentials.metadata_url: must be an http",
        ),
        (
            {"IDENTITY_ENDPOINT": "http://user:password@10.0.0.1/", "IDENTITY_HEADER": "h"},
            {"kind": "entra_managed"},
            "IDENTITY_ENDPOINT: must be a URL without password and fragment",
        ),
    ],
)
async def test_settings_that_are_missing_or_wrong(
    source: Callable[..., TokenSource], environment: dict[str, str], settings: dict[str, str], message: str
) -> None:
    """A missing or wrong setting is an error at start, with its name."""
    with pytest.raises(ConfigError) as caught:
        source(environment, **settings)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"type": "gdch_service_account"}, "is not a credentials file that is known here"),
        ({"type": "authorized_user", "refresh_token": REFRESH_TOKEN}, "is not a credentials file that is known here"),
        ({"private_key": SECRET}, "its private_key is not an RSA key in PEM"),
        ({"private_key": KEY.public_key().public_numbers().n.__str__()}, "its private_key is not an RSA key in PEM"),
        ({"token_uri": "http://example.com/token"}, "its token_uri: must be an https URL"),
    ],
)
async def test_a_credentials_file_that_cannot_be_used(
    endpoint: TokenEndpoint, source: Callable[..., TokenSource], tmp_path: Path, fields: dict[str, str], message: str
) -> None:
    """A file that cannot be used is an error at start, without any secret in it."""
    path = endpoint.service_account(tmp_path / "a.json", **fields)
    with pytest.raises(ConfigError) as caught:
        source(kind="google", file=path)
    assert str(caught.value).startswith(f"providers.x.credentials.file: {path}: {message}")
    assert SECRET not in str(caught.value)
    assert REFRESH_TOKEN not in str(caught.value)


@pytest.mark.parametrize("where", [{"url": "http://169.254.169.254/token"}, {"executable": {"command": "/bin/true"}}, {}])
async def test_subject_tokens_are_read_from_files_only(
    endpoint: TokenEndpoint, source: Callable[..., TokenSource], tmp_path: Path, where: dict[str, Any]
) -> None:
    """A credentials file can make the gateway neither fetch from an address nor run a program."""
    path = endpoint.federated(tmp_path / "a.json", tmp_path / "token", credential_source=where)
    with pytest.raises(ConfigError, match="its credential_source has no file"):
        source(kind="google", file=path)


async def test_a_file_that_is_replaced(endpoint: TokenEndpoint, source: Callable[..., TokenSource], tmp_path: Path) -> None:
    """A replaced credentials file is used from the next fetch on; a broken one fails that fetch."""
    path = endpoint.service_account(tmp_path / "a.json", private_key=pem(OTHER_KEY))
    made = source(kind="google", file=path)
    with pytest.raises(TokenFailed, match="invalid_grant"):
        await made.fetch()
    endpoint.service_account(path)
    assert is_from(endpoint, await made.fetch())
    path.write_text("{")
    with pytest.raises(TokenFailed, match="is not a credentials file"):
        await made.fetch()


@pytest.mark.parametrize("kind", list(TokenKind))
def test_settings_of_another_kind_are_refused(kind: TokenKind) -> None:
    """A setting that a kind does not have is refused, rather than ignored."""
    others = {"file": "a.json", "token_file": "t"} | (
        {"tenant_id": "t"} if kind in (TokenKind.GOOGLE, TokenKind.GOOGLE_METADATA) else {"account": "a"}
    )
    with pytest.raises(ValidationError, match=f"{kind.value} has no "):
        TokenConfig.model_validate({"kind": kind, **others})


def test_a_token_is_not_shown() -> None:
    """The representation of a token does not have it."""
    assert "secret" not in f"{AccessToken('secret', 60.0)!r} {AccessToken('secret', 60.0)}"
