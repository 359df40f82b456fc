"""Names and ids of function calls."""

import pytest

from antiphon.domain.request import NativeTool, Tool
from antiphon.providers.gemini.names import is_made, made_id, original_names, sent_name


@pytest.mark.parametrize("name", ["f", "_f", "a.b:c-d_9", "F" * 64])
def test_names_that_are_accepted(name: str) -> None:
    """They are sent as they are."""
    assert sent_name(name) == name


@pytest.mark.parametrize("name", ["", "9f", "a b", "größe", "F" * 65, "-x", "a/b"])
def test_names_that_are_refused(name: str) -> None:
    """They are replaced by names that are accepted, and stay different."""
    sent = sent_name(name)
    assert sent != name
    assert sent_name(sent) == sent
    assert sent_name(name + "!") != sent
    assert original_names([Tool(name), Tool("f"), NativeTool({"x": {}})]) == {sent: name}


def test_ids() -> None:
    """Those that are made here are known again, and are the same for each reading."""
    assert made_id("r", 1) == made_id("r", 1) != made_id("r", 2) != made_id("s", 1)
    assert is_made(made_id("r", 1))
    assert len(made_id("r", 1)) <= 40, "the most that other providers accept"
    assert not is_made("call_1")
