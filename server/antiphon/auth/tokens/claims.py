"""What the claims of a token amount to: a caller. Only for claims whose signature, issuer, audience and times were found good.

An owner begins with the issuer's name, unless the operator says otherwise: what one issuer calls somebody is nothing to another,
nor to the names of keys. No I/O.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from antiphon.config import IssuerConfig
from antiphon.domain.principal import Principal, Scope

MAX_NAME: Final = 255
"""Characters that a name in a claim may have: as many as OpenID Connect allows `sub`."""


_ABSENT: Final = object()
"""What is said by a claim that is not there. One that is null is."""


class ClaimUnusable(Exception):
    """A claim cannot be what it has to be. The message names it, and holds nothing of what it says."""


class ClaimMapping:
    """Reads the claims of one issuer's tokens as its configuration says."""

    def __init__(self, config: IssuerConfig) -> None:
        self._config = config
        self._scope_claims = ("scope", "scp") if config.scope_claim is None else (config.scope_claim,)
        self._scopes = None if config.scopes is None else {word: frozenset(opened) for word, opened in config.scopes.items()}
        self._default_scopes = frozenset(config.default_scopes)

    def principal(self, claims: Mapping[str, Any]) -> Principal:
        """Who the token speaks for. Raises `ClaimUnusable`."""
        config = self._config
        subject = _name(claims, "sub")
        owner = config.prefix + (subject if config.owner_claim == "sub" else _name(claims, config.owner_claim))
        return Principal(self._spoken_name(claims) or owner, owner, f"token:{config.name}:{subject}", self._granted(claims))

    def _spoken_name(self, claims: Mapping[str, Any]) -> str | None:
        try:
            return None if self._config.name_claim is None else _name(claims, self._config.name_claim)
        except ClaimUnusable:
            return None  # nothing depends on it

    def _granted(self, claims: Mapping[str, Any]) -> frozenset[Scope]:
        said = [found for claim in self._scope_claims if (found := _find(claims, claim)) is not _ABSENT]
        if said and self._scopes is not None:
            # A token that says what it is for opens that and no more, though it be nothing that is known here, or null.
            granted = frozenset[Scope]().union(*(self._scopes.get(word, ()) for found in said for word in _words(found)))
        else:
            granted = self._default_scopes
        return granted | {Scope.ADMIN} if self._is_admin(claims) else granted

    def _is_admin(self, claims: Mapping[str, Any]) -> bool:
        admin = self._config.admin
        if admin is None:
            return False
        found = _find(claims, admin.claim)
        said = found if isinstance(found, list) else [found]
        return any(type(entry) is type(admin.value) and entry == admin.value for entry in said)


def _find(claims: Mapping[str, Any], path: str) -> Any:
    """A claim by its name, or by a path of names with dots between them; `_ABSENT` if there is none. What null holds is null."""
    if path in claims:
        return claims[path]
    found: Any = claims
    for step in path.split("."):
        if found is not None:
            found = found.get(step, _ABSENT) if isinstance(found, dict) else _ABSENT
    return found


def _name(claims: Mapping[str, Any], claim: str) -> str:
    """A claim that names somebody: a text in one line, with nothing in it that does not show. Raises `ClaimUnusable`."""
    found = _find(claims, claim)
    if not isinstance(found, str) or not found.strip() or len(found) > MAX_NAME or not found.isprintable():
        raise ClaimUnusable(claim)
    return found


def _words(found: Any) -> Iterable[str]:
    if isinstance(found, str):
        return found.split(" ")
    return (entry for entry in found if isinstance(entry, str)) if isinstance(found, list) else ()
