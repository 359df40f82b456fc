"""Tests of the content of messages."""

import pytest

from antiphon.domain.content import Origin


@pytest.mark.parametrize(
    ("ours", "theirs", "same"),
    [
        (Origin("openai-chat", "a", "m1"), Origin("openai-chat", "a", "m2"), True),
        (Origin("openai-chat", "a"), Origin("openai-chat", "b"), False),
        (Origin("anthropic", "a"), Origin("openai-chat", "a"), False),
        (Origin(provider="a"), Origin("openai-chat", "a"), True),
        (Origin("openai-chat"), Origin("openai-chat", "a"), True),
        (Origin(), Origin("openai-chat", "a"), True),
        (Origin(provider="b"), Origin("openai-chat", "a"), False),
    ],
)
def test_a_reply_is_from_where_protocol_and_provider_are_the_same(ours: Origin, theirs: Origin, same: bool) -> None:
    """Two origins are the same if protocol and provider are equal, as far as both are set."""
    assert (ours.is_from(theirs), theirs.is_from(ours)) == (same, same)
