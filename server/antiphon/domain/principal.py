"""Who calls, and what they may: what every kind of credential amounts to once it is found good. No I/O."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Final

from msgspec import Struct

from antiphon.domain.errors import PermissionDenied
from antiphon.domain.model_names import fits

MAX_NAME: Final = 100
MAX_OWNER: Final = 200
MAX_MODELS: Final = 100
MAX_MODEL: Final = 200
"""Characters of a key's name and owner, models that it may name, and characters of each."""


class Scope(StrEnum):
    """What a credential opens. The values are stored, and stand in tokens: they never change their meaning."""

    CHAT = "chat"
    """Chat, and the list of models."""
    HISTORY = "history"
    """Reading and changing one's own conversations."""
    PROXY = "proxy"
    ENGINE = "engine"
    ADMIN = "admin"
    """Keys, usage, and what is for admins alone."""


EVERYDAY = frozenset({Scope.CHAT, Scope.HISTORY, Scope.PROXY, Scope.ENGINE})
"""Every scope but that of admins."""


def everyday(scopes: Iterable[Scope] | None) -> tuple[Scope, ...]:
    """Return the scopes in order: all but that of admins for None, and none for an empty list."""
    return tuple(sorted(EVERYDAY if scopes is None else set(scopes)))


class Quota(Struct, frozen=True, omit_defaults=True):
    """How much may be used; None is no limit."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    """Tokens of prompts and of replies together."""
    concurrent_streams: int | None = None
    """Calls to providers at once, streaming or not."""
    daily_usd: float | None = None
    """Spent since midnight, UTC."""
    monthly_usd: float | None = None
    """Spent since the first of the month, UTC."""


UNLIMITED = Quota()


class Principal(Struct, frozen=True):
    """A caller.

    `id` names the credential for as long as it lives, such as "key:01J...", and holds nothing secret; `name` is how it is spoken of
    in logs. Conversations and spending belong to `owner`. `models` are names and patterns with `*`: None allows all, and an empty
    list none.
    """

    name: str
    owner: str
    id: str = ""
    scopes: frozenset[Scope] = EVERYDAY
    models: tuple[str, ...] | None = None
    quota: Quota = UNLIMITED
    """What this credential may use; its owner may have a quota beside it."""
    tags: tuple[tuple[str, str], ...] = ()
    """The tags of its calls, as names and values; see `antiphon.domain.tags`."""

    def require(self, scope: Scope) -> None:
        """Raise `PermissionDenied` unless the caller has the scope."""
        if scope not in self.scopes:
            raise PermissionDenied(
                "This needs an admin key." if scope is Scope.ADMIN else f"This needs a key with the scope {scope}."
            )

    def may_use(self, model: str, provider: str) -> bool:
        """Whether the model that a provider has under this name may be asked, and told of; patterns may name the provider too."""
        names = (model, f"{provider}/{model}")
        return self.models is None or any(fits(name, pattern) for pattern in self.models for name in names)


ANONYMOUS = Principal("", owner="", scopes=frozenset())
"""Who calls without a key, where that is not refused at once: nothing is theirs."""
