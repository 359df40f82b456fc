"""Credentials files of Google Cloud, of the kinds that work without a browser and without running a program.

https://cloud.google.com/docs/authentication/application-default-credentials. A file is read for each fetch, as it may be replaced.
Its URLs are used as they stand, so it has to come from somebody who may choose where the gateway connects to.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, TypeAlias

import httpx2
import msgspec
from msgspec import Struct

from antiphon.config import ConfigError
from antiphon.providers.credentials.endpoint import Endpoint, token_url
from antiphon.providers.credentials.google import Federated, Impersonated, ServiceAccount, Sign, User
from antiphon.providers.credentials.subject import MAX_BYTES, SubjectToken
from antiphon.providers.credentials.token import AccessToken, TokenFailed, TokenSource

_TOKEN_URI: Final = "https://oauth2.googleapis.com/token"  # noqa: S105 - where tokens are issued

Open: TypeAlias = Callable[[httpx2.URL], Endpoint]
"""Returns the endpoint at a URL."""

ReadKey: TypeAlias = Callable[[str, str | None], Sign]
"""Returns what signs with a private key in PEM and its id. Raises `ValueError` if it is not an RSA key."""


class _ServiceAccount(Struct, tag="service_account", tag_field="type"):
    client_email: str
    private_key: str
    private_key_id: str | None = None
    token_uri: str = _TOKEN_URI


class _User(Struct, tag="authorized_user", tag_field="type"):
    client_id: str
    client_secret: str
    refresh_token: str
    token_uri: str = _TOKEN_URI
    quota_project_id: str | None = None


class _Format(Struct):
    type: str = "text"
    subject_token_field_name: str | None = None


class _TokenFile(Struct):
    """Where the subject token is. Other sources (a URL, a program, AWS) have no `file`, and are refused."""

    file: str | None = None
    format: _Format = msgspec.field(default_factory=_Format)


class _Federated(Struct, tag="external_account", tag_field="type"):
    audience: str
    subject_token_type: str
    token_url: str
    credential_source: _TokenFile
    service_account_impersonation_url: str | None = None
    quota_project_id: str | None = None


class _Impersonated(Struct, tag="impersonated_service_account", tag_field="type"):
    source_credentials: _ServiceAccount | _User
    service_account_impersonation_url: str
    delegates: list[str] = []
    quota_project_id: str | None = None


_File: TypeAlias = _ServiceAccount | _User | _Federated | _Impersonated


class GoogleFile:
    """The identity in a credentials file, as a `TokenSource`."""

    def __init__(self, path: Path, setting: str, scope: str, open_endpoint: Open, read_key: ReadKey) -> None:
        """Check the file; `setting` names it in errors. Raises `ConfigError`."""
        self._path = path
        self._where = f"{setting}: {path}"
        self._scope = scope
        self._open = open_endpoint
        self._read_key = read_key
        self._data = self._read()
        file = self._parse(self._data)
        self._current = self._source(file)
        quota_project = getattr(file, "quota_project_id", None)
        self.headers: Mapping[str, str] = {"x-goog-user-project": quota_project} if quota_project else {}

    async def fetch(self) -> AccessToken:
        try:
            await asyncio.to_thread(self._refresh)
        except ConfigError as error:  # the file has changed
            raise TokenFailed(str(error), refused=True) from None
        return await self._current.fetch()

    def _refresh(self) -> None:
        """Use what the file holds now. Reading a key takes 50 ms, so that is done only if the file has changed."""
        data = self._read()
        if data != self._data:
            self._current, self._data = self._source(self._parse(data)), data

    def _read(self) -> bytes:
        try:
            with self._path.open("rb") as file:
                data = file.read(MAX_BYTES + 1)
        except OSError as error:
            raise ConfigError(f"{self._where}: {error.strerror}") from None
        if len(data) > MAX_BYTES:
            raise ConfigError(f"{self._where}: has more than {MAX_BYTES} bytes")
        return data

    def _parse(self, data: bytes) -> _File:
        try:
            found: _File = msgspec.json.decode(data, type=_File)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:  # its message has names of fields, and no values but of `type`
            raise ConfigError(f"{self._where}: is not a credentials file that is known here: {error}") from None
        return found

    def _source(self, file: _File | _ServiceAccount | _User) -> TokenSource:
        """Return what fetches tokens with what the file holds. Raises `ConfigError`."""
        match file:
            case _ServiceAccount():
                try:
                    sign = self._read_key(file.private_key, file.private_key_id)
                except ValueError:
                    raise ConfigError(f"{self._where}: its private_key is not an RSA key in PEM") from None
                return ServiceAccount(self._at(file.token_uri, "token_uri"), file.token_uri, file.client_email, sign, self._scope)
            case _User():
                return User(self._at(file.token_uri, "token_uri"), file.client_id, file.client_secret, file.refresh_token)
            case _Federated():
                made: TokenSource = Federated(
                    self._at(file.token_url, "token_url"),
                    self._subject(file.credential_source),
                    file.audience,
                    file.subject_token_type,
                    self._scope,
                )
                return self._impersonate(made, file.service_account_impersonation_url)
            case _Impersonated():
                source = self._source(file.source_credentials)
                return self._impersonate(source, file.service_account_impersonation_url, file.delegates)

    def _impersonate(self, source: TokenSource, url: str | None, delegates: list[str] | None = None) -> TokenSource:
        if url is None:
            return source
        return Impersonated(self._at(url, "service_account_impersonation_url"), source, self._scope, delegates or ())

    def _subject(self, source: _TokenFile) -> SubjectToken:
        if not source.file:
            raise ConfigError(f"{self._where}: its credential_source has no file; those with a URL or a program are not supported")
        kind = source.format
        if kind.type not in ("text", "json") or (kind.type == "json" and not kind.subject_token_field_name):
            raise ConfigError(f"{self._where}: its credential_source.format is neither text, nor json with a field name")
        return SubjectToken(Path(source.file), kind.subject_token_field_name if kind.type == "json" else None)

    def _at(self, url: str, field: str) -> Endpoint:
        return self._open(token_url(url, f"{self._where}: its {field}"))
