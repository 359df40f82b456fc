"""Tests of the limit on values in a JSON text."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.net import json_bounds
from antiphon.net.json_bounds import MAX_BARE_BYTES, MAX_VALUES, SMALL, TooMuch, check, check_in_turns
from tests.unit.other_calls import other_call

PADDING = b'"' + b"x" * SMALL + b'"'
"""A value that makes a text large enough to be checked."""


def filled(entry: bytes, count: int) -> bytes:
    """Return a JSON list of the padding and so many entries."""
    return b"[" + b",".join([PADDING, *[entry] * count]) + b"]"


@pytest.mark.parametrize("entry", [b"0", b'""', b'"a,[{"', rb'"\"[,"', b"null", b"{}", b'{"a":0}', b"[0]", b'{"a":"b","c":[0]}'])
def test_the_number_of_values_is_limited(entry: bytes) -> None:
    """At most MAX_VALUES values are accepted. Commas and brackets in texts do not count; an empty list or object counts twice."""
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
    """Text that is not JSON is counted in the same way: quotes without commas, unclosed brackets, very long numbers."""
    with pytest.raises(TooMuch):
        check(data)


@pytest.mark.parametrize(
    "data",
    [b"", b"[" * SMALL, b"," * SMALL, b" " * 32 * SMALL, b'"' + b"[," * SMALL, b'["' + b'\\"[,' * SMALL + b'"]', b'"\\' * SMALL],
)
def test_what_is_small_or_holds_little_passes(data: bytes) -> None:
    """A small text, white space and one long string are accepted, whether the string ends or not."""
    check(data)


json_values = st.recursive(
    st.none() | st.integers() | st.text(st.sampled_from('\\",[]{}:x é'), max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(st.sampled_from('\\",x'), max_size=4), inner, max_size=4),
)


def count_of(value: Any) -> int:
    """Return the number of values in a value, itself included; an empty list or object counts twice."""
    match value:
        case dict():
            return 1 + (sum(map(count_of, value.values())) if value else 1)
        case list():
            return 1 + (sum(map(count_of, value)) if value else 1)
        case _:
            return 1


@given(json_values, st.booleans())
def test_pieces_may_end_anywhere(value: Any, indented: bool) -> None:
    """The count does not depend on where the pieces end."""
    data = json.dumps(value, indent=2 if indented else None).encode()
    for size in (1, 2, 3, 7, len(data)):
        count = json_bounds._Count()
        for begin in range(0, len(data), size):
            count.add(data[begin : begin + size])
        assert count._values == count_of(value), size


async def test_checking_a_large_text_yields_to_other_calls() -> None:
    """Checking a large text yields to other calls between its pieces. A small text is not checked."""
    async with other_call() as other:
        await check_in_turns(b"x" * SMALL)
        assert other.turns == 0
        await check_in_turns(b'"' + b"x" * 10 * json_bounds._PIECE)
        assert other.turns >= 10
        with pytest.raises(TooMuch):
            await check_in_turns(b"[" * SMALL * 2)
