"""Tests of the table of classes."""

from antiphon.domain.attempt_class import AttemptClass
from antiphon.routing.rules import RULES, Verdict


def test_each_class_has_a_rule() -> None:
    """No class is without a rule, and nothing is tried again after output, or for a caller that left."""
    assert RULES.keys() == set(AttemptClass)
    for final in (AttemptClass.CUT, AttemptClass.GONE, AttemptClass.DEADLINE, AttemptClass.STOPPING, AttemptClass.INVALID):
        assert not RULES[final].again
        assert not RULES[final].onward


def test_only_failures_of_the_target_count_against_it() -> None:
    """What the caller did, or its provider limits, is no failure of the target."""
    failures = {found for found, rule in RULES.items() if rule.verdict is Verdict.FAILED}
    assert failures == {AttemptClass.CONNECT, AttemptClass.OVERLOADED, AttemptClass.LATE, AttemptClass.CUT}
