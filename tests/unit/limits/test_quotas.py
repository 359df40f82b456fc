"""Tests of which limits hold for a caller."""

from antiphon.config import LimitsConfig
from antiphon.domain.principal import Principal, Quota
from antiphon.limits.base import NANOS, Limit
from antiphon.limits.quotas import Bound, Quotas


def found(quotas: Quotas, principal: Principal) -> set[tuple[str, str, int]]:
    return {(bound.subject, bound.limit.value, bound.maximum) for bound in quotas.bounds_of(principal)}


def test_nobody_is_limited_by_default() -> None:
    """Without configuration a caller has no limits."""
    assert Quotas().bounds_of(Principal("a", owner="a")) == ()


def test_a_key_has_its_own_limits_and_those_of_all_keys_where_it_has_none() -> None:
    """A key has its own limits, and those of `per_key` for the fields that it leaves unset."""
    quotas = Quotas(LimitsConfig.model_validate({"per_key": {"requests_per_minute": 60, "concurrent_streams": 4}}))
    own = Principal("a", owner="o", id="key:1", quota=Quota(requests_per_minute=5, daily_usd=1.5))
    assert found(quotas, own) == {
        ("key:key:1", "requests_per_minute", 5),
        ("key:key:1", "concurrent_streams", 4),
        ("key:key:1", "daily_usd", round(1.5 * NANOS)),
    }
    assert found(quotas, Principal("b", owner="o", id="key:2")) == {
        ("key:key:2", "requests_per_minute", 60),
        ("key:key:2", "concurrent_streams", 4),
    }


def test_an_owner_may_have_more_less_or_no_limit() -> None:
    """An owner's entry overrides `per_owner` field by field; null means no limit."""
    quotas = Quotas(
        LimitsConfig.model_validate(
            {
                "per_owner": {"tokens_per_minute": 1000, "requests_per_minute": 10},
                "owners": {"acme": {"tokens_per_minute": 5000}, "free": {"tokens_per_minute": None, "requests_per_minute": None}},
            }
        )
    )
    assert found(quotas, Principal("a", owner="acme")) == {
        ("owner:acme", "tokens_per_minute", 5000),
        ("owner:acme", "requests_per_minute", 10),
    }
    assert found(quotas, Principal("a", owner="free")) == set()
    assert {most for _, _, most in found(quotas, Principal("a", owner="else"))} == {1000, 10}


def test_the_overall_limit_counts_all_callers() -> None:
    """The overall limit counts all callers. Callers without a key count as one key."""
    quotas = Quotas(LimitsConfig.model_validate({"overall": {"monthly_usd": 100}, "per_key": {"requests_per_minute": 1}}))
    assert quotas.bounds_of(Principal("", owner="")) == (
        Bound(Limit.REQUESTS, "key", "key:anonymous", 1, "requests:key:anonymous"),
        Bound(Limit.MONTH, "overall", "overall", 100 * NANOS),
    )


def test_a_key_whose_limits_are_changed_has_the_new_ones() -> None:
    """Changed limits of a key hold at once, because they come with the principal."""
    quotas = Quotas()
    for most in (1, 2):
        assert found(quotas, Principal("a", owner="o", id="k", quota=Quota(requests_per_minute=most))) == {
            ("key:k", "requests_per_minute", most)
        }
