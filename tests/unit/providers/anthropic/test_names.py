"""Ids of calls that Anthropic's API accepts."""

import re

from hypothesis import given
from hypothesis import strategies as st

from antiphon.providers.anthropic.names import accepted_id
from antiphon.providers.codec.names import CallIds


@given(st.lists(st.text(max_size=20) | st.sampled_from(["a.b", "a_b", "a|b"])))
def test_ids(ids: list[str]) -> None:
    """Each call has an id of its own that the API accepts, and its result has the same one."""
    calls = CallIds(accepted_id)
    sent = [calls.called(one) for one in ids]
    assert all(re.fullmatch(r"[a-zA-Z0-9_-]+", one) for one in sent)
    assert len(set(sent)) == len(ids)
    assert [calls.answered(one) for one in ids] == sent
    assert [calls.answered(one) for one in ids] == [None] * len(ids)
