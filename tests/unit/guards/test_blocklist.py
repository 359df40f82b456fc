"""Tests of the guard with configured patterns (blocklist)."""

from antiphon.config import GuardConfig
from antiphon.guards import blocklist
from tests.unit.guards.feeding import fed


def test_a_blocklist_blocks_or_masks() -> None:
    """A blocklist blocks, or masks matches with the configured replacement or the default."""
    for options, expected in (
        ({}, "b!"),
        ({"action": "mask"}, "b[REMOVED]b[REMOVED]"),
        ({"action": "mask", "replacement": "*"}, "b*b*"),
        ({"action": "mask", "replacement": ""}, "bb"),
    ):
        config = GuardConfig(name="words", kind="blocklist", patterns=["a+"], **options)
        assert fed(blocklist.build(config)(), ["baab", "aa"]) == expected
