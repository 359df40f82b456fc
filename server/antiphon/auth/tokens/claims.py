"""Mapping of a token's claims to a principal. Only for claims whose signature, issuer, audience and times are verified. No I/O.

Unless the operator configures otherwise, an owner begins with the issuer's name, so that a subject of one issuer is never taken for
a subject of another, or for the name of a key.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from antiphon.config import IssuerConfig
from antiphon.domain.principal import Principal, Scope

MAX_NAME: Final = 255
"""The longest name in a claim, in characters: the limit that OpenID Connect sets for `sub`."""


_ABSENT: Final = object()
"""The value of a claim that is missing; a claim that is null has the value None."""


class ClaimUnusable(Exception):
    """A claim has an unusable value. The message names the claim, and does not contain the value."""


class ClaimMapping:
    """Maps the claims of one issuer's tokens, as its configuration says."""

    def __init__(self, config: IssuerConfig) -> None:
        self._config = config
        self._scope_claims = ("scope", "scp") if config.scope_claim is None else (config.scope_claim,)
        self._scopes = None if config.scopes is None else {word: frozenset(opened) for word, opened in config.scopes.items()}
        self._default_scopes = frozenset(config.default_scopes)

    def principal(self, claims: Mapping[str, Any]) -> Principal:
        """Return the principal of the token. Raises `ClaimUnusable`."""
        config = self._config
        subject = _name(claims, "sub")
        owner = config.prefix + (subject if config.owner_claim == "sub" else _name(claims, config.owner_claim))
        return Principal(self._display_name(claims) or owner, owner, f"token:{config.name}:{subject}", self._granted_scopes(claims))

    def _display_name(self, claims: Mapping[str, Any]) -> str | None:
        try:
            return None if self._config.name_claim is None else _name(claims, self._config.name_claim)
        except ClaimUnusable:
            return None  # the name is only for display

    def _granted_scopes(self, claims: Mapping[str, Any]) -> frozenset[Scope]:
        said = [found for claim in self._scope_claims if (found := _find(claims, claim)) is not _ABSENT]
        if said and self._scopes is not None:
            # A token that has a scope claim grants only what it lists, even if that is null or nothing known here.
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
    """Return a claim by its name or by a dotted path, or `_ABSENT` if it is missing. A path below a null is null."""
    if path in claims:
        return claims[path]
    found: Any = claims
    for step in path.split("."):
        if found is not None:
            found = found.get(step, _ABSENT) if isinstance(found, dict) else _ABSENT
    return found


def _name(claims: Mapping[str, Any], claim: str) -> str:
    """Return a claim that is a name: one line of printable text. Raises `ClaimUnusable`."""
    found = _find(claims, claim)
    if not isinstance(found, str) or not found.strip() or len(found) > MAX_NAME or not found.isprintable():
        raise ClaimUnusable(claim)
    return found


def _words(found: Any) -> Iterable[str]:
    if isinstance(found, str):
        return found.split(" ")
    return (entry for entry in found if isinstance(entry, str)) if isinstance(found, list) else ()
