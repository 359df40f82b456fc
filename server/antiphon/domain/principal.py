"""The identity of a caller and what it may do, whatever kind of credential proved it. No I/O."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Final

from msgspec import Struct

from antiphon.domain.errors import PermissionDenied
from antiphon.domain.model_names import matches

MAX_NAME: Final = 100
MAX_OWNER: Final = 200
MAX_MODELS: Final = 100
MAX_MODEL: Final = 200
"""The most characters of a key's name and of its owner, the most models a key may name, and the most characters of each."""


class Scope(StrEnum):
    """What a credential may be used for. The values are stored and appear in tokens, so they must never change their meaning."""

    CHAT = "chat"
    """Chat, and the list of models."""
    HISTORY = "history"
    """Reading and changing the owner's conversations."""
    PROXY = "proxy"
    ENGINE = "engine"
    ADMIN = "admin"
    """Keys, usage reports, and everything else reserved to admins."""


DEFAULT_SCOPES = frozenset({Scope.CHAT, Scope.HISTORY, Scope.PROXY, Scope.ENGINE})
"""Every scope except that of admins."""


def scopes_or_default(scopes: Iterable[Scope] | None) -> tuple[Scope, ...]:
    """Return the scopes, sorted and without repetition: `DEFAULT_SCOPES` for None, and none for an empty list."""
    return tuple(sorted(DEFAULT_SCOPES if scopes is None else set(scopes)))


class Quota(Struct, frozen=True, omit_defaults=True):
    """The limits of one subject; None means no limit."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    """Prompt and completion tokens together."""
    concurrent_streams: int | None = None
    """Concurrent calls to providers, streaming or not."""
    daily_usd: float | None = None
    """USD spent since midnight UTC."""
    monthly_usd: float | None = None
    """USD spent since the first of the month, UTC."""


UNLIMITED = Quota()


class Principal(Struct, frozen=True):
    """A caller.

    `id` identifies the credential for its whole life, such as "key:01J...", and contains no secret; `name` is shown in logs.
    Conversations and spending belong to `owner`. `models` are names and patterns with `*`: None allows all models, an empty list
    none.
    """

    name: str
    owner: str
    id: str = ""
    scopes: frozenset[Scope] = DEFAULT_SCOPES
    models: tuple[str, ...] | None = None
    quota: Quota = UNLIMITED
    """The limits of this credential. Its owner may have a quota as well."""
    tags: tuple[tuple[str, str], ...] = ()
    """The tags of its calls, as pairs of name and value; see `antiphon.domain.tags`."""

    def require(self, scope: Scope) -> None:
        """Raise `PermissionDenied` unless the caller has the scope."""
        if scope not in self.scopes:
            raise PermissionDenied(
                "This needs an admin key." if scope is Scope.ADMIN else f"This needs a key with the scope {scope}."
            )

    def may_use(self, model: str, provider: str) -> bool:
        """Return whether the caller may use and see this model of this provider. Patterns match "model" or "provider/model"."""
        names = (model, f"{provider}/{model}")
        return self.models is None or any(matches(name, pattern) for pattern in self.models for name in names)


ANONYMOUS = Principal("", owner="", scopes=frozenset())
"""The caller of a call without a valid credential, where such a call is not refused at once. It has no scopes and owns nothing."""
