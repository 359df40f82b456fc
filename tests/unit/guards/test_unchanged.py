"""Tests of data that is passed on only if no guard changes the text."""

from antiphon.config import GuardConfig
from antiphon.guards.base import Guard
from antiphon.guards.blocklist import build
from antiphon.guards.unchanged import allowed_logprobs

GUARD: Guard = build(GuardConfig(name="words", kind="blocklist", patterns=["bad"], action="mask"))  # type: ignore[call-arg]


async def test_log_probabilities_of_parts_of_a_character_come_with_it() -> None:
    """Log probabilities of tokens that are parts of a character are matched by their bytes."""
    halves = ({"token": "\\xf0\\x9f", "bytes": [0xF0, 0x9F]}, {"token": "\\x98\\x80", "bytes": [0x98, 0x80]})
    assert await allowed_logprobs([GUARD], "\U0001f600", halves) == halves
    assert await allowed_logprobs([GUARD], "\U0001f601", halves) == ()
