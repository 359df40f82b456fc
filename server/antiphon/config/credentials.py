"""What an operator decides of access tokens that are fetched: those of Google and of Microsoft Entra. No I/O but secrets."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Final

from pydantic import Field, SecretStr, model_validator

from antiphon.config.section import Section, read_secret


class TokenKind(StrEnum):
    """How an access token is fetched."""

    GOOGLE = "google"
    GOOGLE_METADATA = "google_metadata"
    ENTRA_SECRET = "entra_secret"  # noqa: S105 - the name of a kind
    ENTRA_WORKLOAD = "entra_workload"
    ENTRA_MANAGED = "entra_managed"


_FIELDS: Final[Mapping[TokenKind, frozenset[str]]] = {
    TokenKind.GOOGLE: frozenset({"file"}),
    TokenKind.GOOGLE_METADATA: frozenset({"metadata_url", "account"}),
    TokenKind.ENTRA_SECRET: frozenset({"authority", "tenant_id", "client_id", "client_secret_env", "client_secret_file"}),
    TokenKind.ENTRA_WORKLOAD: frozenset({"authority", "tenant_id", "client_id", "token_file"}),
    TokenKind.ENTRA_MANAGED: frozenset({"metadata_url", "client_id"}),
}
"""The settings that only some kinds have."""


class TokenConfig(Section):
    """An access token that is fetched before it is needed and again before it expires, in place of an API key."""

    kind: TokenKind
    """`google`: with a credentials file of Google Cloud: of a service account, a user, workload identity federation with a
    token file, or an impersonated service account. `google_metadata`: from the metadata server of GCE, GKE and Cloud Run.
    `entra_secret`: Microsoft Entra with a client secret. `entra_workload`: with the token file of a workload identity, as in AKS.
    `entra_managed`: the managed identity of a machine, of App Service or Container Apps in Azure."""
    file: Path | None = None
    """`google`: the credentials file. Unset: the one that `GOOGLE_APPLICATION_CREDENTIALS` names."""
    account: str = Field(default="default", pattern=r"^[A-Za-z0-9@._-]+$")
    """`google_metadata`: the service account of the machine that is used."""
    tenant_id: str | None = Field(default=None, pattern=r"^[A-Za-z0-9._-]+$")
    """`entra_secret`, `entra_workload`: the tenant. Unset: `AZURE_TENANT_ID`."""
    client_id: str | None = None
    """Microsoft Entra: the application. Unset: `AZURE_CLIENT_ID`; a managed identity without one is that of the system."""
    client_secret_env: str | None = None
    """`entra_secret`: the environment variable that holds the client secret. Unset: `AZURE_CLIENT_SECRET`."""
    client_secret_file: Path | None = None
    """`entra_secret`: the file that holds the client secret."""
    token_file: Path | None = None
    """`entra_workload`: the file with the token of the workload, read for each fetch. Unset: `AZURE_FEDERATED_TOKEN_FILE`."""
    authority: str | None = None
    """`entra_secret`, `entra_workload`: where tokens are issued. Unset: `AZURE_AUTHORITY_HOST`, else
    `https://login.microsoftonline.com`."""
    metadata_url: str | None = None
    """`google_metadata`, `entra_managed`: the service that has the token. It is an address of this machine or its network. Unset:
    `GCE_METADATA_HOST`, or `IDENTITY_ENDPOINT` with `IDENTITY_HEADER`, else `http://169.254.169.254`."""
    scope: str | None = Field(default=None, min_length=1)
    """What the token is for. Unset: `https://www.googleapis.com/auth/cloud-platform`, and for Microsoft Entra
    `https://cognitiveservices.azure.com/.default`."""
    refresh: float = Field(default=225.0, gt=0)
    """Seconds before its end at which a token is fetched again, while calls use the old one. At most half of its time."""
    timeout: float = Field(default=10.0, gt=0)
    """Seconds that a fetch may take, with its repetitions after failures."""

    @model_validator(mode="after")
    def _known_fields(self) -> TokenConfig:
        others = frozenset().union(*_FIELDS.values()) - _FIELDS[self.kind]
        for name in sorted(others & self.model_fields_set):
            raise ValueError(f"{self.kind.value} has no {name}")
        if self.client_secret_env is not None and self.client_secret_file is not None:
            raise ValueError("takes only one of client_secret_env and client_secret_file")
        return self

    def client_secret(self, section: str, environment: Mapping[str, str]) -> SecretStr | None:
        """Return the client secret of the settings at `section`. Raises `ConfigError` if its variable or file does not exist."""
        variable = self.client_secret_env or (None if self.client_secret_file is not None else "AZURE_CLIENT_SECRET")
        return read_secret(f"{section}.client_secret", variable, self.client_secret_file, environment)
