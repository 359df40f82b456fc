"""Ids of calls that Anthropic's API accepts."""

import re

from hypothesis import given
from hypothesis import strategies as st

from antiphon.providers.anthropic.names import CallIds


@given(st.lists(st.text(max_size=20) | st.sampled_from(["a.b", "a_b", "a|b"])))
def test_ids(ids: list[str]) -> None:
    """Different ids stay different, and the same one stays the same."""
    calls = CallIds()
    sent = [calls.sent(one) for one in ids]
    assert all(re.fullmatch(r"[a-zA-Z0-9_-]+", one) for one in sent)
    assert len(set(sent)) == len(set(ids))
    assert [calls.sent(one) for one in ids] == sent
