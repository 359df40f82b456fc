"""Names and ids that Anthropic's API accepts."""

import re

from hypothesis import given
from hypothesis import strategies as st

from antiphon.providers.anthropic.names import CallIds, ToolNames


@given(st.lists(st.text(max_size=200) | st.sampled_from(["a.b", "a_b", "a_b_2", "a/b", "x" * 200, "x" * 201])))
def test_names(names: list[str]) -> None:
    """Every name is accepted, and found again by it; accepted ones stay."""
    tools = ToolNames(names)
    for name in names:
        sent = tools.sent(name)
        assert re.fullmatch(r"[a-zA-Z0-9_-]{1,128}", sent)
        assert tools.original(sent) == name
    assert tools.sent("fine") == tools.original("fine") == "fine"
    assert tools.sent("not known") == "not_known"


@given(st.lists(st.text(max_size=20) | st.sampled_from(["a.b", "a_b", "a|b"])))
def test_ids(ids: list[str]) -> None:
    """Different ids stay different, and the same one stays the same."""
    calls = CallIds()
    sent = [calls.sent(one) for one in ids]
    assert all(re.fullmatch(r"[a-zA-Z0-9_-]+", one) for one in sent)
    assert len(set(sent)) == len(set(ids))
    assert [calls.sent(one) for one in ids] == sent
