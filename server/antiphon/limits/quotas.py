"""Which limits a caller has: of its key, of its owner, and of all callers together. No I/O."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct
from msgspec.structs import asdict

from antiphon.config import LimitsConfig, QuotaConfig
from antiphon.domain.principal import UNLIMITED, Principal, Quota
from antiphon.limits.base import NANOS, Limit

ANONYMOUS = "anonymous"
"""What is counted for all that call without a key of this gateway."""

_MOST_KEPT = 10_000
"""Callers whose limits are kept at hand."""


class Bound(Struct, frozen=True):
    """One limit: whose it is ("key", "owner" or "overall"), under which name that one is counted, and how much there is.

    Of a budget that is in nano-dollars.
    """

    limit: Limit
    scope: str
    subject: str
    most: int


class Quotas:
    """The limits of all callers."""

    def __init__(self, config: LimitsConfig | None = None) -> None:
        """None: nobody has any but those of its own key."""
        config = config or LimitsConfig()
        self._overall = config.overall.quota()
        self._per_key = config.per_key.quota()
        self._per_owner = config.per_owner.quota()
        self._owners = _owners(config.owners, self._per_owner)
        self._found: dict[Principal, tuple[Bound, ...]] = {}

    def of(self, principal: Principal) -> tuple[Bound, ...]:
        """The limits of a caller, those of its key first; none of them where nothing is limited."""
        found = self._found.get(principal)
        if found is None:
            if len(self._found) >= _MOST_KEPT:
                self._found.clear()
            found = self._found[principal] = self._look_up(principal)
        return found

    def _look_up(self, principal: Principal) -> tuple[Bound, ...]:
        own = {name: most for name, most in asdict(principal.quota).items() if most is not None}
        key = Quota(**{**asdict(self._per_key), **own})
        owner = self._owners.get(principal.owner, self._per_owner)
        return (
            *_bounds("key", subject("key", principal.id), key),
            *_bounds("owner", subject("owner", principal.owner), owner),
            *_bounds("overall", "overall", self._overall),
        )


def subject(scope: str, name: str) -> str:
    """Under which name a key or an owner is counted."""
    return f"{scope}:{name or ANONYMOUS}"


def _owners(configured: Mapping[str, QuotaConfig], default: Quota) -> dict[str, Quota]:
    return {
        owner: Quota(**{**asdict(default), **quota.model_dump(include=quota.model_fields_set)})
        for owner, quota in configured.items()
    }


def _bounds(scope: str, name: str, quota: Quota) -> list[Bound]:
    if quota == UNLIMITED:
        return []
    return [
        Bound(limit, scope, name, round(most * NANOS) if limit.is_budget else most)
        for limit in Limit
        if (most := getattr(quota, limit)) is not None
    ]
