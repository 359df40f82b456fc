"""Masking in JSON that comes piece by piece."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.config import GuardConfig
from antiphon.guards.base import Blocked, Guard
from antiphon.guards.blocklist import build
from antiphon.guards.json_chain import JsonChain
from antiphon.guards.json_text import passed_value

GUARD: Guard = build(GuardConfig(name="words", kind="blocklist", patterns=["bad+|4{4}"], action="mask", replacement='"#'))  # type: ignore[call-arg]

STRINGS = st.text(alphabet='bad 4"\\\n\u00e9\U0001f600', max_size=12)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.sampled_from([4, -44444, 0.4444, 4e30]), STRINGS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("xyz"), inner, max_size=3),
    max_leaves=12,
)


async def masked(*pieces: str, guard: Guard = GUARD) -> str:
    chain = JsonChain([guard])
    return "".join([await chain.feed(piece) for piece in pieces]) + await chain.feed("", final=True)


@settings(max_examples=200, deadline=None)
@given(st.lists(VALUES, max_size=4), st.booleans(), st.data())
async def test_it_stays_json_however_it_is_split(value: list[Any], ascii_only: bool, data: st.DataObject) -> None:
    """With the values that the whole of it would have."""
    text = json.dumps(value, ensure_ascii=ascii_only)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    pieces = [text[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert json.loads(await masked(*pieces)) == json.loads(json.dumps(await passed_value([GUARD], value)))


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet='bad4 {}[]",:\\u-tru', max_size=30), st.data())
async def test_what_is_no_json_is_read_as_well(text: str, data: st.DataObject) -> None:
    """The same however it is split, and the end of it is never held back."""
    cut = data.draw(st.integers(0, len(text)))
    assert await masked(text[:cut], text[cut:]) == await masked(text)


@pytest.mark.parametrize("text", ["so bad", '{"x": 4 4444 bad}', '{"x": 1} bad', '{"x": "\\q bad"}', '"bad"', "{bad"])
async def test_what_is_no_json_is_masked_as_text(text: str) -> None:
    """From where it is none."""
    assert "bad" not in await masked(text)
    assert '"#' in await masked(text)


async def test_what_came_before_a_match_is_told() -> None:
    """As JSON writes it."""
    guard = build(GuardConfig(name="words", kind="blocklist", patterns=["bad"], action="block"))  # type: ignore[call-arg]
    with pytest.raises(Blocked) as caught:
        await masked('{"x": "a\\n bad"}', guard=guard)
    assert caught.value.before == '{"x": "a\\n '
