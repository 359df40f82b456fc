"""Guards over JSON values."""

from typing import Any

from antiphon.config import GuardConfig
from antiphon.guards.base import Guard
from antiphon.guards.blocklist import build
from antiphon.guards.json_value import filter_value

GUARD: Guard = build(GuardConfig(name="words", kind="blocklist", patterns=["bad+|4{4}"], action="mask", replacement="#"))  # type: ignore[call-arg]


async def test_fields_that_are_masked_alike_stay_as_many() -> None:
    """None is lost, and each keeps its value; within each other they may be called the same."""
    value = {"bad": 1, "badd": {"bad": 2}, "good": 3, "baddd": 4}
    assert await filter_value([GUARD], value, names={}) == {"#": 1, "#_": {"#": 2}, "good": 3, "#_2": 4}


async def test_names_are_read_only_where_that_is_asked_for() -> None:
    """Those of a provider's own fields are its own."""
    assert await filter_value([GUARD], {"bad": "bad"}) == {"bad": "#"}


async def test_what_nothing_was_found_in_is_the_very_value() -> None:
    """So that what was changed is known by identity; a number that was becomes a text."""
    value: list[Any] = [{"a": [1, 2.5, None, True, "good"]}]
    assert await filter_value([GUARD], value, names={}) is value
    assert await filter_value([GUARD], [44444, "x"]) == ["#4", "x"]
