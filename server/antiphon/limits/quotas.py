"""Finds the limits of a caller: of its key, of its owner, and of all callers. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from msgspec import Struct
from msgspec.structs import asdict

from antiphon.config import LimitsConfig, QuotaConfig
from antiphon.domain.principal import UNLIMITED, Principal, Quota
from antiphon.limits.base import NANOS, Limit

ANONYMOUS = "anonymous"
"""The name under which calls without a key of this gateway are counted."""

_MAX_CACHED = 10_000
"""The most callers whose limits are cached."""


_COUNTED: Final = {Limit.REQUESTS: "requests", Limit.TOKENS: "tokens", Limit.STREAMS: "streams"}


class Bound(Struct, frozen=True):
    """One limit: its scope ("key", "owner" or "overall"), the name under which that subject is counted, and the maximum.

    The maximum of a budget is in nano-dollars. `counter` names the counter; it is empty for a budget, which has one for each day or
    month.
    """

    limit: Limit
    scope: str
    subject: str
    maximum: int
    counter: str = ""


class Quotas:
    """The limits of all callers."""

    def __init__(self, config: LimitsConfig | None = None) -> None:
        """Without a configuration callers only have the limits of their own key."""
        config = config or LimitsConfig()
        self._overall = config.overall.quota()
        self._per_key = config.per_key.quota()
        self._per_owner = config.per_owner.quota()
        self._owners = _owners(config.owners, self._per_owner)
        self._cache: dict[Principal, tuple[Bound, ...]] = {}

    def bounds_of(self, principal: Principal) -> tuple[Bound, ...]:
        """Return the limits of a caller, those of its key first; empty if nothing is limited."""
        found = self._cache.get(principal)
        if found is None:
            if len(self._cache) >= _MAX_CACHED:
                self._cache.clear()
            found = self._cache[principal] = self._look_up(principal)
        return found

    def _look_up(self, principal: Principal) -> tuple[Bound, ...]:
        own = {name: maximum for name, maximum in asdict(principal.quota).items() if maximum is not None}
        key = Quota(**{**asdict(self._per_key), **own})
        owner = self._owners.get(principal.owner, self._per_owner)
        return (
            *_bounds("key", subject("key", principal.id), key),
            *_bounds("owner", subject("owner", principal.owner), owner),
            *_bounds("overall", "overall", self._overall),
        )


def subject(scope: str, name: str) -> str:
    """Return the name under which a key or an owner is counted."""
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
        Bound(limit, scope, name, round(maximum * NANOS))
        if limit.is_budget
        else Bound(limit, scope, name, maximum, f"{_COUNTED[limit]}:{name}")
        for limit in Limit
        if (maximum := getattr(quota, limit)) is not None
    ]
