"""How much a JSON text may hold."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.net import json_bounds
from antiphon.net.json_bounds import MAX_BARE_BYTES, MAX_VALUES, SMALL, TooMuch, check, check_in_turns
from tests.unit.other_calls import other_call

PADDING = b'"' + b"x" * SMALL + b'"'
"""A value that makes a text one that is looked at."""


def filled(entry: bytes, count: int) -> bytes:
    """A list of that many entries and the padding."""
    return b"[" + b",".join([PADDING, *[entry] * count]) + b"]"


@pytest.mark.parametrize("entry", [b"0", b'""', b'"a,[{"', rb'"\"[,"', b"null", b"{}", b'{"a":0}', b"[0]", b'{"a":"b","c":[0]}'])
def test_so_many_values_are_taken_and_no_more(entry: bytes) -> None:
    """Lists, objects, what is in them, and never what is in texts; an empty list or object counts twice."""
    each = {b"{}": 2, b'{"a":0}': 2, b"[0]": 2, b'{"a":"b","c":[0]}': 4}.get(entry, 1)
    most = (MAX_VALUES - 2) // each
    check(filled(entry, most))
    with pytest.raises(TooMuch, match="more than 65536 values"):
        check(filled(entry, most + 2))


@pytest.mark.parametrize(
    "data",
    [
        b'""' * 2 * SMALL,
        b'"a":' * 2 * SMALL,
        rb'"\\"\ '.strip() * 2 * SMALL,
        b"[" * SMALL * 2,
        b"," * SMALL * 2,
        b'{"a":' * SMALL,
        b"[1," + b"1" * MAX_BARE_BYTES + b"]",
        b":" * MAX_BARE_BYTES * 2,
    ],
    ids=lambda data: data[:12].decode(),
)
def test_what_is_not_json_is_counted_all_the_same(data: bytes) -> None:
    """Texts without commas between them, brackets that nobody closes, and a number of a million digits."""
    with pytest.raises(TooMuch):
        check(data)


@pytest.mark.parametrize(
    "data",
    [b"", b"[" * SMALL, b"," * SMALL, b" " * 32 * SMALL, b'"' + b"[," * SMALL, b'["' + b'\\"[,' * SMALL + b'"]', b'"\\' * SMALL],
)
def test_what_is_small_or_holds_little_passes(data: bytes) -> None:
    """A short text of whatever kind, white space, and what stands in one text, whether that ends or not."""
    check(data)


json_values = st.recursive(
    st.none() | st.integers() | st.text(st.sampled_from('\\",[]{}:x é'), max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(st.sampled_from('\\",x'), max_size=4), inner, max_size=4),
)


def count_of(value: Any) -> int:
    """Values in a value, itself among them; what is empty counts twice."""
    match value:
        case dict():
            return 1 + (sum(map(count_of, value.values())) if value else 1)
        case list():
            return 1 + (sum(map(count_of, value)) if value else 1)
        case _:
            return 1


@given(json_values, st.booleans())
def test_pieces_may_end_anywhere(value: Any, indented: bool) -> None:
    """Within a text, between a backslash and what it escapes: the count is that of the values."""
    data = json.dumps(value, indent=2 if indented else None).encode()
    for size in (1, 2, 3, 7, len(data)):
        count = json_bounds._Count()
        for begin in range(0, len(data), size):
            count.add(data[begin : begin + size])
        assert count._values == count_of(value), size


async def test_others_have_their_turn_while_a_large_text_is_looked_at() -> None:
    """Between any two pieces of it; of a small one nothing is looked at, so nobody waits."""
    async with other_call() as other:
        await check_in_turns(b"x" * SMALL)
        assert other.turns == 0
        await check_in_turns(b'"' + b"x" * 10 * json_bounds._PIECE)
        assert other.turns >= 10
        with pytest.raises(TooMuch):
            await check_in_turns(b"[" * SMALL * 2)
