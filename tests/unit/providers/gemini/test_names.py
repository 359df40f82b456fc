"""Ids of function calls."""

from antiphon.providers.gemini.names import is_made, made_id


def test_ids() -> None:
    """Those that are made here are known again, and are the same for each reading."""
    assert made_id("r", 1) == made_id("r", 1) != made_id("r", 2) != made_id("s", 1)
    assert is_made(made_id("r", 1))
    assert len(made_id("r", 1)) <= 40, "the most that other providers accept"
    assert not is_made("call_1")
