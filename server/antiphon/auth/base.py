"""What every kind of credential has in common: somebody who can tell whether it is good."""

from __future__ import annotations

from typing import Protocol

from antiphon.domain.errors import Unauthenticated
from antiphon.domain.principal import Principal


class Authenticator(Protocol):
    """Judges the credentials of one kind."""

    async def authenticate(self, credential: str) -> Principal | None:
        """Who the credential speaks for; None if it is none of this kind, or not known here.

        Raises `Unauthenticated` for one of this kind that is no good, and any other `AntiphonError` where that cannot be told now.
        """


class Authenticators:
    """All kinds, one after the other: the first that knows a credential decides."""

    def __init__(self, *kinds: Authenticator) -> None:
        self._kinds = kinds

    async def authenticate(self, credential: str) -> Principal | None:
        """As `Authenticator`."""
        for kind in self._kinds:
            principal = await kind.authenticate(credential)
            if principal is not None:
                return principal
        return None


def bearer(authorization: str | None) -> str:
    """The credential in an `authorization` header: `Bearer <key>`, the scheme in any case. Raises `Unauthenticated` if none is."""
    scheme, _, credential = (authorization or "").partition(" ")
    credential = credential.strip()
    if scheme.lower() != "bearer" or not credential:
        raise Unauthenticated('No API key. Send it as "Authorization: Bearer <key>".')
    return credential


async def identify(kinds: Authenticator, authorization: str | None) -> Principal:
    """Who an `authorization` header speaks for. Raises `Unauthenticated`, and as `Authenticator`."""
    principal = await kinds.authenticate(bearer(authorization))
    if principal is None:
        raise Unauthenticated("The API key is not valid.")
    return principal
