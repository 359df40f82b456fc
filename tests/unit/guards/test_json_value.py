"""Tests of masking JSON values."""

from typing import Any

from antiphon.config import GuardConfig
from antiphon.guards.base import Guard
from antiphon.guards.blocklist import build
from antiphon.guards.json_value import filter_value

GUARD: Guard = build(GuardConfig(name="words", kind="blocklist", patterns=["bad+|4{4}"], action="mask", replacement="#"))  # type: ignore[call-arg]


async def test_fields_that_are_masked_alike_stay_as_many() -> None:
    """Names that become equal by masking get suffixes within one object, so that no field is lost."""
    value = {"bad": 1, "badd": {"bad": 2}, "good": 3, "baddd": 4}
    assert await filter_value([GUARD], value, names={}) == {"#": 1, "#_": {"#": 2}, "good": 3, "#_2": 4}


async def test_names_are_masked_only_on_request() -> None:
    """Names of fields are masked only if `names` is given, because names of a provider's fields must stay."""
    assert await filter_value([GUARD], {"bad": "bad"}) == {"bad": "#"}


async def test_a_value_without_a_match_is_the_same_object() -> None:
    """A value without a match is returned as the same object. A masked number becomes a text."""
    value: list[Any] = [{"a": [1, 2.5, None, True, "good"]}]
    assert await filter_value([GUARD], value, names={}) is value
    assert await filter_value([GUARD], [44444, "x"]) == ["#4", "x"]
