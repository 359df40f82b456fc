"""The `Authenticator` protocol, and the parsing of bearer credentials."""

from __future__ import annotations

from typing import Protocol

from antiphon.domain.errors import Unauthenticated
from antiphon.domain.principal import Principal


class Authenticator(Protocol):
    """Authenticates credentials of one kind."""

    async def authenticate(self, credential: str) -> Principal | None:
        """Return the credential's principal, or None if the credential is of another kind or unknown here.

        Raises `Unauthenticated` for an invalid credential of this kind, and another `AntiphonError` if it cannot be checked at the
        moment.
        """


class Authenticators:
    """Several authenticators, tried in order: the first that recognises a credential decides."""

    def __init__(self, *kinds: Authenticator) -> None:
        self._kinds = kinds

    async def authenticate(self, credential: str) -> Principal | None:
        """See `Authenticator`."""
        for kind in self._kinds:
            principal = await kind.authenticate(credential)
            if principal is not None:
                return principal
        return None


def bearer(authorization: str | None) -> str:
    """Return the credential in an `authorization` header `Bearer <key>`; the scheme is case-insensitive.

    Raises `Unauthenticated` if the header has none.
    """
    scheme, _, credential = (authorization or "").partition(" ")
    credential = credential.strip()
    if scheme.lower() != "bearer" or not credential:
        raise Unauthenticated('No API key. Send it as "Authorization: Bearer <key>".')
    return credential


async def identify(kinds: Authenticator, authorization: str | None) -> Principal:
    """Return the principal of an `authorization` header. Raises `Unauthenticated`, and what `Authenticator.authenticate` raises."""
    principal = await kinds.authenticate(bearer(authorization))
    if principal is None:
        raise Unauthenticated("The API key is not valid.")
    return principal
